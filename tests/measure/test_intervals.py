"""Intervals against naive loops and SciPy, their coverage on simulated data, and their speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from harness.measure.intervals import intervals
from tasks import Scores, Statistic

Array = np.ndarray[Any, Any]


def mean_scores(values: Array, groups: Array | None = None) -> Scores:
    return Scores({"m": 100 * float(values.mean())}, {"v": values}, {"m": Statistic("mean", ("v",))}, groups)


def pair_scores(kind: Any, predicted: Array, label: Array, value: float) -> Scores:
    return Scores({"m": 100 * value}, {"p": predicted, "l": label}, {"m": Statistic(kind, ("p", "l"))})


def ends(scores: Scores, **options: Any) -> tuple[float, float]:
    figure = intervals(scores, **options)["m"]
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low <= figure.value <= figure.high
    return figure.low, figure.high


def test_a_mean_has_scipys_interval() -> None:
    values = np.random.default_rng(1).beta(2, 1, 400)
    expected = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(0))
    theirs = expected.confidence_interval
    assert ends(mean_scores(values)) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=0.25)


def test_clusters_are_resampled_whole() -> None:
    """Against a plain loop over articles; and far wider than if questions were independent."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(30), rng.integers(5, 60, 30))
    values = (rng.random(len(groups)) < rng.beta(4, 2, 30)[groups]).astype(float)
    draws = []
    for _ in range(4000):
        chosen = rng.integers(0, 30, 30)
        draws.append(np.concatenate([values[groups == one] for one in chosen]).mean())
    low, high = ends(mean_scores(values, groups))
    assert (low, high) == pytest.approx(tuple(100 * np.percentile(draws, [2.5, 97.5])), abs=0.8)
    alone = ends(mean_scores(values))
    assert high - low > 2 * (alone[1] - alone[0])


@pytest.mark.parametrize("kind", ["f1", "matthews_correlation", "pearson", "spearman"])
def test_coefficients_equal_a_loop_over_examples(kind: str) -> None:
    rng = np.random.default_rng(3)
    size = 300
    if kind in ("pearson", "spearman"):
        label = rng.normal(size=size)
        predicted = label + rng.normal(size=size)
    else:
        label = (rng.random(size) < 0.4).astype(float)
        predicted = np.where(rng.random(size) < 0.8, label, 1 - label)
    known: dict[str, Callable[[Array, Array], float]] = {
        "f1": lambda mine, theirs: float(f1_score(theirs, mine)),
        "matthews_correlation": lambda mine, theirs: float(matthews_corrcoef(theirs, mine)),
        "pearson": lambda mine, theirs: float(stats.pearsonr(mine, theirs).statistic),
        "spearman": lambda mine, theirs: float(stats.spearmanr(mine, theirs).statistic),
    }
    measure = known[kind]
    draws = []
    for _ in range(1000):
        rows = rng.integers(0, size, size)
        draws.append(measure(predicted[rows], label[rows]))
    found = ends(pair_scores(kind, predicted, label, measure(predicted, label)), resamples=4000)
    width = 100 * (np.percentile(draws, 97.5) - np.percentile(draws, 2.5))
    assert found == pytest.approx(tuple(100 * np.percentile(draws, [2.5, 97.5])), abs=0.12 * width)


def test_coverage_on_clustered_data() -> None:
    """200 data sets of known truth: a 95% interval holds it in about 95% of them (here within what 200 can tell)."""
    rng = np.random.default_rng(4)
    held = 0
    for number in range(200):
        rates = rng.beta(6, 3, 60)
        groups = np.repeat(np.arange(60), 20)
        values = (rng.random(1200) < rates[groups]).astype(float)
        low, high = ends(mean_scores(values, groups), resamples=1000, seed=number)
        held += low <= 100 * 6 / 9 <= high
    assert 180 <= held <= 199


def test_squads_size_takes_less_than_two_seconds() -> None:
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 48, 10_570)
    values = rng.random(10_570)
    start = time.process_time()
    ends(mean_scores(values, groups))
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("values", "groups", "why"),
    [(np.ones(1), None, "1 example"), (np.ones(9), np.zeros(9, int), "single article")],
)
def test_where_there_is_no_interval_the_reason_is_said(values: Array, groups: Array | None, why: str) -> None:
    figure = intervals(mean_scores(values, groups))["m"]
    assert figure.low is None
    assert why in figure.method


def test_the_same_seed_gives_the_same_interval() -> None:
    scores = mean_scores(np.random.default_rng(6).random(100))
    assert ends(scores, seed=1) == ends(scores, seed=1) != ends(scores, seed=2)
