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
    """In points: rounding after training costs 1; training on brings half a point, and rounding then costs 0.7."""
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
    (one,) = board.qat
    assert (one.model, one.label, one.scheme, one.seed) == ("trained", "int8", "engine_int8", 1)
    assert one.parent_ptq is not None and one.training is not None and one.rounding is not None
    assert one.parent_ptq.value == pytest.approx(-1.0)
    assert one.total.value == pytest.approx(-0.2)
    assert one.training.value == pytest.approx(0.5)
    assert one.rounding.value == pytest.approx(-0.7)
    page = text_of(build(tmp_path, *rows()) / "suite-squad.html")
    assert "int8 trained engine_int8 1 -1.00 -0.20 +0.50 -0.70 " in page


@pytest.mark.parametrize(
    ("missing", "left"), [("ptq", "no row -0.20 +0.50 -0.70"), ("folded", "-1.00 -0.20 no row no row")]
)
def test_a_part_without_its_row_is_not_made_up(tmp_path: Path, missing: str, left: str) -> None:
    site = build(tmp_path, *(one for one in rows() if one.key != missing))
    assert f"int8 trained engine_int8 1 {left} " in text_of(site / "suite-squad.html")


def test_a_model_that_was_only_trained_on_is_the_control(tmp_path: Path) -> None:
    """Of the same parent by its weights; without a trained row there is nothing to control."""

    def control(weights: str) -> Record:
        settings = {"limit": None, "checkpoint": {"recipe": "finetune", "parent": {"model": "tiny"}}}
        longer = of("finetune").model_copy(update={"key": "longer", "lineage": {"longer": "2", "finetune": weights}})
        return cell(
            "longer", 78.8, baseline=True, label="torch_fp32", model="longer", settings=settings, checkpoint=longer
        )

    lineage = {"finetune": "1", "ptq": "1", "qat": "2"}
    known = [
        one.model_copy(update={"checkpoint": one.checkpoint.model_copy(update={"lineage": lineage})})
        for one in rows()
        if one.checkpoint
    ]
    (board,) = make_boards([*known, control("1")])
    _, one = board.qat
    assert (one.model, one.label, one.scheme, one.parent_ptq, one.rounding) == ("longer", "torch_fp32", "", None, None)
    assert one.training is not None
    assert one.total.value == one.training.value == pytest.approx(-1.2)
    page = text_of(build(tmp_path, *known, control("1")) / "suite-squad.html")
    assert re.search(r"torch_ ?fp32 longer none: further training only 1 -1.20 -1.20 ", page)
    (board,) = make_boards([*known, control("another training")])
    assert [one.model for one in board.qat] == ["trained"]
    (board,) = make_boards([known[0], control("1")])
    assert board.qat == ()


def test_weights_of_another_training_are_no_part() -> None:
    """Trained anew between the two rows: what tells them apart is not rounding alone."""

    def made(one: Record, weights: str) -> Record:
        lineage = {"finetune": "parent"} | ({} if one.model == "tiny" else {"qat": weights})
        assert one.checkpoint is not None
        return one.model_copy(update={"checkpoint": one.checkpoint.model_copy(update={"lineage": lineage})})

    for weights, there in (("trained", True), ("trained anew", False)):
        records = [made(one, weights if one.key == "folded" else "trained") for one in rows()]
        (board,) = make_boards(records)
        (one,) = board.qat
        assert one.total.value == pytest.approx(-0.2)
        assert (one.training is not None, one.rounding is not None) == (there, there)


def test_other_seeds_and_tasks_are_no_parts() -> None:
    changed = [one.model_copy(update={"seed": 2}) if one.key == "folded" else one for one in rows() if one.key != "ptq"]
    (board,) = make_boards([*changed, cell("base2", 80.0, baseline=True, seed=2)])
    (one,) = board.qat
    assert one.parent_ptq is None and one.training is None and one.rounding is None


@pytest.mark.parametrize("which", ["ptq", "qat"])
def test_what_computed_something_else_is_no_part(which: str) -> None:
    finding = Finding(rule="wrong_provider", what="w", measured="m", bound="b", remedy="r")
    marked = [
        one.model_copy(update={"findings": [finding], "status": "invalid"}) if one.key == which else one
        for one in rows()
    ]
    (board,) = make_boards(marked)
    if which == "qat":
        assert board.qat == ()
    else:
        (one,) = board.qat
        assert one.parent_ptq is None


def test_parts_are_of_one_device() -> None:
    def on(device: str, of: float) -> list[Record]:
        changed = {"device": device, "record_id": f"{device}"}
        return [
            one.model_copy(
                update=changed
                | {"record_id": f"{device}-{one.key}"}
                | ({"accuracy": cell("x", 70.0 + of).accuracy} if one.key == "folded" else {})
            )
            for one in rows()
        ]

    (board,) = make_boards([*on("cpu", 0.0), *on("cuda", 9.0)])
    assert len(board.qat) == 2
    for one in board.qat:
        assert one.training is not None and one.rounding is not None
        assert one.total.value == pytest.approx(one.training.value + one.rounding.value)
