"""Where the level of a series of nights changed: PELT (Killick, Fearnhead & Eckley 2012, "Optimal detection of changepoints with a
linear computational cost") on the mean, by the library ruptures (Truong, Oudre & Vayatis 2020).

The cost is the sum of squares about each level over the variance of quiet nights. Before, each night becomes the median of
itself and its neighbours (Tukey 1977), which keeps steps and drops a single night off. The penalty lets about one quiet series
of a hundred show a change.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise

ENOUGH = 20
"""Differences between neighbouring nights, over all series together, from which their deviation is known well enough."""

SHORTEST = 6
"""Nights that a series needs."""


def deviation(series: Iterable[Sequence[float]]) -> float | None:
    """The standard deviation of a night about its level, from the median absolute difference of neighbours over all series
    (levels that change touch few of these). None of too few nights."""
    gaps = [abs(b - a) for values in series for a, b in pairwise(values)]
    return 1.4826 * statistics.median(gaps) / math.sqrt(2) if len(gaps) >= ENOUGH else None


def change_points(values: Sequence[float], noise: float | None) -> list[int]:
    """The places whose value is the first of a new level. noise: as `deviation` gives it; without one, none are sought."""
    if not noise or len(values) < SHORTEST:
        return []
    import numpy as np
    import ruptures

    scaled = np.asarray(values, np.float64) / noise
    middle = np.median([scaled[:-2], scaled[1:-1], scaled[2:]], axis=0)
    smooth = np.concatenate([middle[:1], middle, middle[-1:]]).reshape(-1, 1)
    # the linear kernel's cost is that of the mean; with a penalty this is PELT, in C
    found = ruptures.KernelCPD(kernel="linear", min_size=2).fit(smooth).predict(pen=10 + math.log(len(values)))
    return [int(place) for place in found[:-1]]
