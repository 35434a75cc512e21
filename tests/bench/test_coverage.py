"""How often 95% intervals hold the truth, over 1,000 simulated data sets of known truth. `nox -s bench` prints each share
with its own binomial interval (Clopper & Pearson). Sizes are those of the real evaluation splits. Intervals are those of
records and pages; only Pearson's takes 1,000 resamples instead of 10,000, to save time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.measure import paired
from harness.measure.intervals import intervals
from tasks import Scores, Statistic
from tasks.metrics.labels import COEFFICIENTS

Array = np.ndarray[Any, Any]
Held = tuple[float | None, float, float | None]
"""low, truth, high"""
DATA_SETS = 1000
ARTICLES = np.array(
    [
        *(96, 98, 104, 106, 106, 108, 108, 112, 112, 113, 116, 124, 129, 136, 153, 172, 176, 180, 182, 183, 187, 189, 191, 197),
        *(197, 200, 206, 215, 217, 228, 231, 238, 242, 243, 245, 247, 247, 264, 268, 291, 295, 295, 297, 319, 407, 479, 511, 810),
    ]
)  # fmt: skip
"""Questions of each article of SQuAD v1.1 dev, from which a simulated data set draws its 48."""


def scores_of(kind: Any, *columns: Array, groups: Array | None = None) -> Scores:
    names = tuple(f"column {number}" for number in range(len(columns)))
    value = 100 * (float(columns[0].mean()) if kind == "mean" else COEFFICIENTS[kind](*columns))
    ids = np.arange(len(columns[0]))
    return Scores(
        {"m": value}, {"id": ids} | dict(zip(names, columns, strict=True)), {"m": Statistic(kind, names)}, groups
    )


def interval(scores: Scores, truth: float, **options: Any) -> Held:
    figure = intervals(scores, **options)["m"]
    return figure.low, truth, figure.high


def difference(mine: Scores, theirs: Scores, truth: float) -> Held:
    (test,) = paired.differences([mine, theirs], "m", [(0, 1)])
    return test.low, truth, test.high


def accuracy(size: int, share: float) -> Callable[[np.random.Generator], Held]:
    return lambda rng: interval(scores_of("mean", (rng.random(size) < share).astype(float)), 100 * share)


def squad(rng: np.random.Generator) -> tuple[Array, Array]:
    """The article of each question, and that article's rate of right answers, which varies as in dev."""
    sizes = rng.choice(ARTICLES, 48)
    groups = np.repeat(np.arange(48), sizes)
    return groups, rng.beta(20, 7, 48)[groups]


def exact_match(rng: np.random.Generator) -> Held:
    groups, rate = squad(rng)
    right = (rng.random(len(groups)) < rate).astype(float)
    return interval(scores_of("mean", right, groups=groups), 100 * 20 / 27)


def squad_f1(rng: np.random.Generator) -> Held:
    """Right, wrong, or (one in five of the wrong) partly right, 0 to 1 evenly."""
    groups, rate = squad(rng)
    partly = np.where(rng.random(len(groups)) < 0.2, rng.random(len(groups)), 0.0)
    values = np.where(rng.random(len(groups)) < rate, 1.0, partly)
    return interval(scores_of("mean", values, groups=groups), 100 * (20 / 27 + 7 / 27 * 0.1))


def squad_difference(rng: np.random.Generator) -> Held:
    """INT8 loses one right answer in forty and gets one wrong answer in fifty right, more in some articles than in others."""
    groups, rate = squad(rng)
    worse = rng.beta(2, 78, 48)[groups]
    theirs = rng.random(len(groups)) < rate
    mine = np.where(theirs, rng.random(len(groups)) >= worse, rng.random(len(groups)) < 0.02)
    truth = 100 * (7 / 27 * 0.02 - 20 / 27 * 0.025)
    return difference(
        scores_of("mean", mine.astype(float), groups=groups),
        scores_of("mean", theirs.astype(float), groups=groups),
        truth,
    )


def two_classes(rng: np.random.Generator, size: int, share: float) -> tuple[Array, Array]:
    """Predictions that are right for 85% of either class, and labels."""
    label = (rng.random(size) < share).astype(float)
    return np.where(rng.random(size) < 0.85, label, 1 - label), label


def f1(rng: np.random.Generator) -> Held:
    predicted, label = two_classes(rng, 408, 0.68)
    claimed = 0.68 * 0.85 + 0.32 * 0.15
    return interval(scores_of("f1", predicted, label), 100 * 2 * 0.68 * 0.85 / (0.68 + claimed))


def matthews(rng: np.random.Generator) -> Held:
    predicted, label = two_classes(rng, 1043, 0.69)
    claimed = 0.69 * 0.85 + 0.31 * 0.15
    truth = (0.69 * 0.85 - 0.69 * claimed) / (0.69 * 0.31 * claimed * (1 - claimed)) ** 0.5
    return interval(scores_of("matthews_correlation", predicted, label), 100 * truth)


def pearson(rng: np.random.Generator) -> Held:
    x, y = rng.multivariate_normal([0, 0], [[1, 0.88], [0.88, 1]], 1500).T
    return interval(scores_of("pearson", x, y), 88.0, resamples=1000)


def accuracy_difference(rng: np.random.Generator) -> Held:
    theirs = rng.random(277) < 0.66
    mine = np.where(theirs, rng.random(277) >= 0.06, rng.random(277) < 0.05)
    truth = 100 * (0.34 * 0.05 - 0.66 * 0.06)
    return difference(scores_of("mean", mine.astype(float)), scores_of("mean", theirs.astype(float)), truth)


def f1_difference(rng: np.random.Generator) -> Held:
    """Two sets of predictions of equal quality, with independent errors."""
    theirs, label = two_classes(rng, 408, 0.68)
    mine = np.where(rng.random(408) < 0.85, label, 1 - label)
    return difference(scores_of("f1", mine, label), scores_of("f1", theirs, label), 0.0)


def speed_up(rounds: int) -> Callable[[np.random.Generator], Held]:
    """Processes differ by 2%, on a machine that drifts by 3% from round to round."""

    def once(rng: np.random.Generator) -> Held:
        drift = rng.normal(0, 0.03, rounds)
        mine, theirs = (np.exp(mean + drift + rng.normal(0, 0.02, rounds)) for mean in (np.log(1.5), 0.0))
        test = paired.ratio(list(mine), list(theirs), interleaved=True)
        return test.low, 1.5, test.high

    return once


CASES: dict[str, Callable[[np.random.Generator], Held]] = {
    "accuracy, 277 examples (RTE)": accuracy(277, 0.66),
    "accuracy, 872 examples (SST-2)": accuracy(872, 0.92),
    "accuracy, 40,430 examples (QQP)": accuracy(40_430, 0.9),
    "F1 of a class, 408 examples (MRPC)": f1,
    "Matthews correlation, 1,043 examples (CoLA)": matthews,
    "Pearson correlation, 1,500 examples (STS-B)": pearson,
    "exact match, 48 articles (SQuAD)": exact_match,
    "F1, 48 articles (SQuAD)": squad_f1,
    "difference of accuracy, 277 examples (RTE)": accuracy_difference,
    "difference of F1, 408 examples (MRPC)": f1_difference,
    "difference of exact match, 48 articles (SQuAD)": squad_difference,
    "speed-up, 3 interleaved rounds": speed_up(3),
    "speed-up, 5 interleaved rounds": speed_up(5),
}


@pytest.mark.parametrize("name", list(CASES))
def test_intervals_hold_the_truth_as_often_as_they_say(name: str) -> None:
    rng = np.random.default_rng(20_261_121)
    held = sum(low is not None and high is not None and low <= truth <= high for low, truth, high in draws(name, rng))
    ends = stats.binomtest(held, DATA_SETS).proportion_ci(0.95, "exact")
    print(f"  {name:50} {held / DATA_SETS:6.1%}   [{ends.low:.1%}, {ends.high:.1%}]")
    assert 0.93 <= held / DATA_SETS <= 0.97


def draws(name: str, rng: np.random.Generator) -> Iterator[Held]:
    return (CASES[name](rng) for _ in range(DATA_SETS))


@pytest.mark.parametrize("changed", [4, 12, 60])
def test_equal_systems_are_seldom_called_different(changed: int) -> None:
    """Two engines of equal quality answer some of CoLA's 1,043 sentences differently. p < 0.05 in at most 5% of the data sets:
    the lower end of that share's interval must not exceed 5%."""
    rng, called = np.random.default_rng(20_261_122), 0
    for _ in range(DATA_SETS):
        theirs, label = two_classes(rng, 1043, 0.69)
        mine = theirs.copy()
        places = rng.choice(1043, changed, replace=False)
        halves = rng.random(changed) < 0.5  # which of the two is right there
        mine[places], theirs[places] = (
            np.where(right, label[places], 1 - label[places]) for right in (halves, ~halves)
        )
        (test,) = paired.differences(
            [scores_of("matthews_correlation", predicted, label) for predicted in (mine, theirs)],
            "m",
            [(0, 1)],
        )
        called += (test.p or 0.0) < 0.05
    ends = stats.binomtest(called, DATA_SETS).proportion_ci(0.95, "exact")
    print(
        f"  {changed} answers differ, called different: {called / DATA_SETS:6.1%}   [{ends.low:.1%}, {ends.high:.1%}]"
    )
    assert ends.low <= 0.05
