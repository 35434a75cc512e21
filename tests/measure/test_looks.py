"""Medians with the interval of order statistics, against SciPy's quantile test; planned looks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.measure.looks import median_over_rounds
from harness.measure.paired import ratio
from harness.suite.measure import Measure


@pytest.mark.parametrize("count", [7, 8, 14, 21, 28])
@pytest.mark.parametrize("looks", [1, 2, 3])
def test_the_median_has_the_interval_of_scipys_quantile_test(count: int, looks: int) -> None:
    values = np.random.default_rng(count).normal(10, 1, count)
    figure = median_over_rounds(list(values), looks)
    expected = stats.quantile_test(values, q=0, p=0.5).confidence_interval(0.95 if looks == 1 else 0.96)
    assert figure is not None and figure.value == pytest.approx(np.median(values))
    assert (figure.low, figure.high) == pytest.approx((expected.low, expected.high))


def test_seven_rounds_by_hand() -> None:
    """All seven lie on one side of the median with 2 / 2^7 = 1.6%, which is less than 4%; of six with 3.1%, of five with 6.3%."""
    figure = median_over_rounds([3.0, 1.0, 7.0, 2.0, 6.0, 4.0, 5.0], 3)
    assert figure is not None
    assert (figure.value, figure.low, figure.high) == (4.0, 1.0, 7.0)
    few = median_over_rounds([3.0, 1.0, 2.0, 4.0, 5.0], 3)
    assert few is not None and (few.value, few.low) == (3.0, None)
    assert median_over_rounds([1.0, None, 2.0], 3) is None


@pytest.mark.parametrize(
    ("count", "place", "held"),
    [(5, 0, "93.8"), (6, 0, "96.9"), (7, 0, "98.4"), (8, 1, "93.0"), (9, 1, "96.1"), (11, 2, "93.5")],
)
def test_a_fixed_number_of_rounds(count: int, place: int, held: str) -> None:
    """By the binomial distribution: of five rounds all lie on one side of the median with 2 / 2^5."""
    values = np.random.default_rng(count).permutation(count) + 1.0
    figure = median_over_rounds(list(values))
    assert figure is not None and (figure.low, figure.high) == (1 + place, count - place)
    assert figure.method.endswith(f"which holds in {held}%")


def test_three_rounds_have_no_interval() -> None:
    figure = median_over_rounds([3.0, 1.0, 2.0])
    assert figure is not None and (figure.value, figure.low) == (2.0, None)
    assert figure.method == "no interval: 3 rounds are too few for a median"


def test_a_ratio_at_several_looks_has_a_wider_interval() -> None:
    mine, theirs = [2.0, 2.2, 1.9, 2.1, 2.05, 2.1, 1.95], [1.0, 1.05, 1.0, 1.0, 1.02, 1.0, 1.0]
    expected = stats.ttest_rel(np.log(mine), np.log(theirs))
    ends = expected.confidence_interval(0.96)
    test = ratio(mine, theirs, interleaved=True, looks=3)
    assert (test.low, test.high) == pytest.approx((np.exp(ends.low), np.exp(ends.high)))
    assert test.p == pytest.approx(1.25 * expected.pvalue)
    assert test.method.endswith("at one of 3 looks")


@pytest.mark.parametrize(
    ("rounds", "most", "looks"),
    [(3, None, (3,)), (7, 7, (7,)), (7, 10, (7, 10)), (7, 20, (7, 14, 20)), (7, 28, (7, 14, 28)), (0, 28, (0,))],
)
def test_looks_are_planned(rounds: int, most: int | None, looks: tuple[int, ...]) -> None:
    measure = Measure(rounds=rounds, max_rounds=most)
    assert measure.looks == looks
    assert measure.planned_looks == (len(looks) if most else None)
