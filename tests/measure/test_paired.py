"""Comparisons, checked with SciPy, hand-computed values and naive loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from harness.measure import paired
from tasks import Scores, Statistic
from tasks.metrics.labels import COEFFICIENTS

Array = np.ndarray[Any, Any]


def scores_of(kind: Any, *columns: Array, groups: Array | None = None) -> Scores:
    names = tuple(f"column {number}" for number in range(len(columns)))
    value = 100 * (float(columns[0].mean()) if kind == "mean" else COEFFICIENTS[kind](*columns))
    ids = np.arange(len(columns[0])).astype(str)
    per_example = {"id": ids} | dict(zip(names, columns, strict=True))
    return Scores({"m": value}, per_example, {"m": Statistic(kind, names)}, groups)


def compare(mine: Scores, theirs: Scores, **options: Any) -> paired.PairedTest:
    (test,) = paired.differences([mine, theirs], "m", [(0, 1)], **options)
    return test


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 0), (3, 9), (9, 3), (40, 41), (300, 200)])
def test_mcnemar_is_the_binomial_test_of_discordant_examples(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert paired.mcnemar(b, c) == pytest.approx(expected, rel=1e-12)


def test_agresti_and_mins_interval_by_hand() -> None:
    """1,600 people rated twice; 150 and 86 of them changed their minds (Agresti 2002, table 10.1)."""
    low, high = paired.agresti_min(150, 86, 1600)
    middle, half = 64 / 1602, 1.959964 * (237 - 64**2 / 1602) ** 0.5 / 1602
    assert (low, high) == pytest.approx((middle - half, middle + half), rel=1e-6)
    assert (low, high) == pytest.approx((0.0212, 0.0587), abs=5e-5)


def test_right_or_wrong_takes_the_exact_test() -> None:
    mine, theirs = np.ones(200), np.ones(200)
    mine[:4], theirs[10:20] = 0, 0
    test = compare(scores_of("mean", mine), scores_of("mean", theirs))
    assert test.value == pytest.approx(3.0)
    assert test.p == pytest.approx(stats.binomtest(4, 14).pvalue)
    assert "McNemar" in test.method
    assert test.low is not None and test.high is not None and test.low < 3.0 < test.high


def test_a_difference_of_means_has_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    theirs = rng.random(300)
    mine = theirs + rng.normal(0.01, 0.1, 300)
    test = compare(scores_of("mean", mine), scores_of("mean", theirs))
    expected = stats.ttest_rel(mine, theirs)
    theirs_interval = expected.confidence_interval()
    assert test.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert 0.001 < expected.pvalue < 0.5
    assert (test.low, test.high) == pytest.approx((100 * theirs_interval.low, 100 * theirs_interval.high), rel=1e-6)


def test_articles_are_the_unit_where_there_are_any() -> None:
    """Twenty articles of equal size: the t test over articles' means, whatever the number of questions."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(20), 50)
    theirs = (rng.random(1000) < 0.7).astype(float)
    shift = rng.normal(0.02, 0.05, 20)
    mine = np.clip(theirs + shift[groups], -1, 2)
    test = compare(scores_of("mean", mine, groups=groups), scores_of("mean", theirs, groups=groups))
    expected = stats.ttest_1samp(shift, 0)
    assert test.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert "20 articles" in test.method


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f1", "matthews_correlation", "pearson", "spearman"])
def test_the_standard_error_equals_a_loop(kind: Any) -> None:
    rng = np.random.default_rng(3)
    size = 250
    if kind in ("pearson", "spearman"):
        label = np.round(rng.normal(size=size), 1)
        mine, theirs = (np.round(label + rng.normal(0, spread, size), 1) for spread in (0.6, 0.8))
    else:
        label = (rng.random(size) < 0.4).astype(float)
        mine, theirs = (np.where(rng.random(size) < right, label, 1 - label) for right in (0.85, 0.8))
    measure: Any = {
        "f1": lambda predicted, label: f1_score(label, predicted),
        "matthews_correlation": lambda predicted, label: matthews_corrcoef(label, predicted),
        "pearson": lambda predicted, label: stats.pearsonr(predicted, label).statistic,
        "spearman": lambda predicted, label: stats.spearmanr(predicted, label).statistic,
    }[kind]
    test = compare(scores_of(kind, mine, label), scores_of(kind, theirs, label))
    draws = [rng.integers(0, size, size) for _ in range(500)]
    error = 100 * np.std([measure(mine[rows], label[rows]) - measure(theirs[rows], label[rows]) for rows in draws])
    freedom = int(np.sum(mine != theirs)) - 1
    assert test.value == pytest.approx(100 * (measure(mine, label) - measure(theirs, label)))
    assert test.low is not None and test.high is not None
    assert (test.high - test.low) / 2 == pytest.approx(stats.t.ppf(0.975, freedom) * error, rel=0.1)
    assert test.p == pytest.approx(2 * stats.t.sf(abs(test.value) / error, freedom), abs=0.05)


def test_five_examples_that_differ_are_five_observations() -> None:
    """All five differ in the same direction: the exact test gives 0.0625, a bootstrap over a thousand examples 0.025."""
    label = np.arange(1000) % 2.0
    mine, theirs = label.copy(), label.copy()
    theirs[:5] = 1 - theirs[:5]
    test = compare(scores_of("f1", mine, label), scores_of("f1", theirs, label))
    assert test.p is not None and 0.05 < test.p < 0.15


def test_equal_predictions_are_no_difference() -> None:
    label = np.arange(100) % 2.0
    scores = scores_of("f1", label, label)
    test = compare(scores, scores)
    assert (test.value, test.low, test.p) == (0.0, None, None)
    assert "no test: they differ on 0 of 100" in test.method


@pytest.mark.parametrize("kind", ["f1", "matthews_correlation", "spearman", "pearson"])
@pytest.mark.parametrize("wrong", ["constant", "inverted"])
def test_all_right_against_nothing_right_is_no_certainty(kind: Any, wrong: str) -> None:
    """Both influence functions are 0 here, and so would the standard error be. What is left is how many examples differ."""
    label = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    theirs = 1 - label if wrong == "inverted" else np.zeros(6)
    test = compare(scores_of(kind, label, label), scores_of(kind, theirs, label))
    differing = int(np.sum(theirs != label))
    share = stats.binomtest(differing, 6).proportion_ci(0.95, "exact")
    most = 100.0 if kind == "f1" else 200.0
    assert test.p == pytest.approx(stats.binomtest(differing, differing).pvalue)
    ends = [min(test.value * end * 6 / differing, most) for end in share]
    assert [test.low, test.high] == pytest.approx(ends)


def test_scores_in_the_same_order_have_the_same_spearman() -> None:
    label = np.array([0.0, 1.0, 3.0, 2.0, 4.0])
    mine, theirs = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    test = compare(scores_of("spearman", mine, label), scores_of("spearman", theirs, label))
    assert (test.value, test.low, test.high, test.p) == (0.0, 0.0, 0.0, 1.0)
    assert "linearised" in test.method


def test_one_article_that_differs_is_little_to_go_by() -> None:
    groups = np.repeat(np.arange(10), 5)
    theirs = np.ones(50)
    theirs[:5] = 0.5
    test = compare(scores_of("mean", np.ones(50), groups=groups), scores_of("mean", theirs, groups=groups))
    share = stats.binomtest(1, 10).proportion_ci(0.95, "exact")
    assert (test.value, test.p) == (5.0, None)
    assert [test.low, test.high] == pytest.approx([50 * end for end in share])
    alone = compare(scores_of("mean", np.ones(50), groups=0 * groups), scores_of("mean", theirs, groups=0 * groups))
    assert (alone.low, alone.high, alone.p) == (None, None, None)


def test_no_interval_leaves_what_a_difference_can_be() -> None:
    """Two articles of 99 and 1 questions: hardly a degree of freedom."""
    groups = np.repeat([0, 1], [99, 1])
    theirs = np.ones(100)
    theirs[[0, 99]] = 0.5, 0.0
    test = compare(scores_of("mean", np.ones(100), groups=groups), scores_of("mean", theirs, groups=groups))
    assert (test.low, test.high) == (-100.0, 100.0)


def test_scores_of_other_examples_are_refused() -> None:
    scores = scores_of("mean", np.ones(5))
    other = Scores(scores.metrics, {**scores.per_example, "id": np.array(list("abcde"))}, scores.statistics)
    with pytest.raises(ValueError, match="not of the same examples"):
        compare(scores, other)


def test_holm_by_hand() -> None:
    assert paired.holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert paired.holm([0.9, 0.8]) == [1.0, 1.0]
    assert paired.holm([]) == []


def test_ratios_of_interleaved_rounds_have_the_paired_t_interval() -> None:
    mine, theirs = [110.0, 120.0, 100.0, 115.0, 108.0], [50.0, 56.0, 47.0, 52.0, 50.0]
    test = paired.ratio(mine, theirs, interleaved=True)
    expected = stats.ttest_rel(np.log(mine), np.log(theirs))
    interval = expected.confidence_interval()
    assert test.value == pytest.approx(stats.gmean(mine) / stats.gmean(theirs))
    assert (test.low, test.high) == pytest.approx((np.exp(interval.low), np.exp(interval.high)))
    assert test.p == pytest.approx(expected.pvalue)


def test_rounds_that_were_not_interleaved_are_not_tested() -> None:
    """The rounds of a run share the run's own effect: with an effect of 3%, Welch's test called 36% of 1,000 equal pairs
    different."""
    for mine, theirs, interleaved in (
        ([110.0, 120.0], [50.0, 56.0], False),
        ([110.0, 120.0, 100.0], [50.0, 56.0], True),
    ):
        test = paired.ratio(mine, theirs, interleaved=interleaved)
        assert test.value == pytest.approx(stats.gmean(mine) / stats.gmean(theirs))
        assert (test.low, test.high, test.p) == (None, None, None)
        assert "not interleaved" in test.method


def test_a_single_round_has_a_ratio_and_no_interval() -> None:
    test = paired.ratio([30.0], [20.0], interleaved=True)
    assert test.value == pytest.approx(1.5)
    assert (test.low, test.p) == (None, None)


def test_a_drift_of_the_machine_cancels_between_interleaved_rounds() -> None:
    drift = np.array([1.0, 0.9, 0.8, 0.7, 0.6])
    noise = np.array([1.001, 0.999, 1.0, 1.0005, 0.9995])
    mine, theirs = list(103 * drift * noise), list(100 * drift)
    test = paired.ratio(mine, theirs, interleaved=True)
    assert test.p is not None and test.p < 0.001
    assert stats.ttest_ind(np.log(mine), np.log(theirs), equal_var=False).pvalue > 0.5


def test_rank_ranges_by_hand() -> None:
    """0 beats 2 and 3, 1 beats 3: 0 and 1 cannot be told apart, nor 1 and 2, nor 2 and 3."""
    assert paired.rank_ranges(4, [(0, 2), (0, 3), (1, 3)]) == [(1, 2), (1, 3), (2, 4), (3, 4)]
    assert paired.rank_ranges(3, []) == [(1, 3)] * 3


def test_significance_is_decided_after_correction() -> None:
    pairs = paired.all_pairs(3)
    tests = [paired.PairedTest(2.0, p=0.001), paired.PairedTest(-1.0, p=0.02), paired.PairedTest(-3.0, p=0.04)]
    assert paired.significant_pairs(pairs, tests, tie=0.0) == [(0, 1), (2, 0), (2, 1)]
    tests[1] = paired.PairedTest(-1.0, p=0.03)  # 2 x 0.03 is no longer below 0.05, and so is what follows
    assert paired.significant_pairs(pairs, tests, tie=0.0) == [(0, 1)]


@pytest.mark.parametrize(
    ("f1", "bound"), [(90.874, 0.999), (90.784, 0.999), (90.633, 0.99), (90.067, 0.99), (89.9, 0.0)]
)
def test_mlperfs_published_results(f1: float, bound: float) -> None:
    """90.067 and 90.633, INT8 BERT-large of MLPerf Inference, against 90.874: both hold 99%, neither holds 99.9%."""
    assert paired.bound_held(f1, 90.874) == bound


def test_there_is_no_share_of_a_baseline_at_zero() -> None:
    assert paired.bound_held(10.0, 0.0) is None
