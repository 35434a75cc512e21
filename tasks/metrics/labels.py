"""Metrics of classification and regression as GLUE reports them (Wang et al. 2018), as coefficients: 1 is perfect.

Equal to scikit-learn's and SciPy's, which a process that only scores need not import. Where those give NaN because a
column is constant, a correlation is 0 here: a model that answers the same to everything has found no relation, and
a figure that is no number could be neither ranked nor resampled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.base import Statistic

Column = np.ndarray[Any, Any]


def accuracy(predicted: Column, label: Column) -> float:
    """Share of equal entries."""
    return float(np.mean(predicted == label)) if len(label) else 0.0


def f1(predicted: Column, label: Column) -> float:
    """F1 of the class 1; 0 when there is none, neither predicted nor true."""
    found = int(np.count_nonzero((predicted == 1) & (label == 1)))
    claimed = int(np.count_nonzero(predicted == 1)) + int(np.count_nonzero(label == 1))
    return 2 * found / claimed if claimed else 0.0


def matthews_correlation(predicted: Column, label: Column) -> float:
    """Matthews correlation of two columns of classes (Gorodkin 2004 for more than two)."""
    classes = np.union1d(predicted, label)
    return _correlation(predicted[:, None] == classes, label[:, None] == classes)


def pearson(predicted: Column, label: Column) -> float:
    """Pearson correlation."""
    return _correlation(predicted[:, None], label[:, None])


def spearman(predicted: Column, label: Column) -> float:
    """Spearman correlation: Pearson's of the ranks, equals sharing their mean rank."""
    return pearson(_ranks(predicted), _ranks(label))


COEFFICIENTS = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
}


def statistic_percent(statistic: Statistic, columns: dict[str, Column]) -> float:
    """A metric in percent from per-example columns: what `Scores.metrics` holds, for any resample of the examples."""
    values = [columns[name] for name in statistic.columns]
    if statistic.kind == "mean":
        return 100 * float(np.mean(values[0])) if len(values[0]) else 0.0
    return 100 * COEFFICIENTS[statistic.kind](*values)


def _correlation(x: Column, y: Column) -> float:
    """Covariance over the root of the variances, each summed over columns (n, k); 0 where a variance is."""
    if not len(x) or np.all(x == x[0]) or np.all(y == y[0]):
        return 0.0
    x = x - np.mean(x, 0, dtype=np.float64)
    y = y - np.mean(y, 0, dtype=np.float64)
    return float(np.clip(np.sum(x * y) / (np.sqrt(np.sum(x * x)) * np.sqrt(np.sum(y * y))), -1, 1))


def _ranks(values: Column) -> Column:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Column = (last - (counts - 1) / 2)[inverse]
    return ranks
