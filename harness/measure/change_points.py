"""Where the level of a series of nights changed: optimal partitioning (Jackson et al. 2005, "An algorithm for optimal partitioning of
data on an interval") on the mean, whose result is that of PELT (Killick, Fearnhead & Eckley 2012).

The cost is the sum of squares about each level over the variance of quiet nights. Before, each night becomes the median of
itself and its neighbours (Tukey 1977), which keeps steps and drops a single night off. The penalty lets about one quiet series
of a hundred show a change.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

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

    scaled = np.asarray(values, np.float64) / noise
    middle = np.median([scaled[:-2], scaled[1:-1], scaled[2:]], axis=0)
    smooth = np.concatenate([middle[:1], middle, middle[-1:]])
    return _partition(smooth, 10 + math.log(len(values)))


def _partition(values: np.ndarray[Any, Any], penalty: float) -> list[int]:
    """The starts of all levels but the first, of the partition with the least sum of squares about its levels plus the penalty for
    each. A level has two nights at least."""
    import numpy as np

    values, count = values - values.mean(), len(values)
    sums, squares = (np.concatenate([[0.0], np.cumsum(part)]) for part in (values, values**2))
    least, start_of = np.full(count + 1, np.inf), np.zeros(count + 1, np.int64)
    least[0] = -penalty  # the first level costs none
    for end in range(2, count + 1):
        lengths = end - np.arange(end - 1)
        about = squares[end] - squares[: end - 1] - (sums[end] - sums[: end - 1]) ** 2 / lengths
        costs = least[: end - 1] + penalty + about
        start_of[end] = costs.argmin()
        least[end] = costs[start_of[end]]
    found, place = list[int](), int(start_of[count])
    while place:
        found.append(place)
        place = int(start_of[place])
    return found[::-1]
