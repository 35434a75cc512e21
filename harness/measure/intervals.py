"""95% intervals of accuracy metrics by the percentile bootstrap (Efron & Tibshirani 1993), vectorised.

Examples of one group are resampled together (cluster bootstrap; Field & Welsh 2007): SQuAD's questions come by article. Metrics
that follow from counts are resampled by multinomial draws of those counts, which is the same distribution as drawing examples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.record import Figure
from tasks import Scores, Statistic

Array = np.ndarray[Any, Any]
CHUNK = 200


def intervals(scores: Scores, resamples: int = 10_000, seed: int = 0) -> dict[str, Figure]:
    """A Figure for every metric of `scores`; low and high are None, with the reason in `method`, where no interval exists."""
    return {
        name: _figure(value, scores, scores.statistics[name], resamples, seed)
        if name in scores.statistics
        else Figure(value=value, method="no interval: this metric's resampling is not defined")
        for name, value in scores.metrics.items()
    }


def _figure(value: float, scores: Scores, statistic: Statistic, resamples: int, seed: int) -> Figure:
    columns = [np.asarray(scores.per_example[name], np.float64) for name in statistic.columns]
    rng = np.random.default_rng(seed)
    n = len(columns[0])
    unit = "examples"
    if n < 2:
        return Figure(value=value, method=f"no interval: {n} example")
    if statistic.kind == "mean" and scores.groups is not None:
        groups = len(np.unique(scores.groups))
        if groups < 2:
            return Figure(value=value, method="no interval: a single article")
        draws, unit, n = _clustered_mean(columns[0], scores.groups, resamples, rng), "articles", groups
    elif statistic.kind == "mean":
        draws = _mean(columns[0], resamples, rng)
    elif statistic.kind in ("f1", "matthews_correlation"):
        draws = _confusion(statistic.kind, columns[0], columns[1], resamples, rng)
    else:
        draws = _correlation(columns[0], columns[1], resamples, rng, ranked=statistic.kind == "spearman")
    draws = draws[np.isfinite(draws)]
    if len(draws) < resamples / 2:
        return Figure(value=value, method="no interval: the metric is undefined on most resamples")
    low, high = np.percentile(100 * draws, [2.5, 97.5])
    # a figure lies in its own interval, whatever the last bit says
    return Figure(
        value=value,
        low=float(min(low, value)),
        high=float(max(high, value)),
        method=f"percentile bootstrap over {n} {unit}, {resamples} resamples",
    )


def _mean(values: Array, resamples: int, rng: np.random.Generator) -> Array:
    distinct, counts = np.unique(values, return_counts=True)
    draws: Array = rng.multinomial(len(values), counts / len(values), size=resamples) @ distinct / len(values)
    return draws


def _clustered_mean(values: Array, groups: Array, resamples: int, rng: np.random.Generator) -> Array:
    _, index = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(index, values), np.bincount(index)
    times = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    draws: Array = (times @ sums) / (times @ sizes)
    return draws


def _confusion(kind: str, predicted: Array, actual: Array, resamples: int, rng: np.random.Generator) -> Array:
    positive, true = predicted == 1, actual == 1
    cells = np.array(
        [(positive & true).sum(), (positive & ~true).sum(), (~positive & true).sum(), (~positive & ~true).sum()]
    )
    tp, fp, fn, tn = rng.multinomial(len(predicted), cells / len(predicted), size=resamples).astype(np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "f1":
            found: Array = np.where(tp > 0, 2 * tp / (2 * tp + fp + fn), 0.0)
            return found
        below = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        found = np.where(below > 0, (tp * tn - fp * fn) / below, 0.0)
    return found


def _correlation(x: Array, y: Array, resamples: int, rng: np.random.Generator, *, ranked: bool) -> Array:
    """Ranks are taken anew in every resample."""
    if ranked:
        from scipy.stats import rankdata
    parts = []
    for _ in range(0, resamples, CHUNK):
        chosen = rng.integers(0, len(x), size=(CHUNK, len(x)))
        a, b = x[chosen], y[chosen]
        if ranked:
            a, b = rankdata(a, axis=1), rankdata(b, axis=1)
        a = a - a.mean(axis=1, keepdims=True)
        b = b - b.mean(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append((a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1)))
    return np.concatenate(parts)[:resamples]
