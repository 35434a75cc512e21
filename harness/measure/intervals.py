"""95% intervals of accuracy metrics by the expanded percentile bootstrap, vectorised.

The percentile interval (Efron & Tibshirani 1993, chapter 13) is too narrow where there is little to resample, as SQuAD's 48
articles; Hesterberg (2015, "What Teachers Should Know about the Bootstrap", section 5) takes wider percentiles, such that a
mean gets Student's interval. With thousands of examples the two are the same.

Examples of one group are resampled together (the cluster bootstrap; Field & Welsh 2007): SQuAD's questions come by article.
Means, F1, Matthews' and Pearson's correlations follow from sums over examples, so a resample needs only how often each
example, or group, was drawn. Spearman's ranks are taken anew in every resample. Where a resample leaves a metric undefined
it is 0, as in `tasks.metrics.labels`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness.record import Figure
from tasks import Scores, Statistic

Array = np.ndarray[Any, Any]
CHUNK = 200
"""Resamples whose counts are held at once: 200 x 10,570 examples take 17 MB."""
DEAR = 10
"""A multinomial's count costs as much as drawing so many examples one by one."""


def intervals(scores: Scores, resamples: int = 10_000, seed: int = 0) -> dict[str, Figure]:
    """A Figure, in percent, for every metric of `scores`; the same seed gives the same interval.

    low and high are None, with the reason in `method`, where no interval exists: fewer than two examples or groups, or a
    metric that is the same in every resample (all examples right, say), whose true spread the bootstrap cannot know.
    An interval is widened to hold its figure where it would not.
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
    if count < 2:
        return Figure(value=value, method=f"no interval: {count} example{'' if count == 1 else 's'}")
    if scores.groups is not None:
        articles, group = np.unique(scores.groups, return_inverse=True)
        count, unit = len(articles), "articles"
        if count < 2:
            return Figure(value=value, method="no interval: all examples are of a single article")
    draws = 100 * _resampled(statistic.kind, columns, group, resamples, np.random.default_rng(seed))
    low, high = np.percentile(draws, _percentiles(count))
    if np.ptp(draws) < 1e-9:
        return Figure(value=value, method=f"no interval: the same in all of {resamples} resamples over {count} {unit}")
    return Figure(
        value=value,
        low=float(min(low, value)),
        high=float(max(high, value)),
        method=f"expanded percentile bootstrap over {count} {unit}, {resamples} resamples",
    )


def _percentiles(count: int) -> tuple[float, float]:
    """Of the draws, that bound 95% where `count` examples or groups are resampled: 2.5 and 97.5 in the limit."""
    from scipy.special import ndtr, stdtrit

    low = 100 * float(ndtr(-((count / (count - 1)) ** 0.5) * stdtrit(count - 1, 0.975)))
    return low, 100 - low


def _resampled(kind: str, columns: list[Array], group: Array | None, resamples: int, rng: np.random.Generator) -> Array:
    """The metric, as a coefficient, of each resample: (resamples,)."""
    if kind == "spearman":
        parts = [
            _spearman(drawn, columns[0], columns[1]) for drawn in _times_drawn(len(columns[0]), group, resamples, rng)
        ]
        return np.concatenate(parts)
    if kind == "mean":
        sums = _sums(np.stack([columns[0], np.ones_like(columns[0])], 1), group, resamples, rng)
        return _ratio(sums[:, 0], sums[:, 1])
    if kind == "f1":
        predicted, label = columns[0] == 1, columns[1] == 1
        both, claimed, true = _sums(np.stack([predicted & label, predicted, label], 1), group, resamples, rng).T
        return _ratio(2 * both, claimed + true)
    if kind == "matthews_correlation":
        return _matthews(columns[0], columns[1], group, resamples, rng)
    if kind == "pearson":
        return _pearson(columns[0], columns[1], group, resamples, rng)
    raise ValueError(f"no resampling of '{kind}'")


def _sums(rows: Array, group: Array | None, resamples: int, rng: np.random.Generator) -> Array:
    """Sums of the drawn rows (n, k): (resamples, k). With groups, whole groups are drawn, as many as there are."""
    rows = rows.astype(np.float64)
    if group is not None:
        rows = np.stack([np.bincount(group, column) for column in rows.T], 1)
    count = len(rows)
    distinct, often = np.unique(rows, axis=0, return_counts=True)
    if DEAR * len(distinct) < count:
        drawn: Array = rng.multinomial(count, often / count, size=resamples)
        return np.asarray(drawn @ distinct)
    return np.concatenate([drawn @ rows for drawn in _times_drawn(count, None, resamples, rng)])


def _times_drawn(count: int, group: Array | None, resamples: int, rng: np.random.Generator) -> Iterator[Array]:
    """How often each of `count` examples is drawn: (at most CHUNK, count) float64, until there are `resamples` rows."""
    units = count if group is None else int(group.max()) + 1
    for at in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - at)
        drawn = rng.integers(0, units, size=(size, units)) + units * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)
        yield times if group is None else times[:, group]


def _matthews(predicted: Array, label: Array, group: Array | None, resamples: int, rng: np.random.Generator) -> Array:
    """Of any number of classes (Gorodkin 2004), from the resampled confusion matrix."""
    classes = np.union1d(predicted, label)
    hot = (predicted[:, None] == classes)[:, :, None] & (label[:, None] == classes)[:, None, :]
    matrix = _sums(hot.reshape(len(label), -1), group, resamples, rng).reshape(-1, len(classes), len(classes))
    total, right = matrix.sum((1, 2)), np.trace(matrix, axis1=1, axis2=2)
    claimed, true = matrix.sum(2), matrix.sum(1)
    spread = (total**2 - (claimed**2).sum(1)) * (total**2 - (true**2).sum(1))
    return _ratio(right * total - (claimed * true).sum(1), np.sqrt(spread))


def _pearson(x: Array, y: Array, group: Array | None, resamples: int, rng: np.random.Generator) -> Array:
    x, y = _standard(x), _standard(y)
    sums = _sums(np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], 1), group, resamples, rng)
    mean_x, mean_y, xx, yy, xy = (sums[:, 1:] / sums[:, :1]).T
    return _ratio(xy - mean_x * mean_y, np.sqrt(_variance(xx, mean_x) * _variance(yy, mean_y)))


def _standard(values: Array) -> Array:
    """Mean 0 and variance 1, without which the sums of squares cancel."""
    spread = values.std()
    return np.asarray((values - values.mean()) / (spread if spread > 0 else 1.0))


def _variance(square: Array, mean: Array) -> Array:
    found = square - mean * mean
    return np.where(found > 1e-12, found, 0.0)  # of standardized values: less is rounding, a constant column


def _spearman(times: Array, x: Array, y: Array) -> Array:
    """Pearson's correlation of the ranks within each resample, from how often each example was drawn (resamples, n)."""
    a, b = _ranks(times, x), _ranks(times, y)
    return _ratio((times * a * b).sum(1), np.sqrt((times * a * a).sum(1) * (times * b * b).sum(1)))


def _ranks(times: Array, values: Array) -> Array:
    """Each example's rank in each resample less the mean rank, equals sharing theirs; shape of `times`."""
    distinct, which = np.unique(values, return_inverse=True)
    ordered = np.argsort(which, kind="stable")
    starts = np.searchsorted(which[ordered], np.arange(len(distinct)))
    often = np.add.reduceat(times[:, ordered], starts, axis=1)
    middle = np.cumsum(often, 1) - (often - 1) / 2
    return np.asarray((middle - (times.sum(1, keepdims=True) + 1) / 2)[:, which])


def _ratio(over: Array, under: Array) -> Array:
    return np.divide(over, under, out=np.zeros_like(over), where=under > 0)
