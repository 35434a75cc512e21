"""Intervals compared with SciPy and naive loops, and their speed. tests/bench/test_coverage.py measures their coverage."""

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
from tasks.metrics.labels import COEFFICIENTS

Array = np.ndarray[Any, Any]
Kind = Any  # a Statistic's kind, which parametrize gives as a plain string


def scores_of(kind: Kind, *columns: Array, groups: Array | None = None) -> Scores:
    names = tuple(f"column {number}" for number in range(len(columns)))
    value = 100 * (float(columns[0].mean()) if kind == "mean" else COEFFICIENTS[kind](*columns))
    per_example = dict(zip(names, columns, strict=True))
    return Scores({"m": value}, per_example, {"m": Statistic(kind, names)}, groups)


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
    assert ends(scores_of("mean", values)) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=0.25)


@pytest.mark.parametrize(("right", "count"), [(0, 9), (9, 9), (250, 277), (1, 2), (33_000, 40_430)])
def test_a_share_of_independent_examples_has_wilsons_interval(right: int, count: int) -> None:
    theirs = stats.binomtest(right, count).proportion_ci(0.95, "wilson")
    interval = ends(scores_of("mean", np.arange(count) < right))
    assert interval == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-9)


def naive(measure: Callable[[Array, Array], float], x: Array, y: Array, groups: Array | None, times: int) -> Array:
    """Draws examples, or whole groups, one resample after another."""
    rng = np.random.default_rng(7)
    units = (
        [np.flatnonzero(groups == group) for group in np.unique(groups)] if groups is not None else np.arange(len(x))
    )
    count = len(units)
    draws = []
    for _ in range(times):
        chosen = rng.integers(0, count, count)
        rows = np.concatenate([units[unit] for unit in chosen]) if groups is not None else chosen
        draws.append(100 * measure(x[rows], y[rows]))
    wider = stats.norm.cdf((count / (count - 1)) ** 0.5 * stats.t.ppf(0.975, count - 1))  # Hesterberg 2015
    interval: Array = np.quantile(draws, [1 - wider, wider])
    return interval


MEASURES: dict[str, Callable[[Array, Array], float]] = {
    "mean": lambda mine, _: float(mine.mean()),
    "f1": lambda mine, theirs: float(f1_score(theirs, mine)),
    "matthews_correlation": lambda mine, theirs: float(matthews_corrcoef(theirs, mine)),
    "pearson": lambda mine, theirs: float(stats.pearsonr(mine, theirs).statistic),
    "spearman": lambda mine, theirs: float(stats.spearmanr(mine, theirs).statistic),
}


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("kind", list(MEASURES))
def test_every_metric_equals_a_loop(kind: Kind, clustered: bool) -> None:
    """Columns with ties, and with a third class for Matthews' correlation; groups of 1 to 20 that differ among themselves."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(25), rng.integers(1, 21, 25))
    size = len(groups)
    shift = rng.normal(size=25)[groups]
    if kind in ("pearson", "spearman"):
        label = np.round(shift + rng.normal(size=size), 1)
        predicted = np.round(label + rng.normal(size=size), 1)
    else:
        classes = 3 if kind == "matthews_correlation" else 2
        label = np.clip(np.round(shift + rng.random(size)), 0, classes - 1)
        predicted = np.where(rng.random(size) < 0.7, label, rng.integers(0, classes, size))
    columns = (predicted,) if kind == "mean" else (predicted, label)
    given = groups if clustered else None
    interval = ends(scores_of(kind, *columns, groups=given), resamples=4000)
    expected = naive(MEASURES[kind], predicted, label, given, 600)
    assert interval == pytest.approx(tuple(expected), abs=0.15 * (expected[1] - expected[0]))


def test_articles_make_an_interval_far_wider_than_questions() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(30), rng.integers(5, 60, 30))
    values = (rng.random(len(groups)) < rng.beta(4, 2, 30)[groups]).astype(float)
    low, high = ends(scores_of("mean", values, groups=groups))
    alone = ends(scores_of("mean", values))
    assert high - low > 2 * (alone[1] - alone[0])


def test_a_mean_over_few_articles_has_students_interval() -> None:
    """Ten articles of equal size: the ends are those of a t interval over the articles' means."""
    articles = np.random.default_rng(8).normal(0.5, 0.1, 10)
    theirs = stats.t.interval(0.95, 9, articles.mean(), stats.sem(articles))
    interval = ends(scores_of("mean", np.repeat(articles, 20), groups=np.repeat(np.arange(10), 20)))
    assert interval == pytest.approx((100 * theirs[0], 100 * theirs[1]), abs=0.06 * 100 * (theirs[1] - theirs[0]))


def test_squads_size_takes_less_than_two_seconds() -> None:
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 48, 10_570)
    values = rng.random((10_570, 2))
    scores = Scores(
        {"exact_match": 50.0, "f1": 50.0},
        {"exact_match": values[:, 0], "f1": values[:, 1]},
        {name: Statistic("mean", (name,)) for name in ("exact_match", "f1")},
        groups,
    )
    start = time.process_time()
    assert set(intervals(scores)) == {"exact_match", "f1"}
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (scores_of("mean", np.ones(1)), "1 example"),
        (scores_of("mean", np.arange(9.0), groups=np.zeros(9, int)), "single article"),
        (scores_of("mean", np.full(9, 0.5)), "the same in all"),
        (scores_of("matthews_correlation", np.ones(9), np.arange(9.0) % 2), "the same in all"),
        (scores_of("pearson", np.arange(9.0), np.full(9, 0.1)), "the same in all"),
        (Scores({"m": 1.0}, {}, {}), "not defined"),
    ],
)
def test_where_there_is_no_interval_the_reason_is_given(scores: Scores, why: str) -> None:
    figure = intervals(scores)["m"]
    assert figure.low is None
    assert figure.high is None
    assert figure.value == scores.metrics["m"]
    assert why in figure.method


def test_the_same_seed_gives_the_same_interval() -> None:
    scores = scores_of("mean", np.random.default_rng(6).random(100))
    assert ends(scores, seed=1) == ends(scores, seed=1) != ends(scores, seed=2)
