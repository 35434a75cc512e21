"""Influences against a bootstrap, and against what leaving an example out does to scikit-learn's and SciPy's figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from harness.measure.influence import influence
from harness.measure.intervals import resampled

Array = np.ndarray[Any, Any]

MEASURES: dict[str, Callable[[Array, Array], float]] = {
    "f1": lambda predicted, label: float(f1_score(label, predicted)),
    "macro_f1": lambda predicted, label: float(f1_score(label, predicted, average="macro")),
    "matthews_correlation": lambda predicted, label: float(matthews_corrcoef(label, predicted)),
    "pearson": lambda x, y: float(stats.pearsonr(x, y).statistic),
    "spearman": lambda x, y: float(stats.spearmanr(x, y).statistic),
}


def columns_of(kind: str, size: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(7)
    if kind in ("pearson", "spearman"):  # with ties
        label = np.round(rng.normal(size=size), 1)
        return np.round(label + rng.normal(0, 0.7, size), 1), label
    label = rng.integers(0, 3 if kind == "macro_f1" else 2, size).astype(float)
    return np.where(rng.random(size) < 0.8, label, rng.permutation(label)), label


@pytest.mark.parametrize("kind", MEASURES)
def test_an_influence_is_what_leaving_the_example_out_does(kind: str) -> None:
    """To first order: (n - 1) x (the figure of all, less that without the example)."""
    predicted, label = columns_of(kind, 400)
    measure, whole = MEASURES[kind], MEASURES[kind](predicted, label)
    left_out = [399 * (whole - measure(np.delete(predicted, row), np.delete(label, row))) for row in range(400)]
    found = influence(kind, [predicted, label])
    assert found.mean() == pytest.approx(0, abs=1e-9)
    assert np.corrcoef(found, left_out)[0, 1] > 0.999
    assert np.std(found) == pytest.approx(np.std(left_out), rel=0.02)


@pytest.mark.parametrize("kind", MEASURES)
@pytest.mark.parametrize("grouped", [False, True])
def test_the_error_is_the_bootstraps(kind: str, grouped: bool) -> None:
    columns = columns_of(kind, 600)
    group = np.repeat(np.arange(60), 10) if grouped else None
    draws = resampled(kind, [columns], group, 4000, np.random.default_rng(1))
    of_units = influence(kind, columns) if group is None else np.bincount(group, influence(kind, columns))
    assert np.linalg.norm(of_units) / 600 == pytest.approx(float(np.std(draws)), rel=0.05)


def test_a_mean_by_hand() -> None:
    assert influence("mean", [np.array([1.0, 0.0, 0.0, 1.0, 1.0])]) == pytest.approx([0.4, -0.6, -0.6, 0.4, 0.4])


@pytest.mark.parametrize("kind", ["matthews_correlation", "pearson", "spearman"])
def test_a_constant_column_has_no_influence(kind: str) -> None:
    assert influence(kind, [np.ones(50), np.arange(50) % 2.0]) == pytest.approx(np.zeros(50))
