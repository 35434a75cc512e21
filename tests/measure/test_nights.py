"""A night's speed-up compared with those of earlier nights."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from harness.measure.nights import Night, Spread, change, night, spread

STEADY = [Night(math.log(value), 0.02, 3) for value in (2.00, 2.04, 1.96, 2.02, 1.98)]


def test_a_night_is_the_mean_of_its_rounds_logarithms() -> None:
    found = night([2.0, 2.2, 1.9])
    logs = [math.log(value) for value in (2.0, 2.2, 1.9)]
    assert found is not None
    assert found.value == pytest.approx(sum(logs) / 3)
    assert found.error == pytest.approx(stats.sem(logs))
    assert (found.rounds, night([2.0])) == (3, None)


def test_nights_of_all_cells_say_together_how_nights_differ() -> None:
    """As the residual variance of a one-way analysis of variance."""
    cells = [[Night(value, 0.1, 3) for value in values] for values in ((0.0, 2.0), (5.0, 6.0, 7.0), (9.0,))]
    found = spread(cells)
    assert found.variance == pytest.approx((2.0 + 2.0) / 3)
    assert found.freedom == 3
    assert spread([]) == Spread(0.0, 0)


def test_a_new_night_lies_within_the_prediction_interval_of_the_earlier_ones() -> None:
    between = Spread(0.01**2, 20)
    test = change([Night(math.log(1.9), 0.5, 3)], STEADY, between)
    mean = sum(one.value for one in STEADY) / 5
    error = 0.01 * math.sqrt(1 + 1 / 5)
    half = stats.t.ppf(0.975, 20) * error
    assert test.value == pytest.approx(1.9 / math.exp(mean))
    assert test.low == pytest.approx(test.value * math.exp(-half))
    assert test.high == pytest.approx(test.value * math.exp(half))
    assert test.p == pytest.approx(stats.t.cdf((math.log(1.9) - mean) / error, 20))


def test_with_few_nights_the_rounds_of_two_nights_are_compared_as_welch_does() -> None:
    rounds = [2.0, 2.3, 1.9, 2.1], [1.8, 2.0, 1.7]
    earlier, new = night(rounds[0]), night(rounds[1])
    assert earlier and new
    test = change([new], [earlier], Spread(0.5, 2))
    wanted = stats.ttest_ind(*([math.log(value) for value in side] for side in rounds[::-1]), equal_var=False)
    low, high = wanted.confidence_interval(0.95)
    assert test.p == pytest.approx(wanted.pvalue / 2)
    assert test.low == pytest.approx(math.exp(low))
    assert test.high == pytest.approx(math.exp(high))
    assert "too few nights" in test.method


def test_nights_without_any_spread_are_equal_or_surely_not() -> None:
    same = [Night(0.7, 0.0, 3)]
    assert change(same, same, Spread(0.0, 0)).p == 1.0
    assert change([Night(0.6, 0.0, 3)], same, Spread(0.0, 0)).p == 0.0
