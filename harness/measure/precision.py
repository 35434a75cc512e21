"""How precise a figure of speed is: the half-width of its 95% interval as a share of it.

What rounds differ by is uncertainty, and more rounds make less of it; so it is never a finding. A suite says how precise its
figures should be (`measure.precision`), and each figure says whether it is.
"""

from __future__ import annotations

import math
from typing import Protocol

from harness.suite.measure import Measure


class Interval(Protocol):
    """A figure with its 95% interval, such as `Figure` and `PairedTest`."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def half_width(figure: Interval) -> float | None:
    """The distance from the figure to the further end of its interval, as a share of the figure; None without an interval. Low
    ends that were cut off at 0 thus make nothing precise."""
    if figure.low is None or figure.high is None or figure.value <= 0:
        return None
    return max(figure.high - figure.value, figure.value - figure.low) / figure.value


def in_words(figure: Interval, wanted: float = Measure.precision) -> str:
    """`precise` or `imprecise (±18%)`, rounded up; empty for a figure without an interval. wanted: the largest half-width of a
    precise one."""
    width = half_width(figure)
    if width is None:
        return ""
    if width <= wanted:
        return "precise"
    percent = math.ceil(1000 * width) / 10
    return f"imprecise (±{percent if percent < 10 else math.ceil(100 * width)}%)"
