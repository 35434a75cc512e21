"""Metrics of classification and regression as GLUE reports them (Wang et al. 2018), as coefficients: 1 is perfect.

The values equal those of scikit-learn and SciPy, which a process that only scores need not import. There is one difference:
where a column is constant, those libraries return NaN for a correlation and this module returns 0. A model that always gives
the same answer has found no relation, and NaN could be neither ranked nor resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.base import ClassCounts, Statistic

Column = np.ndarray[Any, Any]


def accuracy(predicted: Column, label: Column) -> float:
    """Share of predictions that equal their label; 0 without examples."""
    return float(np.mean(predicted == label)) if len(label) else 0.0


def f1(predicted: Column, label: Column) -> float:
    """F1 of class 1; 0 where class 1 is neither predicted nor true."""
    true_positives = int(np.count_nonzero((predicted == 1) & (label == 1)))
    positives = int(np.count_nonzero(predicted == 1)) + int(np.count_nonzero(label == 1))
    return 2 * true_positives / positives if positives else 0.0


def macro_f1(predicted: Column, label: Column) -> float:
    """Mean of the F1 of each class that is predicted or true, as scikit-learn's `f1_score(average="macro")`. With columns
    (n, classes) of 0 and 1: of every class, and 0 for one that is neither predicted nor true, as there."""
    if predicted.ndim == 2:
        return float(np.mean([f1(*columns) for columns in zip(predicted.T, label.T, strict=True)]))
    scores = [f1(predicted == name, label == name) for name in np.union1d(predicted, label)]
    return float(np.mean(scores)) if scores else 0.0


def micro_f1(predicted: Column, label: Column) -> float:
    """F1 over all classes of all examples together, from columns (n, classes) of 0 and 1, as scikit-learn's
    `f1_score(average="micro")`."""
    return f1(predicted.ravel(), label.ravel())


def matthews_correlation(predicted: Column, label: Column) -> float:
    """Matthews correlation of two columns of classes (Gorodkin 2004 for more than two classes)."""
    classes = np.union1d(predicted, label)
    return _correlation(predicted[:, None] == classes, label[:, None] == classes)


def class_counts(predicted: Column, label: Column, names: Sequence[str]) -> dict[str, ClassCounts]:
    """Of each class by name, from columns of class numbers, or (n, classes) of 0 and 1."""
    if label.ndim == 1:
        predicted, label = (column[:, None] == np.arange(len(names)) for column in (predicted, label))
    said, true = predicted.astype(bool), label.astype(bool)
    counts = (true.sum(0), said.sum(0), (said & true).sum(0))
    return {name: ClassCounts(*map(int, of_class)) for name, *of_class in zip(names, *counts, strict=True)}


def pearson(predicted: Column, label: Column) -> float:
    """Pearson correlation."""
    return _correlation(predicted[:, None], label[:, None])


def spearman(predicted: Column, label: Column) -> float:
    """Spearman correlation: Pearson's of the ranks, where equal values share their mean rank."""
    return pearson(_ranks(predicted), _ranks(label))


COEFFICIENTS = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "micro_f1": micro_f1,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
}


def statistic_percent(statistic: Statistic, columns: dict[str, Column]) -> float:
    """A metric in percent from per-example columns: what `Scores.metrics` holds, for any resample of the examples."""
    values = [columns[name] for name in statistic.columns]
    if statistic.kind == "mean":
        return 100 * float(np.mean(values[0])) if len(values[0]) else 0.0
    if statistic.kind in ("ratio", "dice"):
        sums = [float(np.sum(column)) for column in values]
        under = sums[1] if statistic.kind == "ratio" else (sums[1] + sums[2]) / 2
        return 100 * sums[0] / under if under else 0.0
    return 100 * COEFFICIENTS[statistic.kind](*values)


def _correlation(x: Column, y: Column) -> float:
    """Covariance over the root of the variances, each summed over the columns of (n, k) arrays; 0 where a variance is 0."""
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
