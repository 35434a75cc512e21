"""Bit for bit what Python's `statistics` gives."""

from __future__ import annotations

import random
import statistics

import pytest

from harness.measure.exact import stdev, variance


def drawn() -> list[list[float]]:
    draw = random.Random(5)
    scales = [1e-12, 1e-3, 1.0, 7.0, 1e9, 1e150]
    return [
        [draw.gauss(draw.choice([0.0, 1.0, 50.0]), 1.0) * scale for _ in range(draw.randrange(2, 12))]
        for scale in scales
        for _ in range(400)
    ]


SPECIAL = [
    [0.0, 0.0],
    [1.0, 1.0, 1.0],
    [1, 2, 4],
    [0.1, 0.1 + 2**-56],
    [5e-324, 1e-300, 0.0],
    [-0.0, 3.0],
]


@pytest.mark.parametrize("values", [*SPECIAL, *drawn()[::20]])
def test_variance_and_deviation_are_those_of_statistics(values: list[float]) -> None:
    for mine, theirs in ((variance, statistics.variance), (stdev, statistics.stdev)):
        assert repr(float(mine(values))) == repr(float(theirs(values)))


def test_many_draws() -> None:
    for values in drawn():
        assert variance(values) == statistics.variance(values)
        assert stdev(values) == statistics.stdev(values)


def test_one_value_has_no_variance() -> None:
    with pytest.raises(statistics.StatisticsError):
        stdev([1.0])
