"""Whether a cell became slower since earlier nights, from one speed-up a night.

Speed-ups of one cell differ between nights by more than its rounds within a night show: memory is laid out anew, and the
machine's neighbours change (Kalibera & Jones 2013). So the unit is the night. A new night deviates from the mean of K earlier
ones by a standard deviation of s * sqrt(1 + 1/K), where s is that of single nights (the prediction interval; Hahn & Meeker
1991, chapter 4). s is pooled over all cells of a machine. Until there are nights enough for that, the
rounds within each night take their place (Welch 1947), which is said in `method`.

A slow-down may be too small for one night and yet last, so the mean of the last two nights is tested as well.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.measure.exact import stdev, variance
from harness.measure.paired import PairedTest

ENOUGH = 8
"""Degrees of freedom from which nights alone say how nights differ."""


@dataclass(frozen=True)
class Night:
    """value: mean over rounds of the logarithm of the speed-up. error: its standard error over them. rounds: how many."""

    value: float
    error: float
    rounds: int


@dataclass(frozen=True)
class Spread:
    """variance: of the value of single nights about the mean of their cell. freedom: degrees of freedom, 0 if unknown."""

    variance: float
    freedom: int


def night(speed_ups: Sequence[float]) -> Night | None:
    """From the speed-up in each round; None for fewer than two rounds, which do not show how rounds differ."""
    if len(speed_ups) < 2:
        return None
    logs = [math.log(value) for value in speed_ups]
    return Night(statistics.fmean(logs), stdev(logs) / math.sqrt(len(logs)), len(logs))


def spread(cells: Iterable[Sequence[Night]]) -> Spread:
    """How nights differ, pooled over cells."""
    return pooled(map(contribution, cells))


def contribution(nights: Sequence[Night]) -> tuple[float, int]:
    """Of one cell: the sum of squares about its mean, and the degrees of freedom."""
    if len(nights) < 2:
        return 0.0, 0
    return variance([one.value for one in nights]) * (len(nights) - 1), len(nights) - 1


def pooled(contributions: Iterable[tuple[float, int]]) -> Spread:
    squares, freedom = 0.0, 0
    for of_cell, degrees in contributions:
        squares += of_cell
        freedom += degrees
    return Spread(squares / freedom if freedom else 0.0, freedom)


def change(new: Sequence[Night], earlier: Sequence[Night], between: Spread) -> PairedTest:
    """The speed of the new nights over that of the earlier ones, 0.95 where 5% were lost, with its 95% interval. p is one-sided:
    of no slow-down. Both must have at least one night."""
    from scipy.special import stdtr

    value = statistics.fmean(one.value for one in new) - statistics.fmean(one.value for one in earlier)
    error, freedom = uncertainty(new, earlier, between)
    if between.freedom >= ENOUGH:
        method = f"from how nights differ: {len(new)} against {len(earlier)}, {between.freedom} degrees of freedom"
    else:
        method = "from rounds alone: too few nights to know how nights differ"
    half = quantile(freedom, 0.975) * error
    p = float(stdtr(freedom, value / error)) if error > 0 else float(value >= 0)
    return PairedTest(math.exp(value), math.exp(value - half), math.exp(value + half), p, method)


@lru_cache(maxsize=1024)
def quantile(freedom: float, p: float) -> float:
    """Of Student's t; cells of one run ask for the same ones."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, p))


def uncertainty(new: Sequence[Night], earlier: Sequence[Night], between: Spread) -> tuple[float, float]:
    """The standard error of the change between these nights, of logarithms, and its degrees of freedom."""
    if between.freedom >= ENOUGH:
        return math.sqrt(between.variance * (1 / len(new) + 1 / len(earlier))), float(between.freedom)
    parts = [(one.error / len(nights), one.rounds - 1) for nights in (new, earlier) for one in nights]
    total = sum(error**2 for error, _ in parts)
    return math.sqrt(total), total**2 / sum(error**4 / own for error, own in parts) if total else 1.0
