"""What quantization did to a row's answers, as pictures: the differences to the baseline, which answers changed, and where."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from harness.measure.paired import PairedTest
from harness.records.schema import Accuracy, Record
from harness.records.scores import ScoreStore
from harness.report.bars import Part, parts
from harness.report.columns import min_accuracy, p_text
from harness.report.compare import Comparison, accuracy_of, same_examples
from harness.report.plots import steps
from harness.report.strips import Line, Strips, strips
from tasks import Scores
from tasks.titles import metric_title

Array = np.ndarray[Any, Any]

BINS = 25
"""Of the histogram of how far scores moved; an odd number, so that one of them is about no move."""

SWARM, HISTOGRAM = 150, 96
"""Heights in pixels of the picture by article and of the histogram."""

NOMINAL = 460.0
"""Width in pixels for which articles are kept apart."""


@dataclass(frozen=True)
class Changes:
    """Which answers changed. whole: all examples. changed: those that did, larger. remark: of answers that are exactly right."""

    whole: tuple[Part, ...]
    changed: tuple[Part, ...]
    words: str
    remark: str


@dataclass(frozen=True)
class Shifts:
    """How far scores moved. bars: (x, width, y, height, what it holds), along the line in percent, upwards in pixels. zero: where no move stands. ticks: as of
    `Strips`."""

    bars: tuple[tuple[float, float, float, float, str], ...]
    zero: float
    ticks: tuple[tuple[float, str, str], ...]
    words: str
    height: int = HISTOGRAM


@dataclass(frozen=True)
class Article:
    """x in percent, y and radius in pixels. kind: `up` or `down`, or `same`."""

    x: float
    y: float
    radius: float
    kind: str
    title: str


@dataclass(frozen=True)
class Articles:
    dots: tuple[Article, ...]
    zero: float
    ticks: tuple[tuple[float, str, str], ...]
    words: str
    height: int = SWARM


@dataclass(frozen=True)
class AccuracyPicture:
    """base: what the baseline is called. words: the figures and tests in words. unknown: why there is no picture of the answers; empty where there is one."""

    split: str
    base: str
    differences: Strips | None
    words: tuple[str, ...]
    changes: Changes | None
    shifts: Shifts | None
    articles: Articles | None
    unknown: str


def accuracy_picture(
    record: Record, comparison: Comparison, split: str, stored: ScoreStore | None, *, kind: str, base_name: str
) -> AccuracyPicture | None:
    """Of the comparison with the baseline; None without one. kind: of the row's method."""
    base = comparison.base
    mine = accuracy_of(record, split)
    theirs = accuracy_of(base, split) if base else None
    if base is None or base.record_id == record.record_id or mine is None or theirs is None:
        return None
    if not comparison.differences:
        return None
    if stored:
        form = _form()
        answers = stored.once("answers", [record, base], split, lambda: _answers(record, base, split, stored), form)
    else:
        answers = _Answers(unknown=_why_unknown(stored=False))
    return AccuracyPicture(
        split=split,
        base=base_name,
        differences=_differences(record, mine, theirs, comparison, kind),
        words=tuple(_words(mine, theirs, comparison)),
        changes=answers.changes,
        shifts=answers.shifts,
        articles=answers.articles,
        unknown=answers.unknown,
    )


@dataclass(frozen=True)
class _Answers:
    """What the scores of the two give, as in `AccuracyPicture`."""

    unknown: str
    changes: Changes | None = None
    shifts: Shifts | None = None
    articles: Articles | None = None


@cache
def _form() -> TypeAdapter[_Answers]:
    return TypeAdapter(_Answers)


def _answers(record: Record, base: Record, split: str, stored: ScoreStore) -> _Answers:
    mine, theirs = stored.scores(record, split), stored.scores(base, split)
    if not (mine and theirs and same_examples(mine, theirs)):
        return _Answers(_why_unknown(stored=False))
    part = accuracy_of(record, split)
    columns = _columns(mine, theirs, part.primary if part else "")
    if not columns:
        return _Answers(_why_unknown(stored=True))
    a, b, what = columns
    moved = what == "score"
    return _Answers(
        "",
        changes=None if moved else _changes((mine, theirs), columns),
        shifts=_shifts(a, b) if moved else None,
        articles=_articles(mine, theirs, a, b) if mine.groups is not None else None,
    )


def _why_unknown(*, stored: bool) -> str:
    return (
        "Which answers changed is not shown: this metric is of all examples together."
        if stored
        else "Which answers changed is not known: per-example scores are not kept for both."
    )


def _title(name: str) -> str:
    title = metric_title(name)
    return title[:1].upper() + title[1:]


def _differences(record: Record, mine: Accuracy, theirs: Accuracy, comparison: Comparison, kind: str) -> Strips | None:
    lines = []
    for name in _primary_first(mine, comparison):
        test = comparison.differences[name]
        rules = [(0.0, "zero")]
        if name == mine.primary and theirs.metrics[name].value > 0:
            rules.append((theirs.metrics[name].value * (min_accuracy(record) - 1), "limit"))
        lines.append(
            Line(
                _title(name),
                _signed(test.value),
                _range(test),
                test.value,
                test.low,
                test.high,
                kind,
                rules=rules,
            )
        )
    return strips(lines, "interval", include=(0.0,))


def _primary_first(mine: Accuracy, comparison: Comparison) -> list[str]:
    return sorted(comparison.differences, key=lambda name: name != mine.primary)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _range(test: PairedTest) -> str:
    return "" if test.low is None or test.high is None else f"{_signed(test.low)} to {_signed(test.high)}"


def _words(mine: Accuracy, theirs: Accuracy, comparison: Comparison) -> Iterable[str]:
    for name in _primary_first(mine, comparison):
        test = comparison.differences[name]
        corrected = name == mine.primary and comparison.corrected is not None
        p = p_text(comparison.corrected if corrected else test.p)
        tested = f"{p}{', Holm over its table' if corrected else ', uncorrected'}" if p else test.method
        figures = f"{mine.metrics[name].value:.2f} against {theirs.metrics[name].value:.2f}"
        yield f"{_title(name)} {figures}: {tested}."
    yield f"The same {mine.examples:,} examples for both."


def _columns(mine: Scores, theirs: Scores, primary: str) -> tuple[Array, Array, str] | None:
    """What each example is worth to the two, and what that is: `right` (0 or 1), `credit` (a share) or `score` (any number); None
    where the metric is of all examples together and no answer is stored."""
    statistic = mine.statistics.get(primary)
    for scores in (mine, theirs):
        if primary not in scores.statistics:
            return None
    if statistic and statistic.kind == "mean" and len(statistic.columns) == 1:
        a, b = (np.asarray(scores.per_example[statistic.columns[0]], np.float64) for scores in (mine, theirs))
        whole = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
        return (a, b, "right" if whole else "credit") if a.ndim == 1 else None
    given, other = (scores.per_example.get("predicted") for scores in (mine, theirs))
    label = mine.per_example.get("label")
    if given is None or other is None or label is None or given.ndim != 1:
        return None
    if given.shape != other.shape or given.shape != label.shape:
        return None
    if given.dtype.kind == "f":
        return np.asarray(given, np.float64), np.asarray(other, np.float64), "score"
    return (given == label).astype(np.float64), (other == label).astype(np.float64), "right"


def _changes(pair: tuple[Scores, Scores], columns: tuple[Array, Array, str]) -> Changes:
    """columns: as `_columns` gives them."""
    a, b, what = columns
    better, worse = int((a > b).sum()), int((a < b).sum())
    same, right = len(a) - better - worse, int(((a == b) & (a == 1)).sum())
    names = ("right in both", "wrong in both", "gained", "lost") if what == "right" else ("", "", "better", "worse")
    if what == "right":
        whole = [(right, "same", names[0]), (same - right, "wrong", names[1]), (better + worse, "changed", "changed")]
    else:
        whole = [(same, "same", "as good in both"), (better + worse, "changed", "changed")]
    changed = [(better, "up", names[2]), (worse, "down", names[3])]
    counted = ", ".join(f"{count:,} {name}" for count, _, name in (*whole[:-1], *changed))
    return Changes(_bar(whole), _bar(changed), counted, _exact(*pair, what))


def _bar(counts: Sequence[tuple[int, str, str]]) -> tuple[Part, ...]:
    return parts([(count, kind, f"{count:,} {name}") for count, kind, name in counts])


def _exact(mine: Scores, theirs: Scores, what: str) -> str:
    """Of answers with a share of credit: how many became exactly right, and how many are it no more."""
    a, b = (scores.per_example.get("exact_match") for scores in (mine, theirs))
    if what != "credit" or a is None or b is None:
        return ""
    return f"Exactly right answers: {int((a > b).sum()):,} gained, {int((a < b).sum()):,} lost."


def _shifts(a: Array, b: Array) -> Shifts | None:
    """The scores of the row less the baseline's, in bins of equal width about 0."""
    moves = a - b
    most = float(np.abs(moves).max()) if len(moves) else 0.0
    if not most:
        return None
    reach = min(most, 1.5 * float(np.quantile(np.abs(moves), 0.99)) or most)
    inside = np.clip(moves, -reach, reach)
    counts, edges = np.histogram(inside, bins=BINS, range=(-reach, reach))
    width = round(100 / BINS, 2)
    bars = []
    for place, (count, low, high) in enumerate(zip(counts.tolist(), edges[:-1], edges[1:], strict=True)):
        height = round(HISTOGRAM * count / counts.max(), 1)
        if count:
            x = round(100 * place / BINS, 2)
            bars.append((x, width, round(HISTOGRAM - height, 1), height, _bin_words(count, low, high)))
    shown = [-reach, 0.0, reach]
    ticks = tuple(
        (x, _signed_short(value), anchor)
        for x, value, anchor in zip((0.0, 50.0, 100.0), shown, ("start", "middle", "end"), strict=True)
    )
    half = statistics.median(np.abs(moves).tolist())
    beyond = int((np.abs(moves) > reach).sum())
    ends = f" The outermost bars hold {beyond} that moved further." if beyond else ""
    return Shifts(
        tuple(bars),
        50.0,
        ticks,
        f"Half of the {len(moves):,} scores moved by less than {half:.3g}, the furthest by {most:.3g}.{ends}",
    )


def _bin_words(count: int, low: float, high: float) -> str:
    return f"{_signed_short(low)} to {_signed_short(high)}: {count:,}"


def _signed_short(value: float) -> str:
    return f"{value:+.2g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _articles(mine: Scores, theirs: Scores, a: Array, b: Array) -> Articles | None:
    """The mean change of each article in points; the area of a dot is its number of examples."""
    groups = np.unique(np.asarray(mine.groups), return_inverse=True)[1]
    sizes = np.bincount(groups)
    points = 100 * np.bincount(groups, a - b) / sizes
    points[np.abs(points) < 1e-9] = 0.0
    least, most = min(0.0, float(points.min())), max(0.0, float(points.max()))
    if least == most:
        return None
    pad = 0.08 * (most - least)

    def x(value: float) -> float:
        return round(100 * (value - least + pad) / (most - least + 2 * pad), 1)

    dots: list[Article] = []
    for place in np.argsort(points, kind="stable").tolist():
        value, size = float(points[place]), int(sizes[place])
        radius = round(3.0 + 4.5 * (size / int(sizes.max())) ** 0.5, 1)
        kind = "up" if value > 0 else "down" if value < 0 else "same"
        y = _free(dots, x(value), radius)
        dots.append(Article(x(value), y, radius, kind, f"{_signed(value)} points, {size:,} examples"))
    lose, gain = int((points < 0).sum()), int((points > 0).sum())
    ticks = tuple((x(value), _signed_short(value), "middle") for value in steps(least, most, 6))
    return Articles(tuple(dots), x(0.0), ticks, f"{lose} of {len(points)} lose, {gain} gain")


def _free(dots: Sequence[Article], x: float, radius: float) -> float:
    """The height nearest to the middle at which a dot stands on no other."""
    near = [(dot, abs(dot.x - x) * NOMINAL / 100) for dot in dots]
    near = [(dot, apart) for dot, apart in near if apart < dot.radius + radius]
    middle = SWARM / 2
    for step in range(0, int(middle), 2):
        for y in (middle - step, middle + step):
            if all((dot.y - y) ** 2 + apart**2 >= (dot.radius + radius) ** 2 for dot, apart in near):
                return round(y, 1)
    return middle
