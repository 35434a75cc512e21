"""Parts of a record, from made-up results of a cell's processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.plan.spec import Cell, CheckpointSpec
from harness.records.schema import Checkpoint
from harness.run.assemble import cold_start_seconds, flops, selected_on
from tasks import DataRef, Shape


@pytest.mark.parametrize(
    ("starts", "median"), [([], None), ([3.0], 3.0), ([20.0, 1.0, 2.0], 2.0), ([20.0, 1.0, 5.0, 2.0], 3.5)]
)
def test_cold_start_is_the_median_of_rounds(starts: list[float], median: float | None) -> None:
    assert cold_start_seconds([{"cold_start_seconds": value} for value in starts]) == median


def test_what_published_weights_were_selected_on_is_unknown() -> None:
    load = CheckpointSpec("m", "squad_v1", "load", "hub:a/b", 0, Shape(50), DataRef("sample"))
    trained = replace(load, recipe="finetune")
    expected = {
        "published": (load, "unknown: weights as published"),
        "its ranges": (
            replace(load, recipe="ptq", parent=load),
            "unknown: weights as published; ranges calibrated on training examples",
        ),
        "trained here": (trained, "nothing; last step of training"),
        "its ranges, trained here": (
            replace(load, recipe="ptq", parent=trained),
            "nothing; ranges calibrated on training examples",
        ),
    }
    for name, (spec, words) in expected.items():
        assert selected_on(spec) == words, name


@pytest.mark.parametrize("generic", [False, True])
def test_flops_of_an_unknown_family_are_those_that_were_counted(cell: Cell, generic: bool) -> None:
    """One layer by hand: a sequence of n tokens multiplies n (4 h^2 + 2 n h + 2 h i) numbers."""
    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 16, "num_labels": 2}
    made = Checkpoint(
        key="c", recipe="load", source="s", architecture=sizes, generic=generic, parameters=1, weights_bytes=4
    )
    placement = {"total_macs": 1000, "int8_macs": 250, "notes": []}
    count = flops(cell, made, {"kind": "question_answering", "placement": placement})
    n = cell.shape.max_length
    layer = 2 * n * (4 * 8 * 8 + 2 * n * 8 + 2 * 8 * 16)
    assert (count.total, count.encoder) == ((2000, 2000) if generic else (layer + 2 * n * 8 * 2, layer))
    assert count.int8_share == 0.25
    assert count.cross_check.startswith("none" if generic else "matrix products counted in the loaded model: ")
