"""Comparing cells: paired tests of accuracy, ratios of speed, corrections for many comparisons, and ranks.

Two systems that answered the same examples are compared on them, example by example: what is hard for both cancels.

- Shares of independent examples (each right or wrong): McNemar's exact test (1947), the binomial test on the examples where
  one is right and the other is not; the interval of the difference is Agresti & Min's (2005).
- Any other metric, and every metric of grouped examples (SQuAD's questions, by article): the paired bootstrap. Both systems
  see the same resamples; the standard error is that of their difference over resamples, the test and the interval are
  Student's with as many degrees of freedom as there are examples, or groups, on which the two differ, less one. Two INT8
  engines may differ on five examples of a thousand: then there are five observations, not a thousand. Groups of unequal
  size are counted by Kish's effective number.
- Speed: the logarithm of the ratio, round by round, of rounds that took turns in one run; of others nothing is tested. The
  round is the unit, as everywhere; with three to five of them Student's t holds its level and a percentile bootstrap does
  not (of three rounds it has ten distinct resamples).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from harness.measure.intervals import effective_number, is_share, resampled
from tasks import Scores, Statistic

Array = np.ndarray[Any, Any]


RESAMPLES = 2000
"""Enough for a standard error, whose own error is then 1.6%."""


LEVEL = 0.05
"""Of tests that decide ranks, after Holm's correction."""


TOO_FEW = "no test"
"""How the method of a difference begins that rests on fewer than two examples or articles: it is no test."""


MLPERF_BOUNDS = (0.999, 0.99)
"""Shares of the FP32 model's accuracy that MLPerf Inference asks of its BERT entries (bert-99.9 and bert-99)."""


@dataclass(frozen=True)
class PairedTest:
    """One figure against another: points for accuracy (mine less theirs), a ratio for speed (mine over theirs).

    low, high: its 95% interval, not corrected for other comparisons; None where there is none. p: two-sided, not corrected;
    None where no test was made. method says how, or why not.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    method: str = ""


def differences(
    scored: Sequence[Scores],
    metric: str,
    pairs: Sequence[tuple[int, int]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[PairedTest]:
    """Of each pair (mine, theirs), which are places in `scored`, the difference of a metric in points.

    All of `scored` must be of the same examples in the same order (their `id` columns; else ValueError), and must hold how
    the metric is resampled.
    """
    if not pairs:
        return []
    first = scored[0]
    if any(not np.array_equal(one.per_example["id"], first.per_example["id"]) for one in scored):
        raise ValueError("these scores are not of the same examples")
    statistic = first.statistics[metric]
    sets = [[np.asarray(one.per_example[name], np.float64) for name in statistic.columns] for one in scored]
    values = [one.metrics[metric] for one in scored]
    if first.groups is None and all(is_share(statistic, columns) for columns in sets):
        return [_shares(sets[mine][0], sets[theirs][0]) for mine, theirs in pairs]
    return _bootstrapped(statistic, sets, values, first.groups, pairs, resamples, seed)


def _shares(mine: Array, theirs: Array) -> PairedTest:
    only_mine, only_theirs = int(np.sum(mine > theirs)), int(np.sum(mine < theirs))
    count = len(mine)
    value = 100 * (only_mine - only_theirs) / count if count else 0.0
    low, high = agresti_min(only_mine, only_theirs, count)
    return PairedTest(
        value,
        min(100 * low, value),
        max(100 * high, value),
        mcnemar(only_mine, only_theirs),
        f"McNemar's exact test, Agresti and Min's interval: {only_mine} and {only_theirs} of {count} examples right in one alone",
    )


def mcnemar(only_mine: int, only_theirs: int) -> float:
    """Two-sided exact p of McNemar's test, from the examples that one alone has right."""
    from scipy.special import bdtr

    both = only_mine + only_theirs
    return min(1.0, 2 * float(bdtr(min(only_mine, only_theirs), both, 0.5))) if both else 1.0


def agresti_min(only_mine: int, only_theirs: int, count: int) -> tuple[float, float]:
    """95% interval of the difference of two paired shares: Wald's after adding half an example to each of the four cells
    (Agresti & Min 2005, "Simple improved confidence intervals for comparing matched proportions")."""
    more, less, total = only_mine + 0.5, only_theirs + 0.5, count + 2
    middle = (more - less) / total
    half = 1.959963984540054 * math.sqrt(more + less - (more - less) ** 2 / total) / total
    return max(-1.0, middle - half), min(1.0, middle + half)


def _bootstrapped(
    statistic: Statistic,
    sets: Sequence[Sequence[Array]],
    values: Sequence[float],
    groups: Array | None,
    pairs: Sequence[tuple[int, int]],
    resamples: int,
    seed: int,
) -> list[PairedTest]:
    from scipy.special import stdtr, stdtrit

    units, unit, group = len(sets[0][0]), "examples", np.arange(len(sets[0][0]))
    if groups is not None:
        articles, group = np.unique(groups, return_inverse=True)
        units, unit = len(articles), "articles"
    sizes = np.bincount(group)
    clusters = group if groups is not None else None
    draws = 100 * resampled(statistic.kind, sets, clusters, resamples, np.random.default_rng(seed))
    found = []
    for mine, theirs in pairs:
        value = values[mine] - values[theirs]
        apart = np.any([a != b for a, b in zip(sets[mine], sets[theirs], strict=True)], axis=0)
        differing = np.unique(group[apart])
        said = f"paired bootstrap over {units} {unit}, {resamples} resamples; the two differ on {len(differing)}"
        if len(differing) < 2:
            found.append(PairedTest(value, method=f"{TOO_FEW}: they differ on {len(differing)} of {units} {unit}"))
            continue
        all_of, freedom = effective_number(sizes), effective_number(sizes[differing]) - 1
        error = float(np.std(draws[:, mine] - draws[:, theirs])) * math.sqrt(all_of / (all_of - 1))
        half = float(stdtrit(freedom, 0.975)) * error
        p = 2 * float(stdtr(freedom, -abs(value) / error)) if error > 0 else float(value == 0)
        found.append(PairedTest(value, value - half, value + half, p, said))
    return found


def ratio(mine: Sequence[float], theirs: Sequence[float], *, by_turns: bool) -> PairedTest:
    """Of two figures of speed (all positive), one a round, the ratio of their geometric means.

    by_turns: the n-th rounds of both were measured one after the other, so a drift of the machine cancels between them. Else
    there is no interval and no test: rounds of a run share what the machine was like during it, so they say nothing about
    how far another run is off.
    """
    from scipy.special import stdtr, stdtrit

    a, b = [math.log(value) for value in mine], [math.log(value) for value in theirs]
    value = statistics.fmean(a) - statistics.fmean(b)
    if not by_turns or len(a) != len(b):
        return PairedTest(math.exp(value), method="not tested: the rounds did not take turns")
    if len(a) < 2:
        return PairedTest(math.exp(value), method="not tested: one round")
    error = statistics.stdev(x - y for x, y in zip(a, b, strict=True)) / math.sqrt(len(a))
    freedom = float(len(a) - 1)
    method = f"t interval of the logarithm over {len(a)} pairs of rounds, one after the other"
    half = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(value) / error)) if error > 0 else float(abs(value) < 1e-12)
    return PairedTest(math.exp(value), math.exp(value - half), math.exp(value + half), p, method)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) over all tests that were made: the chance of a single false call among them stays
    below the level at which the corrected p are read. None (no test) stays None and counts for nothing."""
    order = sorted((p, at) for at, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for done, (p, at) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - done)))
        corrected[at] = largest
    return corrected


def rank_ranges(count: int, beats: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of each of `count` systems the ranks that it may hold, 1 the best, from pairs (better, worse) that were told apart.

    With Holm's correction over all pairs these ranges hold all true ranks at once with 95% (Mogstad, Romano, Shaikh &
    Wilhelm 2024, "Inference for Ranks"). Systems that cannot be told apart share ranks.
    """
    first, last = [1] * count, [count] * count
    for better, worse in beats:
        first[worse] += 1
        last[better] -= 1
    return list(zip(first, last, strict=True))


def all_pairs(count: int) -> list[tuple[int, int]]:
    return list(combinations(range(count), 2))


def told_apart(pairs: Sequence[tuple[int, int]], found: Sequence[PairedTest], *, even: float) -> list[tuple[int, int]]:
    """The pairs (better, worse) whose difference is significant after Holm's correction over them; larger is better.
    even: the value of a tie, 0 for differences and 1 for ratios."""
    corrected = holm([one.p for one in found])
    return [
        (mine, theirs) if one.value > even else (theirs, mine)
        for (mine, theirs), one, p in zip(pairs, found, corrected, strict=True)
        if p is not None and p < LEVEL
    ]


def bound_held(value: float, baseline: float) -> float | None:
    """The strictest of MLPERF_BOUNDS that an accuracy holds against its baseline's; 0 where it holds none, None where a
    share of the baseline says nothing (it is not positive)."""
    if baseline <= 0:
        return None
    return next((bound for bound in MLPERF_BOUNDS if value >= bound * baseline), 0.0)
