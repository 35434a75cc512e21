"""What quantization-aware training did, in two parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.records.schema import Checkpoint, Finding, Record
from harness.report.boards import make_boards
from tests.records.records import make_record
from tests.report.test_site import build
from tests.report.test_suite_page import text_of


def cell(key: str, f1: float, **changes: Any) -> Record:
    return make_record(key=key, f1=f1, **({"label": key} | changes))


def of(recipe: str) -> Checkpoint:
    sizes = {"num_hidden_layers": 1}
    return Checkpoint(key=recipe, recipe=recipe, source="s", architecture=sizes, parameters=1, weights_bytes=4)


def rows() -> list[Record]:
    """In points: quantizing the parent after training costs 1; further training gains 0.5, and rounding then costs 0.7."""
    child: dict[str, Any] = {
        "model": "trained",
        "settings": {"limit": None, "ancestor": "tiny"},
        "checkpoint": of("qat"),
    }
    int8: dict[str, Any] = {"backend": "onnxruntime_int8", "scheme": "engine_int8"}
    return [
        cell("parent", 80.0, baseline=True, checkpoint=of("finetune")),
        cell("ptq", 79.0, label="int8 (engine_int8)", checkpoint=of("ptq"), **int8),
        cell("other", 70.0, label="int8 (q8bert)", checkpoint=of("ptq"), **(int8 | {"scheme": "q8bert"})),
        cell("folded", 80.5, baseline=True, **child),
        cell("qat", 79.8, label="int8", **child, **int8),
    ]


def test_the_whole_is_the_sum_of_training_and_rounding(tmp_path: Path) -> None:
    (board,) = make_boards(rows())
    (parts,) = board.qat
    assert (parts.model, parts.label, parts.scheme, parts.seed) == ("trained", "int8", "engine_int8", 1)
    assert parts.parent_ptq is not None and parts.training is not None and parts.rounding is not None
    assert parts.parent_ptq.value == pytest.approx(-1.0)
    assert parts.total.value == pytest.approx(-0.2)
    assert parts.training.value == pytest.approx(0.5)
    assert parts.rounding.value == pytest.approx(-0.7)
    page = text_of(build(tmp_path, *rows()) / "suite-squad.html")
    assert "int8 trained engine_int8 1 -1.00 -0.20 +0.50 -0.70 " in page


@pytest.mark.parametrize(
    ("missing", "left"), [("ptq", "no row -0.20 +0.50 -0.70"), ("folded", "-1.00 -0.20 no row no row")]
)
def test_a_part_without_its_row_is_not_made_up(tmp_path: Path, missing: str, left: str) -> None:
    site = build(tmp_path, *(record for record in rows() if record.key != missing))
    assert f"int8 trained engine_int8 1 {left} " in text_of(site / "suite-squad.html")


def test_a_model_that_was_only_trained_further_is_the_control(tmp_path: Path) -> None:
    """It has the same parent by its weights. Without a row of a QAT model there is no control."""

    def control(weights: str) -> Record:
        settings = {"limit": None, "checkpoint": {"recipe": "finetune", "parent": {"model": "tiny"}}}
        longer = of("finetune").model_copy(update={"key": "longer", "lineage": {"longer": "2", "finetune": weights}})
        return cell(
            "longer", 78.8, baseline=True, label="torch_fp32", model="longer", settings=settings, checkpoint=longer
        )

    lineage = {"finetune": "1", "ptq": "1", "qat": "2"}
    known = [
        record.model_copy(update={"checkpoint": record.checkpoint.model_copy(update={"lineage": lineage})})
        for record in rows()
        if record.checkpoint
    ]
    (board,) = make_boards([*known, control("1")])
    _, control_parts = board.qat
    assert (control_parts.model, control_parts.label, control_parts.scheme) == ("longer", "torch_fp32", "")
    assert (control_parts.parent_ptq, control_parts.rounding) == (None, None)
    assert control_parts.training is not None
    assert control_parts.total.value == control_parts.training.value == pytest.approx(-1.2)
    page = text_of(build(tmp_path, *known, control("1")) / "suite-squad.html")
    assert re.search(r"torch_ ?fp32 longer none: further training only 1 -1.20 -1.20 ", page)
    (board,) = make_boards([*known, control("another training")])
    assert [parts.model for parts in board.qat] == ["trained"]
    (board,) = make_boards([known[0], control("1")])
    assert board.qat == ()


def test_weights_of_another_training_are_no_part() -> None:
    """The model was trained again between the two rows, so rounding is not their only difference."""

    def made(record: Record, weights: str) -> Record:
        lineage = {"finetune": "parent"} | ({} if record.model == "tiny" else {"qat": weights})
        assert record.checkpoint is not None
        return record.model_copy(update={"checkpoint": record.checkpoint.model_copy(update={"lineage": lineage})})

    for weights, there in (("trained", True), ("trained anew", False)):
        records = [made(record, weights if record.key == "folded" else "trained") for record in rows()]
        (board,) = make_boards(records)
        (parts,) = board.qat
        assert parts.total.value == pytest.approx(-0.2)
        assert (parts.training is not None, parts.rounding is not None) == (there, there)


def test_other_seeds_and_tasks_are_no_parts() -> None:
    changed = [
        record.model_copy(update={"seed": 2}) if record.key == "folded" else record
        for record in rows()
        if record.key != "ptq"
    ]
    (board,) = make_boards([*changed, cell("base2", 80.0, baseline=True, seed=2)])
    (parts,) = board.qat
    assert parts.parent_ptq is None and parts.training is None and parts.rounding is None


@pytest.mark.parametrize("which", ["ptq", "qat"])
def test_what_computed_something_else_is_no_part(which: str) -> None:
    finding = Finding(rule="wrong_provider", what="w", measured="m", bound="b", remedy="r")
    marked = [
        record.model_copy(update={"findings": [finding], "status": "invalid"}) if record.key == which else record
        for record in rows()
    ]
    (board,) = make_boards(marked)
    if which == "qat":
        assert board.qat == ()
    else:
        (parts,) = board.qat
        assert parts.parent_ptq is None


def test_parts_are_of_one_device() -> None:
    def on(device: str, of: float) -> list[Record]:
        changed = {"device": device, "record_id": f"{device}"}
        return [
            record.model_copy(
                update=changed
                | {"record_id": f"{device}-{record.key}"}
                | ({"accuracy": cell("x", 70.0 + of).accuracy} if record.key == "folded" else {})
            )
            for record in rows()
        ]

    (board,) = make_boards([*on("cpu", 0.0), *on("cuda", 9.0)])
    assert len(board.qat) == 2
    for parts in board.qat:
        assert parts.training is not None and parts.rounding is not None
        assert parts.total.value == pytest.approx(parts.training.value + parts.rounding.value)
