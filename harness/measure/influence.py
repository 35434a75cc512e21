"""How much each example moves a metric: its empirical influence function, for standard errors without resampling.

A metric is a function of the distribution of the examples. Its influence function is the derivative in the direction of one
example, and the mean square of the influences is the metric's variance, to first order (Hampel 1974; the infinitesimal
jackknife: Efron 1982, chapter 6; of survey data: Binder 1983). A bootstrap converges to the same error, but every finite
number of resamples leaves a part to chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.measure.intervals import sufficient

Array = np.ndarray[Any, Any]


def influence(kind: str, columns: Sequence[Array]) -> Array:
    """(n,) influences of the examples on a metric, as a coefficient; their mean is 0. columns: as for
    `harness.measure.intervals.resampled`, n >= 1. Where a metric is undefined, and so 0, they are 0."""
    if kind == "spearman":
        return _spearman(*columns)
    rows, metric = sufficient(kind, columns)
    rows = rows.astype(np.float64)
    sums, count = rows.sum(0), len(rows)
    step = min(1e-5 * count, 0.1)
    slopes = np.zeros(len(sums))
    for place in np.flatnonzero(np.abs(rows).max(0)):
        moved = np.stack([sums, sums])
        moved[0, place] += step
        moved[1, place] -= step
        up, down = metric(moved)
        slopes[place] = (up - down) / (2 * step)
    moves = count * (rows @ slopes)
    return np.asarray(moves - moves.mean())


def _spearman(x: Array, y: Array) -> Array:
    """Spearman's correlation is that of the shares of examples below each (half of those that are equal). An example moves it
    by its own pair of shares, and by the shares of all others, of which it is a part."""
    (of_x, often_x), (of_y, often_y) = (
        np.unique(values, return_inverse=True, return_counts=True)[1:] for values in (x, y)
    )
    a, b = _share_below(of_x, often_x), _share_below(of_y, often_y)
    count = len(a)
    spread_a, spread_b = (a * a).mean() - 0.25, (b * b).mean() - 0.25
    if spread_a < 1e-12 or spread_b < 1e-12:  # a constant column
        return np.zeros(count)
    root = (spread_a * spread_b) ** 0.5
    rho = ((a * b).mean() - 0.25) / root
    together = a * b + _mean_above(of_x, b) + _mean_above(of_y, a)
    own_a, own_b = a * a + 2 * _mean_above(of_x, a), b * b + 2 * _mean_above(of_y, b)
    together, own_a, own_b = (part - part.mean() for part in (together, own_a, own_b))
    return np.asarray(together / root - rho / 2 * (own_a / spread_a + own_b / spread_b))


def _share_below(place: Array, often: Array) -> Array:
    """The share of examples that are smaller than each, and half of those that are equal to it; their mean is 1/2. place: of each
    example's value among the distinct ones, the smallest first. often: how many examples have each of these."""
    below = np.cumsum(often) - often / 2
    return np.asarray(below[place] / len(place))


def _mean_above(place: Array, weights: Array) -> Array:
    """Of each example: the mean over all of weights x (1 where their value is larger, 1/2 where it is equal). place: as above."""
    of_value = np.bincount(place, weights)
    above = of_value[::-1].cumsum()[::-1] - of_value / 2
    return np.asarray(above[place] / len(place))
