"""When rounds end, from made-up times of interleaved rounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.plan.spec import Cell
from harness.run.context import CellResults
from harness.run.precise import may_end
from harness.suite.measure import Measure

OPEN = Measure(rounds=7, max_rounds=28, precision=0.05)


def results_of(cell: Cell, measure: Measure, seconds: list[float], *, baseline: bool = False) -> CellResults:
    turns = [
        {"together": f"round {number}", "load": "real", "batch_size": size, "seconds": value}
        for number, value in enumerate(seconds)
        for size in (1, 16)
    ]
    return CellResults(replace(cell, measure=measure, baseline=baseline, key=str(seconds)), {}, turns=turns)


@pytest.mark.parametrize(
    ("measure", "noise", "finished", "ends"),
    [
        (Measure(rounds=3), 0.3, 2, False),
        (Measure(rounds=3), 0.3, 3, True),  # their number is fixed
        (OPEN, 0.01, 6, False),  # no look was planned there
        (OPEN, 0.01, 7, True),
        (OPEN, 0.3, 7, False),
        (OPEN, 0.3, 14, False),
        (OPEN, 0.3, 28, True),  # no more are allowed
    ],
)
def test_rounds_end_when_every_ratio_is_precise(
    cell: Cell, measure: Measure, noise: float, finished: int, ends: bool
) -> None:
    """The machine's own drift, which both cells share, does not matter."""
    drift = [1 + 0.4 * (number % 5) for number in range(finished)]
    uneven = [value / 2 * (1 + noise * (-1) ** number) for number, value in enumerate(drift)]
    cells = [results_of(cell, measure, uneven), results_of(cell, measure, drift, baseline=True)]
    cells.append(results_of(cell, measure, [value / 3 for value in drift]))
    assert may_end(cells, finished) == ends


def test_one_cell_that_is_not_precise_keeps_the_others_going(cell: Cell) -> None:
    base, even = [1.0] * 7, [0.5] * 7
    uneven = [0.5, 0.7, 0.4, 0.6, 0.5, 0.7, 0.3]
    cells = [results_of(cell, OPEN, seconds, baseline=seconds is base) for seconds in (base, even)]
    assert may_end(cells, 7)
    assert not may_end([*cells, results_of(cell, OPEN, uneven)], 7)
