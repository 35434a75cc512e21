"""Comparisons of cells: paired tests of accuracy, ratios of speed, corrections for many comparisons, and ranks.

Two systems that answered the same examples are compared example by example, so that what is hard for both cancels.

- Shares of independent examples (each right or wrong): McNemar's exact test (1947), the binomial test on the examples where
  one is right and the other is not; the interval of the difference is Agresti & Min's (2005).
- Any other metric, and every metric of grouped examples (SQuAD's questions, by article): the standard error of the
  difference, linearised (`harness.measure.influence`): no part of it is chance, so no rank is. The test and the interval are
  Student's, with one degree of freedom less than there are examples, or groups, on which the two differ: where two INT8
  engines differ on five examples of a thousand, there are five observations, not a thousand. Groups of unequal size are
  counted by Kish's effective number.
- Answers that are all right, or all the same, have influences of 0, as if nothing were uncertain. Where no standard error is left, and
  where the two differ on one unit alone, the interval is that of how many units differ (Clopper & Pearson 1934), each moving
  the metric as those did; of several units the test is the sign test.
- Speed: Student's t of the logarithm of the ratio, round by round, of rounds that were interleaved in one run; other rounds
  are not tested. The round is the unit, as everywhere. With three to five of them Student's t holds its level and a
  percentile bootstrap does not (three rounds have ten distinct resamples).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from harness.measure.exact import stdev
from harness.measure.influence import influence
from harness.measure.intervals import effective_number, is_share
from harness.measure.looks import may_miss
from tasks import Scores, Statistic

Array = np.ndarray[Any, Any]


LEVEL = 0.05
"""Significance level of tests that decide ranks, after Holm's correction."""


TOO_FEW = "no test"
"""What `method` begins with where fewer than two examples or articles differ, so that there is no test."""


NO_ERROR = 1e-6
"""A standard error below this share of its difference is what rounding leaves of 0."""


SAME = 1e-9
"""Points below which two figures are the same, but for rounding."""


SIGNED = ("matthews_correlation", "pearson", "spearman")
"""Kinds of metrics from -100 to 100; others begin at 0."""


MLPERF_BOUNDS = (0.999, 0.99)
"""Shares of the FP32 model's accuracy that MLPerf Inference asks of its BERT entries (bert-99.9 and bert-99)."""


@dataclass(frozen=True)
class PairedTest:
    """One figure compared with another: points for accuracy (mine less theirs), a ratio for speed (mine over theirs).

    low, high: the 95% interval, not corrected for other comparisons; None where there is none. p: two-sided, not corrected;
    None where no test was made. method: which test, or why none.
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
) -> list[PairedTest]:
    """The difference of a metric, in points, of each pair (mine, theirs); a pair holds positions in `scored`.

    All of `scored` must have the same examples in the same order (by their `id` columns; else ValueError), and must say how
    the metric is resampled.
    """
    if not pairs:
        return []
    first = scored[0]
    ids = first.per_example["id"]
    others = (scores.per_example["id"] for scores in scored)
    if any(other is not ids and not np.array_equal(other, ids) for other in others):
        raise ValueError("these scores are not of the same examples")
    statistic = first.statistics[metric]
    sets = [[np.asarray(scores.per_example[name], np.float64) for name in statistic.columns] for scores in scored]
    values = [scores.metrics[metric] for scores in scored]
    if first.groups is None and all(is_share(statistic, columns) for columns in sets):
        return [_shares(sets[mine][0], sets[theirs][0]) for mine, theirs in pairs]
    units = _units(first)
    moves = [_moves(scores, statistic, columns, units) for scores, columns in zip(scored, sets, strict=True)]
    return _linearised(sets, moves, values, units, pairs, 200.0 if statistic.kind in SIGNED else 100.0)


@dataclass(frozen=True)
class _Units:
    """What is independent: examples, or groups of them. groups: as in Scores. of: (n,) the unit of each example. sizes: (units,)
    how many examples each has."""

    name: str
    groups: Array | None
    of: Array
    sizes: Array


def _units(scores: Scores) -> _Units:
    """Worked out once for all comparisons with these answers, and kept with them."""
    known: _Units | None = vars(scores).get("_units")
    if known is None:
        groups, examples = scores.groups, len(scores.per_example["id"])
        of = np.arange(examples) if groups is None else np.unique(groups, return_inverse=True)[1]
        known = _Units("examples" if groups is None else "articles", groups, of, np.bincount(of))
        vars(scores)["_units"] = known
    return known


def _moves(scores: Scores, statistic: Statistic, columns: Sequence[Array], units: _Units) -> Array:
    """(units,) the sum of the influences of the examples of each, in points. Kept as the units are."""
    known: dict[Statistic, tuple[Array | None, Array]] = vars(scores).setdefault("_moves", {})
    if statistic not in known or known[statistic][0] is not units.groups:
        known[statistic] = units.groups, np.bincount(units.of, 100 * influence(statistic.kind, columns))
    return known[statistic][1]


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
    """Two-sided exact p of McNemar's test (1947), from how many examples only one of the two has right."""
    from scipy.special import bdtr

    discordant = only_mine + only_theirs
    return min(1.0, 2 * float(bdtr(min(only_mine, only_theirs), discordant, 0.5))) if discordant else 1.0


def agresti_min(only_mine: int, only_theirs: int, count: int) -> tuple[float, float]:
    """95% interval of the difference of two paired shares: Wald's, after half an example is added to each of the four cells
    (Agresti & Min 2005, "Simple improved confidence intervals for comparing matched proportions")."""
    more, less, total = only_mine + 0.5, only_theirs + 0.5, count + 2
    middle = (more - less) / total
    half = 1.959963984540054 * math.sqrt(more + less - (more - less) ** 2 / total) / total
    return max(-1.0, middle - half), min(1.0, middle + half)


def _linearised(
    sets: Sequence[Sequence[Array]],
    moves: Sequence[Array],
    values: Sequence[float],
    units: _Units,
    pairs: Sequence[tuple[int, int]],
    most: float,
) -> list[PairedTest]:
    """most: points by which two values of the metric can differ."""
    from scipy.special import stdtr, stdtrit

    counted, examples = f"{len(units.sizes)} {units.name}", len(units.of)
    tests = []
    for mine, theirs in pairs:
        value = values[mine] - values[theirs]
        differs = np.any(
            [(a != b).reshape(len(a), -1).any(1) for a, b in zip(sets[mine], sets[theirs], strict=True)], axis=0
        )
        differing = np.flatnonzero(np.bincount(units.of[differs], minlength=1))
        method = f"paired, linearised standard error over {counted}; the two differ on {len(differing)}"
        if len(differing) < 2:
            low, high = _by_count(value, len(differing), len(units.sizes), most)
            method = f"{TOO_FEW}: they differ on {len(differing)} of {counted}"
            tests.append(PairedTest(value, low, high, method=method))
            continue
        count, freedom = effective_number(units.sizes), effective_number(units.sizes[differing]) - 1
        error = float(np.linalg.norm(moves[mine] - moves[theirs])) / examples * math.sqrt(count / (count - 1))
        if abs(value) > SAME and error <= NO_ERROR * abs(value):
            low, high = _by_count(value, len(differing), len(units.sizes), most)
            p = 2 * 0.5 ** len(differing)
            tests.append(PairedTest(value, low, high, p, f"sign test; the two differ on {len(differing)} of {counted}"))
            continue
        half = float(stdtrit(freedom, 0.975)) * error
        p = 2 * float(stdtr(freedom, -abs(value) / error)) if error > 0 else 1.0
        tests.append(PairedTest(value, max(value - half, -most), min(value + half, most), p, method))
    return tests


def _by_count(value: float, differing: int, units: int, most: float) -> tuple[float | None, float | None]:
    """The 95% interval of a difference that so many of the units make, all of them alike. None where none do, and of a single unit."""
    from scipy.special import betaincinv

    if not differing or units < 2:
        return None, None
    low = float(betaincinv(differing, units - differing + 1, 0.025))
    high = float(betaincinv(differing + 1, units - differing, 0.975)) if differing < units else 1.0
    ends = sorted(max(-most, min(value * share * units / differing, most)) for share in (low, high))
    return ends[0], ends[1]


def ratio(mine: Sequence[float], theirs: Sequence[float], *, interleaved: bool, looks: int = 1) -> PairedTest:
    """The ratio of the geometric means of two figures of speed (all positive), one value a round.

    interleaved: the n-th rounds of both were measured one after the other, so that a drift of the machine cancels. Otherwise
    there is no interval and no test: the rounds of a run share the machine's state during that run, so they do not show how
    far another run may differ. looks: at how many numbers of rounds they could have ended
    (`harness.measure.looks`).
    """
    from scipy.special import stdtr, stdtrit

    a, b = [math.log(value) for value in mine], [math.log(value) for value in theirs]
    value = statistics.fmean(a) - statistics.fmean(b)
    if not interleaved or len(a) != len(b):
        return PairedTest(math.exp(value), method="not tested: the rounds were not interleaved")
    if len(a) < 2:
        return PairedTest(math.exp(value), method="not tested: one round")
    error = stdev([x - y for x, y in zip(a, b, strict=True)]) / math.sqrt(len(a))
    freedom = float(len(a) - 1)
    method = f"t interval of the logarithm over {len(a)} pairs of rounds, one after the other{at_looks(looks)}"
    missed = may_miss(looks)
    half = float(stdtrit(freedom, 1 - missed / 2)) * error
    tail = float(stdtr(freedom, -abs(value) / error)) if error > 0 else 0.5 * float(abs(value) < 1e-12)
    p = min(1.0, 2 * tail * 0.05 / missed)
    return PairedTest(math.exp(value), math.exp(value - half), math.exp(value + half), p, method)


def at_looks(looks: int) -> str:
    return f", at one of {looks} looks" if looks > 1 else ""


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) over all tests that were made: the chance of even one false positive among them stays
    below the level to which the corrected p are compared. None (no test) stays None and is not counted."""
    order = sorted((p, position) for position, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for smaller, (p, position) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - smaller)))
        corrected[position] = largest
    return corrected


def rank_ranges(count: int, beats: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The (best, worst) rank that each of `count` systems may have, 1 the best. beats: pairs (better, worse) whose difference
    is significant.

    With Holm's correction over all pairs, these ranges hold all true ranks at once with 95% probability (Mogstad, Romano,
    Shaikh & Wilhelm 2024, "Inference for Ranks"). Systems that cannot be told apart share ranks.
    """
    best, worst = [1] * count, [count] * count
    for better, worse in beats:
        best[worse] += 1
        worst[better] -= 1
    return list(zip(best, worst, strict=True))


def all_pairs(count: int) -> list[tuple[int, int]]:
    return list(combinations(range(count), 2))


def significant_pairs(
    pairs: Sequence[tuple[int, int]], tests: Sequence[PairedTest], *, tie: float
) -> list[tuple[int, int]]:
    """The pairs, as (better, worse), whose difference is significant after Holm's correction over them; larger is better.
    tie: the value of equal figures, 0 for differences and 1 for ratios."""
    corrected = holm([test.p for test in tests])
    return [
        (mine, theirs) if test.value > tie else (theirs, mine)
        for (mine, theirs), test, p in zip(pairs, tests, corrected, strict=True)
        if p is not None and p < LEVEL
    ]


def bound_held(value: float, baseline: float) -> float | None:
    """The strictest of MLPERF_BOUNDS that an accuracy holds against its baseline's; 0 where it holds none. None where the
    baseline is not positive, so that a share of it means nothing."""
    if baseline <= 0:
        return None
    return next((bound for bound in MLPERF_BOUNDS if value >= bound * baseline), 0.0)
