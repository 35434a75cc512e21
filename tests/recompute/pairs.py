"""What pages and `quantboard compare` derive from two records: paired differences, ratios of speed, Holm's correction."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tests.recompute.accuracy import columns, value_of
from tests.recompute.bootstrap import of_confusion
from tests.recompute.tally import Array, Record, Tally

Scores = dict[str, Array]
DERIVATIVES = 1e-7  # relative, or absolute below 1: central differences


def shares(a: Scores, b: Scores) -> tuple[float, float, float, float]:
    """Difference of two shares in points, its ends (Agresti & Min 2005) and McNemar's exact p."""
    right_a, right_b = a["correct"] == 1, b["correct"] == 1
    table = [[int(np.sum((right_a == x) & (right_b == y))) for y in (True, False)] for x in (True, False)]
    one, other, n = table[0][1] + 0.5, table[1][0] + 0.5, len(right_a) + 2
    centre = (one - other) / n
    half = stats.norm.ppf(0.975) * np.sqrt((one + other) / n - centre**2) / np.sqrt(n)
    p = float(mcnemar(table, exact=True).pvalue)
    return 100 * float(right_a.mean() - right_b.mean()), 100 * (centre - half), 100 * (centre + half), p


def of_one(metric: str, label: Array, predicted: Array) -> Array:
    """What one more of each example would move F1 or Matthews correlation, as a fraction: derivatives by central differences."""
    k = int(max(label.max(), predicted.max(), 1)) + 1
    cells = np.bincount(label * k + predicted, minlength=k * k).astype(np.float64)
    steps = 1e-3 * np.eye(k * k)
    up, down = (of_confusion(metric, (cells + sign * steps).reshape(-1, k, k)) for sign in (1, -1))
    moved: Array = ((up - down) / 2e-3)[label * k + predicted]
    return moved


def influence(metric: str, scores: Scores) -> Array:
    """What each example moves the metric, in points: its influence function (Hampel 1974) over the number of examples."""
    if metric in scores:
        each: Array = 100 * scores[metric]
        centred: Array = (each - each.mean()) / len(each)
        return centred
    label, predicted = scores["label"], scores["predicted"]
    if metric not in ("pearson", "spearman"):
        of_counts: Array = 100 * of_one(metric, label, predicted)
        return of_counts
    columns = [label, predicted]
    if metric == "spearman":
        columns = [stats.rankdata(column) for column in columns]
    x, y = (stats.zscore(column) for column in columns)
    n, r = len(x), float((x * y).mean())
    moved: Array = (x * y - r * (x**2 + y**2) / 2) / n
    if metric == "spearman":  # an example also moves the ranks of those above it, and by half of those beside it
        for one, other, column in ((x, y, columns[0]), (y, x, columns[1])):
            above = (column[:, None] < column) + 0.5 * (column[:, None] == column)
            moved = moved + above @ (other - r * one) / (n * column.std())
    return 100 * moved


def standard_error(metric: str, a: Scores, b: Scores) -> float:
    """Of the difference of a metric, in points, over examples or articles."""
    moved = influence(metric, a) - influence(metric, b)
    units = float(len(moved))
    if "group" in a:
        _, group = np.unique(a["group"], return_inverse=True)
        moved, units = np.bincount(group, weights=moved), effective(np.bincount(group))
    return float(np.sqrt((moved**2).sum() * units / (units - 1)))


def effective(sizes: Array) -> float:
    """Kish's effective number of groups."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def t_of(units: float) -> Any:
    """Student's t with one degree of freedom less than units."""
    return stats.t(units - 1)


def units_that_differ(metric: str, a: Scores, b: Scores) -> tuple[int, float]:
    """Articles or examples on which the two differ, and their effective number."""
    if "group" not in a:
        differ = int(np.sum(a["predicted"] != b["predicted"]))
        return differ, float(differ)
    _, group = np.unique(a["group"], return_inverse=True)
    differs = np.bincount(group, weights=a[metric] != b[metric]) > 0
    return int(differs.sum()), effective(np.bincount(group)[differs]) if differs.any() else 0.0


def check_difference(tally: Tally, where: str, metric: str, stored: Record, a: Scores, b: Scores) -> None:
    tally.compare("differences", where, stored["value"], value_of(metric, a) - value_of(metric, b))
    if stored["method"].startswith("McNemar"):
        value, low, high, p = shares(a, b)
        tally.compare("differences", where, stored["value"], value)
        for name, ours in (("low", low), ("high", high), ("p", p)):
            tally.compare("McNemar's test and Agresti and Min's ends", f"{where} {name}", stored[name], ours)
        return
    differ, freedom = units_that_differ(metric, a, b)
    if stored["p"] is None:
        tally.compare("differences without a test", where, differ < 2, True)
        return
    if stored["method"].startswith("sign test"):
        tally.compare("sign tests", where, stored["p"], float(stats.binomtest(differ, differ).pvalue))
        return
    method = r"paired, linearised standard error over (\d+) (?:examples|articles); the two differ on (\d+)"
    match = re.fullmatch(method, stored["method"])
    if not match:
        tally.fail("differences", where, f"no recomputation of {stored['method']!r}")
        return
    tally.compare("units that differ", where, int(match[2]), differ)
    kind, error = "linearised ends and p", standard_error(metric, a, b)
    half = t_of(freedom).ppf(0.975) * error
    p = 2 * t_of(freedom).sf(abs(stored["value"]) / error)
    for name, ours in (("low", stored["value"] - half), ("high", stored["value"] + half), ("p", p)):
        tally.compare(kind, f"{where} {name}", stored[name], ours, DERIVATIVES)


def geometric_ratio(logarithms: list[float]) -> tuple[float, float, float, float]:
    """Geometric mean of ratios, ends of its 95% t interval, and p of no difference."""
    test = stats.ttest_1samp(logarithms, 0.0)
    low, high = test.confidence_interval(0.95)
    return float(np.exp(np.mean(logarithms))), float(np.exp(low)), float(np.exp(high)), float(test.pvalue)


def interleaved(a: Record, b: Record, load: str, batch_size: int | None) -> list[float]:
    """Logarithms of b's seconds over a's, one a round in which both ran; the largest batch size unless one is named."""
    turns = [{t["batch_size"]: t for t in record["turns"] if t["load"] == load} for record in (a, b)]
    size = batch_size or max(turns[0])
    seconds = [{one["together"]: one["seconds"] for one in of[size]["rounds"]} for of in turns]
    return [float(np.log(seconds[1][key] / seconds[0][key])) for key in seconds[0] if key in seconds[1]]


def logarithms_of(stored: Record, a: Record, b: Record) -> list[float]:
    """Of the ratio a / b, one a pair of rounds."""
    at = (stored["load"], stored["batch_size"])
    if stored["scenario"] == "interleaved" and stored["figure"] == "samples/s":
        return interleaved(a, b, *at)
    key = (stored["scenario"], *at)
    speeds = [next(s for s in r["speed"] if (s["scenario"], s["load"], s["batch_size"]) == key) for r in (a, b)]
    rounds = [[one[stored["figure"]] for one in speed["rounds"]] for speed in speeds]
    if stored["scenario"] == "interleaved":  # rounds that both ran; their names are the turns'
        turns = [next(t for t in r["turns"] if (t["load"], t["batch_size"]) == at) for r in (a, b)]
        named = [
            dict(zip((t["together"] for t in of["rounds"]), values, strict=True))
            for of, values in zip(turns, rounds, strict=True)
        ]
        return [float(np.log(named[0][name] / named[1][name])) for name in named[0] if name in named[1]]
    return [float(np.log(x / y)) for x, y in zip(*rounds, strict=True)]


def check_ratio(tally: Tally, where: str, stored: Record, a: Record, b: Record) -> None:
    if stored["value"] is None:
        return
    logarithms = logarithms_of(stored, a, b)
    ours = dict(zip(("value", "low", "high", "p"), geometric_ratio(logarithms), strict=True))
    for name in ours if stored["p"] is not None else ("value",):
        tally.compare("ratios of speed, their ends and p", f"{where} {name}", stored[name], ours[name])


def check_holm(tally: Tally, column: str, cells: list[Record]) -> None:
    tested = [cell for cell in cells if cell["p"] is not None]
    if tested:
        for cell, ours in zip(tested, multipletests([cell["p"] for cell in tested], method="holm")[1], strict=True):
            tally.compare("p by Holm's correction", column, cell["p_holm"], ours)


def check_comparison(tally: Tally, comparisons: list[Record], records: list[tuple[Record, Path]]) -> None:
    """What `quantboard compare --json` printed."""
    by_id = {record["record_id"]: (record, folder) for record, folder in records}
    families: dict[Any, list[Record]] = defaultdict(list)
    for pair in comparisons:
        a, b = (by_id[pair[side]["record_id"]] for side in ("a", "b"))
        where = f"{a[0]['record_id']} {b[0]['record_id']}"
        scores = []
        for record, folder in (a, b):
            if pair["split"]:
                accuracy = next(part for part in record["accuracy"] if part["split"] == pair["split"])
                scores.append(columns(accuracy, folder))
            else:  # random weights: speed alone is compared
                assert not record["accuracy"] and not pair["differences"]
        for metric, stored in pair["differences"].items():
            check_difference(tally, f"{where} {metric}", metric, stored, *scores)
            families[metric].append(stored)
        if pair["same_answers"]:
            same = int(np.sum(scores[0]["prediction"] == scores[1]["prediction"]))
            tally.compare("equal answers", where, pair["same_answers"]["count"], same)
        for stored in pair["ratios"]:
            column = tuple(stored[name] for name in ("scenario", "load", "batch_size", "figure"))
            check_ratio(tally, f"{where} {column}", stored, a[0], b[0])
            families[column].append(stored)
    for name, cells in families.items():
        check_holm(tally, str(name), cells)
