"""95% intervals of accuracy metrics: Wilson's for shares, else the expanded percentile bootstrap, vectorised.

A share of independent examples that are right or wrong gets Wilson's score interval (1927), which Brown, Cai & DasGupta
(2001, "Interval Estimation for a Binomial Proportion") recommend: it needs no resampling and exists where all are right.

Everything else is resampled. The percentile interval (Efron & Tibshirani 1993, chapter 13) is too narrow where there is
little to resample, such as SQuAD's 48 articles. Hesterberg (2015, "What Teachers Should Know about the Bootstrap", section 5)
takes wider percentiles, such that a mean gets Student's interval. With thousands of examples the two are the same. Articles
differ in size (96 to 810 questions), and groups of unequal size count for less than as many equal ones: n is Kish's effective
number (1965, section 8.2; for clusters Carter, Schnepel & Steigerwald 2017), 36 of SQuAD's 48.

Examples of one group are resampled together (the cluster bootstrap; Field & Welsh 2007): SQuAD's questions come by article.
Means, F1, Matthews' and Pearson's correlations follow from sums over examples, so a resample needs only how often each
example, or group, was drawn. Spearman's correlation needs new ranks in every resample. Where a resample leaves a metric
undefined, it is 0, as in `tasks.metrics.labels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.records.figure import Figure
from tasks import Scores, Statistic

Array = np.ndarray[Any, Any]


CHUNK = 200
"""Resamples whose counts are in memory at once: 200 x 10,570 examples take 17 MB."""


MULTINOMIAL_COST = 10
"""Drawing one count of a multinomial takes as long as drawing this many examples one by one."""


def intervals(scores: Scores, resamples: int = 10_000, seed: int = 0) -> dict[str, Figure]:
    """A Figure, in percent, for every metric of `scores`; the same seed gives the same interval.

    Where no interval exists, low and high are None and `method` says why: fewer than two examples or groups, or a metric that
    is the same in every resample (for example, all answers right), whose true spread the bootstrap cannot know.
    An interval that does not hold its figure is widened until it does.
    """
    return {
        name: _figure(value, scores, scores.statistics[name], resamples, seed)
        if name in scores.statistics
        else Figure(value=value, method="no interval: this metric's resampling is not defined")
        for name, value in scores.metrics.items()
    }


def _figure(value: float, scores: Scores, statistic: Statistic, resamples: int, seed: int) -> Figure:
    columns = [np.asarray(scores.per_example[name], np.float64) for name in statistic.columns]
    count, unit, group = len(columns[0]), "examples", None
    independent = float(count)
    if count < 2:
        return Figure(value=value, method=f"no interval: {count} example{'' if count == 1 else 's'}")
    if scores.groups is None and is_share(statistic, columns):
        low, high = wilson(float(columns[0].sum()), count)
        return Figure(value=value, low=min(100 * low, value), high=max(100 * high, value), method=_WILSON.format(count))
    if scores.groups is not None:
        articles, group = np.unique(scores.groups, return_inverse=True)
        count, unit = len(articles), "articles"
        if count < 2:
            return Figure(value=value, method="no interval: all examples are of a single article")
        independent = effective_number(np.bincount(group))
    draws = 100 * resampled(statistic.kind, [columns], group, resamples, np.random.default_rng(seed))[:, 0]
    low, high = np.percentile(draws, _percentiles(independent))
    if np.ptp(draws) < 1e-9:
        return Figure(value=value, method=f"no interval: the same in all of {resamples} resamples over {count} {unit}")
    return Figure(
        value=value,
        low=float(min(low, value)),
        high=float(max(high, value)),
        method=f"expanded percentile bootstrap over {count} {unit}, {resamples} resamples",
    )


_WILSON = "Wilson's score interval of a share of {} independent examples"


def is_share(statistic: Statistic, columns: Sequence[Array]) -> bool:
    """Whether a metric is the share of examples that are right, each 0 or 1."""
    return statistic.kind == "mean" and bool(((columns[0] == 0) | (columns[0] == 1)).all())


def wilson(right: float, count: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a share, 0 to 1."""
    z = 1.959963984540054
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def effective_number(sizes: Array) -> float:
    """How many groups of equal size are worth as much as groups of these sizes (Kish 1965)."""
    return float(sizes.sum()) ** 2 / float((sizes.astype(np.float64) ** 2).sum())


def _percentiles(count: float) -> tuple[float, float]:
    """The percentiles of the draws that bound 95%, where `count` examples or groups are resampled; 2.5 and 97.5 in the limit."""
    from scipy.special import ndtr, stdtrit

    count = max(count, 1.5)  # one huge group among tiny ones: as wide as the draws, and no wider
    low = 100 * float(ndtr(-((count / (count - 1)) ** 0.5) * stdtrit(count - 1, 0.975)))
    return low, 100 - low


def resampled(
    kind: str, sets: Sequence[Sequence[Array]], group: Array | None, resamples: int, rng: np.random.Generator
) -> Array:
    """The metric, as a coefficient, of each of `sets` in each resample: (resamples, len(sets)).

    Each set holds the metric's columns, (n,) each, of the same examples. All sets see the same resamples, so that their
    differences are paired. group: (n,) number of each example's group; None where examples are drawn one by one.
    """
    if kind == "spearman":
        drawn = _times_drawn(len(sets[0][0]), group, resamples, rng)
        return np.concatenate([_spearman(times, sets) for times in drawn])
    rows, metrics = zip(*(sufficient(kind, columns) for columns in sets), strict=True)
    sums = _sums(np.concatenate(rows, 1), group, resamples, rng)
    parts = np.split(sums, np.cumsum([values.shape[1] for values in rows])[:-1], axis=1)
    return np.stack([metric(part) for metric, part in zip(metrics, parts, strict=True)], 1)


def sufficient(kind: str, columns: Sequence[Array]) -> tuple[Array, Callable[[Array], Array]]:
    """Rows (n, k) whose sums over the examples determine the metric, and the function from such sums, (resamples, k), to the
    metric, (resamples,)."""
    if kind == "mean":
        return np.stack([columns[0], np.ones_like(columns[0])], 1), lambda sums: _ratio(sums[:, 0], sums[:, 1])
    if kind == "ratio":
        return np.stack(columns, 1), lambda sums: _ratio(sums[:, 0], sums[:, 1])
    if kind == "dice":
        return np.stack(columns, 1), lambda sums: _ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])
    if kind == "f1":
        predicted, label = columns[0] == 1, columns[1] == 1
        rows = np.stack([predicted & label, predicted, label], 1)
        return rows, lambda sums: _ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])
    if kind == "micro_f1":
        predicted, label = (column == 1 for column in columns)
        rows = np.stack([(predicted & label).sum(1), predicted.sum(1), label.sum(1)], 1)
        return rows, lambda sums: _ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])
    if kind == "macro_f1" and columns[0].ndim == 2:
        predicted, label = (column == 1 for column in columns)
        return np.concatenate([predicted & label, predicted, label], 1), partial(_macro_f1, absent=True)
    if kind == "macro_f1":
        classes = np.union1d(*columns)[None, :]
        predicted, label = (column[:, None] == classes for column in columns)
        return np.concatenate([predicted & label, predicted, label], 1), _macro_f1
    if kind == "matthews_correlation":
        predicted, label = columns
        classes = np.union1d(predicted, label)
        hot = (predicted[:, None] == classes)[:, :, None] & (label[:, None] == classes)[:, None, :]
        return hot.reshape(len(label), -1), partial(_matthews, len(classes))
    if kind == "pearson":
        x, y = (_standard(values) for values in columns)
        return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], 1), _pearson
    raise ValueError(f"no resampling of '{kind}'")


def _sums(rows: Array, group: Array | None, resamples: int, rng: np.random.Generator) -> Array:
    """Sums of the drawn rows (n, k): (resamples, k). With groups, as many whole groups are drawn as there are."""
    rows = _of_units(rows, group)
    count = len(rows)
    distinct, often = np.unique(rows, axis=0, return_counts=True)
    if MULTINOMIAL_COST * len(distinct) < count:
        drawn: Array = rng.multinomial(count, often / count, size=resamples)
        return np.asarray(drawn @ distinct)
    return np.concatenate([drawn @ rows for drawn in _times_drawn(count, None, resamples, rng)])


def _of_units(rows: Array, group: Array | None) -> Array:
    """Rows (n, k), or their sums over each group (groups, k)."""
    rows = rows.astype(np.float64)
    return rows if group is None else np.stack([np.bincount(group, column) for column in rows.T], 1)


def _times_drawn(count: int, group: Array | None, resamples: int, rng: np.random.Generator) -> Iterator[Array]:
    """How often each of `count` examples is drawn: chunks of (at most CHUNK, count) float64, `resamples` rows in all."""
    units = count if group is None else int(group.max()) + 1
    for at in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - at)
        drawn = rng.integers(0, units, size=(size, units)) + units * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)
        yield times if group is None else times[:, group]


def _matthews(classes: int, sums: Array) -> Array:
    """Matthews' correlation of any number of classes (Gorodkin 2004), from flat confusion matrices."""
    matrix = sums.reshape(-1, classes, classes)
    total, right = matrix.sum((1, 2)), np.trace(matrix, axis1=1, axis2=2)
    claimed, true = matrix.sum(2), matrix.sum(1)
    spread = (total**2 - (claimed**2).sum(1)) * (total**2 - (true**2).sum(1))
    return _ratio(right * total - (claimed * true).sum(1), np.sqrt(spread))


def _macro_f1(sums: Array, absent: bool = False) -> Array:
    """Mean over the classes; sums hold, for each class, right, predicted and true. absent: whether a class that is neither
    predicted nor true in a resample counts, as 0."""
    right, predicted, true = np.split(sums, 3, axis=1)
    scores = _ratio(2 * right, predicted + true)
    if absent:
        return np.asarray(scores.mean(1))
    return _ratio(scores.sum(1), ((predicted + true) > 0).sum(1).astype(np.float64))


def _pearson(sums: Array) -> Array:
    mean_x, mean_y, xx, yy, xy = (sums[:, 1:] / sums[:, :1]).T
    return _ratio(xy - mean_x * mean_y, np.sqrt(_variance(xx, mean_x) * _variance(yy, mean_y)))


def _standard(values: Array) -> Array:
    """Scaled to mean 0 and variance 1; without that, differences of sums of squares lose their digits."""
    spread = values.std()
    return np.asarray((values - values.mean()) / (spread if spread > 0 else 1.0))


def _variance(square: Array, mean: Array) -> Array:
    variance = square - mean * mean
    return np.where(
        variance > 1e-12, variance, 0.0
    )  # of standardized values; below that it is rounding: a constant column


def _spearman(times: Array, sets: Sequence[Sequence[Array]]) -> Array:
    """Pearson's correlation of the ranks of each set's two columns within each resample: (resamples, len(sets)).
    times: how often each example was drawn, (resamples, n). Columns that sets share, like the labels, are ranked once."""
    ranked: dict[bytes, tuple[Array, Array]] = {}
    correlations = []
    for columns in sets:
        for values in columns:
            if values.tobytes() not in ranked:
                ranks = _ranks(times, values)
                ranked[values.tobytes()] = ranks, np.einsum("ij,ij,ij->i", times, ranks, ranks)
        (x, xx), (y, yy) = (ranked[values.tobytes()] for values in columns)
        correlations.append(_ratio(np.einsum("ij,ij,ij->i", times, x, y), np.sqrt(xx * yy)))
    return np.stack(correlations, 1)


def _ranks(times: Array, values: Array) -> Array:
    """Each example's rank in each resample less the mean rank, in the shape of `times`. Equal values share a rank."""
    distinct, which = np.unique(values, return_inverse=True)
    ordered = np.argsort(which, kind="stable")
    often = times[:, ordered]
    middle = np.cumsum(often, 1)
    if len(distinct) < len(values):
        middle = middle[:, np.searchsorted(which[ordered], np.arange(len(distinct)), side="right") - 1]
        often = np.diff(middle, axis=1, prepend=0)
    middle -= (often - 1) / 2
    middle -= (times.sum(1, keepdims=True) + 1) / 2
    return np.asarray(middle[:, which])


def _ratio(over: Array, under: Array) -> Array:
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)
