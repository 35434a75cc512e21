"""Rounds until figures are precise, with intervals that hold where they end.

Who looks at the data and stops when an interval is narrow stops too often where it is narrow by chance. So the looks are
planned: after `measure.rounds` rounds, after twice as many, and so on up to `measure.max_rounds`, three at most. Rounds end by
the width of an interval and not by its place, so that the loss is small (sequential intervals of fixed width: Chow & Robbins
1965): intervals that know nothing of it hold in 92 to 95%. With the level of 96% they hold in 95 to 98% where rounds end
(`nox -s bench -- -k rounds`: normal, lognormal and one-slow-round-in-ten noise).

Rounds are seldom normal: a few are slow. The figure is therefore their median, and its interval is the one of order statistics
(David & Nagaraja 2003, section 7.1), which holds for any distribution. It needs six rounds at several looks, and five where
their number is fixed. A ratio of interleaved rounds has no such tail, since a slow round is slow for both cells: Student's t of the
logarithm stays.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from harness.records.figure import Figure

AT_A_LOOK = 0.04
"""What an interval may miss at one of several looks, so that it misses 5% where rounds end."""

FEW_ROUNDS = 0.0704
"""What the interval of a fixed number of rounds may miss: of five rounds the lowest and the highest hold the median in 93.75%, of
eight the second ones in 92.97%. Three rounds have no such interval."""


def may_miss(looks: int) -> float:
    """What a 95% interval may miss at each of so many looks at which rounds may end."""
    return 0.05 if looks == 1 else AT_A_LOOK


def median_over_rounds(values: Sequence[float | None], looks: int | None = None) -> Figure | None:
    """The median with its interval, of a fixed number of rounds or at the level of one of so many looks. None where a round has
    no value."""
    known = sorted(value for value in values if value is not None)
    if len(known) != len(values) or not known:
        return None
    median, (place, missed) = statistics.median(known), _place(len(known), may_miss(looks) if looks else FEW_ROUNDS)
    if place is None:
        at_looks = f" at {looks} looks" if looks else ""
        return Figure(value=median, method=f"no interval: {len(known)} rounds are too few for a median{at_looks}")
    held = f"at one of {looks} looks" if looks else f"which holds in {100 * (1 - missed):.1f}%"
    return Figure(
        value=median,
        low=known[place],
        high=known[-1 - place],
        method=f"median and interval of order statistics over {len(known)} fresh-process rounds, {held}",
    )


def _place(count: int, miss: float) -> tuple[int | None, float]:
    """From both ends, the innermost order statistics, counted from 0, between which the median lies but for `miss`, and what they
    miss. None where even the outermost do not hold it."""
    tail, place, missed = 0.0, None, 1.0
    for number in range(count // 2):
        tail += math.comb(count, number) / 2**count
        if 2 * tail > miss:
            break
        place, missed = number, 2 * tail
    return place, missed
