"""Half-widths of figures, and the words for them."""

from __future__ import annotations

import pytest

from harness.measure.paired import ratio
from harness.measure.precision import half_width, in_words
from harness.measure.scenarios import mean_over_rounds
from harness.records.figure import Figure


@pytest.mark.parametrize(
    ("low", "high", "wanted", "words"),
    [
        (96.0, 104.0, 0.05, "precise"),
        (95.0, 105.0, 0.05, "precise"),
        (94.99, 105.01, 0.05, "imprecise (±5.1%)"),  # never "imprecise (±5.0%)" where 5% is asked for
        (96.0, 104.0, 0.03, "imprecise (±4.0%)"),
        (82.0, 118.0, 0.05, "imprecise (±18%)"),
        (0.0, 250.0, 0.05, "imprecise (±150%)"),  # the low end was cut off at 0
    ],
)
def test_words(low: float, high: float, wanted: float, words: str) -> None:
    assert in_words(Figure(value=100.0, low=low, high=high), wanted) == words


def test_what_has_no_interval_has_no_words() -> None:
    assert in_words(Figure(value=100.0)) == ""
    assert half_width(Figure(value=0.0, low=0.0, high=0.0)) is None


def test_of_the_t_intervals_of_rounds() -> None:
    """By hand: of 9, 10, 11 the deviation is 1, t(0.975, 2) = 4.303, so the half-width is 2.484 of 10."""
    figure = mean_over_rounds([9.0, 10.0, 11.0])
    assert figure is not None and half_width(figure) == pytest.approx(0.2484, abs=1e-4)
    test = ratio([2.0, 2.2], [1.0, 1.0], interleaved=True)
    assert test.high is not None and half_width(test) == pytest.approx(test.high / test.value - 1)
