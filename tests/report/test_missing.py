"""The cells that a suite asks for and that have no record."""

from __future__ import annotations

from pathlib import Path

from harness.records.schema import Checkpoint
from harness.report.missing import RequestedCell, describe, missing_cells, requested_cells
from tests.records.records import make_record, of_a_part
from tests.suite.suite_mistakes import GOOD
from tests.suite.test_suite_models import MADE

BY_SCHEME = ["onnxruntime_int8 (engine_int8)", "onnxruntime_int8 (engine_int8_asymmetric)"]
TWO = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
REQUESTED = [RequestedCell(task, seed, *pair) for task in ("squad_v1", "glue/rte") for seed in (1, 2) for pair in TWO]


def test_the_cells_of_a_suite(tmp_path: Path) -> None:
    """A model that brings ranges has one row for two backends that differ by a scheme; a file that is no suite has no cells."""
    file = tmp_path / "one.toml"
    file.write_text(GOOD.replace("[shape]\n", MADE, 1))
    requested = requested_cells(file, [])
    assert len(requested) == len(set(requested))
    assert [label for task, seed, model, label in requested if (task, seed, model) == ("squad_v1", 1, "base")] == [
        "torch_fp32",
        *BY_SCHEME,
        "TensorRT INT8",
    ]
    assert [label for task, seed, model, label in requested if (task, seed, model) == ("squad_v1", 1, "small")] == [
        "torch_fp32",
        "onnxruntime_int8",
        "TensorRT INT8",
    ]
    file.write_text("title = 3")
    assert requested_cells(file, []) == []


def test_a_record_that_says_why_there_is_no_figure_counts() -> None:
    records = [
        make_record(model="a", label="x", status="skipped", reason="no GPU"),
        make_record(model="a", label="y", task="glue/rte", seed=2),
    ]
    missing = missing_cells(REQUESTED, records)
    assert len(missing) == len(REQUESTED) - 2
    assert not {("squad_v1", 1, "a", "x"), ("glue/rte", 2, "a", "y")} & set(missing)


def test_a_part_of_the_evaluation_set_is_not_the_cell() -> None:
    part = of_a_part(10, model="a", label="x")
    assert missing_cells(REQUESTED, [part]) == REQUESTED
    assert len(missing_cells(REQUESTED, [part, make_record(model="a", label="x")])) == len(REQUESTED) - 1


def test_a_loaded_model_with_ranges_has_one_row_for_backends_that_differ_by_a_scheme(tmp_path: Path) -> None:
    """As its records say: pages are made of those, not of what lies in the model's folder now."""
    file = tmp_path / "one.toml"
    file.write_text(GOOD)
    sizes = {"num_hidden_layers": 1}
    loaded = Checkpoint(key="c", recipe="load", source="s", architecture=sizes, parameters=1, weights_bytes=4)
    for scheme, labels in (
        ("q8bert", ["torch_fp32", "onnxruntime_int8", "TensorRT INT8"]),
        (None, ["torch_fp32", *BY_SCHEME, "TensorRT INT8"]),
    ):
        record = make_record(model="base", checkpoint=loaded.model_copy(update={"scheme": scheme}))
        requested = requested_cells(file, [record])
        assert [
            label for task, seed, model, label in requested if (task, seed, model) == ("squad_v1", 1, "base")
        ] == labels


def test_missing_cells_in_words() -> None:
    assert describe([], REQUESTED) == []
    assert describe(REQUESTED, REQUESTED) == ["squad_v1 (seeds 1, 2), glue/rte (seeds 1, 2)"]
    missing = [
        cell for cell in REQUESTED if cell.task == "glue/rte" or cell[1:3] == (2, "a") or cell[1:] == (2, "b", "y")
    ]
    assert describe(missing, REQUESTED) == ["squad_v1 (seed 2): all of a; y of b", "glue/rte (seeds 1, 2)"]
    one_seed = [cell for cell in REQUESTED if cell.seed == 1]
    assert describe([RequestedCell("glue/rte", 1, "b", "x")], one_seed) == ["glue/rte: x of b"]
