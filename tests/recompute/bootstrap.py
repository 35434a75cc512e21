"""A bootstrap of our own beside the stored one.

It has no exact counterpart. Stored ends are compared in probability: the share of our own resamples at or below an end has to
be the end's level, within 4.5 standard errors sqrt(p (1 - p) (1 / B + 1 / B')), the Monte-Carlo error that B stored and B' own
resamples leave. Among a thousand ends one is off by that much in less than 1% of cases.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
from scipy import stats

from tests.recompute.tally import EXACT, Array, Record, Tally

RESAMPLES = 10_000  # of our own bootstrap
BOUND = 4.5  # Monte-Carlo standard errors between the two bootstraps


@cache
def draws_of_units(units: int, part: int) -> Array:
    """How often each unit was drawn, (draws, units); a tenth of all resamples."""
    draws = RESAMPLES // 10
    index = np.random.default_rng((units, part)).integers(0, units, (draws, units)) + units * np.arange(draws)[:, None]
    return np.bincount(index.ravel(), minlength=draws * units).reshape(draws, units).astype(np.float32)


def ranks_of(values: Array, counts: Array) -> Array:
    """Mean ranks in each resample less their mean, (draws, units); a value that a resample lacks has any."""
    _, inverse, ties = np.unique(values, return_inverse=True, return_counts=True)
    upto = np.cumsum(counts[:, np.argsort(inverse, kind="stable")], axis=1)[:, np.cumsum(ties) - 1]
    middle = upto.copy()
    middle[:, 1:] += upto[:, :-1]
    ranks: Array = ((middle - counts.shape[1]) / 2)[:, inverse]
    return ranks


@lru_cache(maxsize=10)
def ranks_of_labels(labels: bytes, units: int, part: int) -> Array:
    """The same for the labels that many records share."""
    return ranks_of(np.frombuffer(labels, np.float64), draws_of_units(units, part))


def correlations(metric: str, label: Array, predicted: Array, part: int) -> Array:
    """Pearson's or Spearman's correlation of each resample; 0 where a column is constant."""
    counts = draws_of_units(len(label), part)
    if metric == "pearson":
        x, y = label - label.mean(), predicted - predicted.mean()
        mean_x, mean_y, xx, yy, xy = (counts @ np.stack([x, y, x * x, y * y, x * y], axis=1) / len(x)).T
        xx, yy, xy = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    else:
        ranks = ranks_of_labels(label.astype(np.float64).tobytes(), len(label), part), ranks_of(predicted, counts)
        weighted = [counts * r for r in ranks]
        pairs = ((weighted[0], ranks[0]), (weighted[1], ranks[1]), (weighted[0], ranks[1]))
        xx, yy, xy = (np.einsum("dn,dn->d", a, b) for a, b in pairs)
    scale = np.sqrt(np.maximum(xx * yy, 0.0))
    values: Array = np.divide(xy, scale, out=np.zeros_like(scale), where=scale > 0)
    return values


def of_confusion(metric: str, cells: Array) -> Array:
    """F1 of class 1 or Matthews correlation (Gorodkin 2004) of confusion matrices (draws, classes, classes); 0 for 0 / 0."""
    if metric == "f1":
        above, below = 2 * cells[:, 1, 1], cells[:, 1, :].sum(axis=1) + cells[:, :, 1].sum(axis=1)
    else:
        total, true, guessed = cells.sum(axis=(1, 2)), cells.sum(axis=2), cells.sum(axis=1)
        above = np.trace(cells, axis1=1, axis2=2) * total - (true * guessed).sum(axis=1)
        below = np.sqrt((total**2 - (true**2).sum(axis=1)) * (total**2 - (guessed**2).sum(axis=1)))
    values: Array = np.divide(above, below, out=np.zeros(len(cells)), where=below > 0)
    return values


def resampled(metric: str, scores: dict[str, Array]) -> tuple[Array, float]:
    """The metric of each resample in percent, and the effective number of units."""
    if "group" in scores:  # articles are drawn; Kish's effective number
        _, group = np.unique(scores["group"], return_inverse=True)
        sizes, sums = np.bincount(group), np.bincount(group, weights=scores[metric])
        counts = np.concatenate([draws_of_units(len(sizes), part) for part in range(10)])
        return 100 * (counts @ sums) / (counts @ sizes), float(sizes.sum() ** 2 / (sizes**2).sum())
    label, predicted = scores["label"], scores["predicted"]
    n = len(label)
    if metric in ("pearson", "spearman"):
        parts = range(
            10 if metric == "pearson" else 4
        )  # ranks take long, and the error is mostly that of the stored ends
        return np.concatenate([100 * correlations(metric, label, predicted, part) for part in parts]), float(n)
    classes = max(label.max(), predicted.max(), 1) + 1  # -1 stands for no prediction
    guess = np.where(predicted < 0, classes, predicted)
    cells = np.bincount(label * (classes + 1) + guess, minlength=classes * (classes + 1))
    drawn = np.random.default_rng(n).multinomial(n, cells / n, RESAMPLES).reshape(RESAMPLES, classes, classes + 1)
    square = np.concatenate([drawn, np.zeros((RESAMPLES, 1, classes + 1), drawn.dtype)], axis=1)
    return 100 * of_confusion(metric, square.astype(np.float64)), float(n)


def check_bootstrap(tally: Tally, where: str, figure: Record, draws: Array, units: float, stored_draws: int) -> None:
    """Both ends against the expanded percentiles of our own resamples."""
    kind = "bootstrap ends of accuracy"
    low = stats.norm.cdf(np.sqrt(units / (units - 1)) * stats.t.ppf(0.025, units - 1))
    for end, level in (("low", low), ("high", 1 - low)):
        stored = figure[end]
        if stored is None:
            tally.compare(kind, where, 0.0, float(np.ptp(draws)))  # only if all resamples are equal
            continue
        slack = EXACT * max(1.0, abs(stored))
        nearest = np.clip(level, np.mean(draws < stored - slack), np.mean(draws <= stored + slack))
        error = np.sqrt(level * (1 - level) * (1 / stored_draws + 1 / len(draws)))
        what = f"{end} {stored} is at {nearest:.4f} of our resamples, not at {level:.4f}"
        tally.add(kind, where, abs(nearest - level) / error, BOUND, what, f"{BOUND} Monte-Carlo standard errors")
