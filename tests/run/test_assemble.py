"""Parts of a record, from made-up results of a cell's processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.plan.spec import CheckpointSpec
from harness.run.assemble import cold_start_seconds, selected_on
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
