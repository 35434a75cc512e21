"""What the page History of a leaderboard shows: each of its methods night by night."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.records.figure import Figure
from harness.report.boards import page_name
from harness.report.gate import Limits
from harness.report.history import History, NightPoint, level_change
from harness.report.history_chart import HistoryChart, history_charts
from harness.report.leaderboards import Leaderboard
from harness.report.plots import SHAPES
from harness.report.tables import Badge

MOST = 90
"""How many nights a page shows, the newest."""


@dataclass(frozen=True)
class NightRow:
    """changes: (kind, what changed). level: the level of the speed-up changes here."""

    date: str
    page: str
    verdict: Badge
    speed: str
    interval: str
    against: str
    metric: str
    p90: str
    changes: tuple[tuple[str, str], ...]
    level: bool


@dataclass(frozen=True)
class MethodHistory:
    """anchor: of its part of the page. latest: (figure, what it is, interval). others: charts of its accuracy and latency."""

    anchor: str
    title: str
    kind: str
    shape: str
    verdict: Badge
    page: str
    latest: tuple[tuple[str, str, str], ...]
    charts: tuple[HistoryChart, ...]
    others: tuple[tuple[HistoryChart, ...], ...]
    rows: tuple[NightRow, ...]
    count: int


@dataclass(frozen=True)
class HistoryPage:
    """history: the page itself. strip: (figure, what it is) of the newest night. methods: those that failed last first, then the fastest."""

    title: str
    model: str
    machine: str
    metric: str
    sample: bool
    task_page: str
    compare: str
    history: str
    strip: tuple[tuple[str, str], ...]
    methods: tuple[MethodHistory, ...]
    most: int
    max_slowdown: str

    @property
    def has_charts(self) -> bool:
        return any(method.charts for method in self.methods)


VERDICTS = {"pass": "ok", "slower": "failed", "failed": "failed"}


def history_page(board: Leaderboard, histories: Sequence[History]) -> HistoryPage:
    """histories: of the leaderboard's methods, at least one."""
    baseline = next((entry.name.short for entry in board.entries if entry.name.kind == "baseline"), "the baseline")
    methods = [_method(history, board, baseline) for history in histories]
    return HistoryPage(
        title=board.subject.title,
        model=board.subject.model,
        machine=board.machine.title,
        metric=board.subject.metric,
        sample=board.subject.sample,
        task_page=board.page,
        compare=board.compare_page,
        history=board.history_page,
        strip=tuple(_strip(histories)),
        methods=tuple(sorted(methods, key=lambda method: method.verdict.kind != "failed")),
        most=MOST,
        max_slowdown=f"{100 * Limits().max_slowdown:g}%",
    )


def _strip(histories: Sequence[History]) -> Iterable[tuple[str, str]]:
    newest = max(history.points[-1].record.finished for history in histories)
    tonight = [
        history.points[-1].what for history in histories if history.points[-1].record.finished[:10] == newest[:10]
    ]
    judged = [what for what in tonight if what in VERDICTS]
    good = sum(what == "pass" for what in judged)
    yield f"{good} of {len(judged)} pass" if judged else "not judged", f"last night, {newest[:10]}"
    nights = {point.record.run_id for history in histories for point in history.points}
    yield str(len(nights)), "nights"
    levels = [(history.points[place].date, history, place) for history in histories for place in history.levels]
    if levels:
        date, history, place = max(levels, key=lambda level: level[0])
        yield _percent(level_change(history, place)), f"last change of a level, {date}: {history.entry.name.short}"
    else:
        yield "none", "changes of level"


def _method(history: History, board: Leaderboard, baseline: str) -> MethodHistory:
    hidden = max(len(history.points) - MOST, 0)
    points = history.points[hidden:]
    levels = [(place - hidden, _level_text(history, place)) for place in history.levels if place >= hidden]
    name, last = history.entry.name, history.points[-1]
    metric, speed = board.subject.metric, [point.speed for point in points]
    gate = [max(point.below, default=None) for point in points]
    others = (
        history_charts(points, [point.metric for point in points], f"{metric}, %", "%"),
        history_charts(points, [point.p90 for point in points], "p90, one at a time, ms", ""),
    )
    return MethodHistory(
        anchor=board.anchor_of(history.entry),
        title=name.title,
        kind=name.kind,
        shape=SHAPES[name.kind],
        verdict=_verdict(last),
        page=page_name(history.entry.record),
        latest=tuple(_latest(last, metric, baseline)),
        charts=history_charts(points, speed, f"Speed-up over {baseline}", "×", levels, gate),
        others=tuple(filter(None, others)),
        rows=tuple(_row(point, place, dict(levels)) for place, point in reversed(list(enumerate(points)))),
        count=len(history.points),
    )


def _latest(point: NightPoint, metric: str, baseline: str) -> Iterable[tuple[str, str, str]]:
    for figure, form, unit, what in (
        (point.speed, ".2f", "×", f"{baseline}'s throughput"),
        (point.metric, ".2f", "%", metric),
        (point.p90, ".1f", " ms", "p90, one at a time"),
    ):
        if figure:
            yield f"{figure.value:{form}}{unit}", what, _interval(figure, form)
    if point.below:
        alone, *with_last = (f"{value:.2f}×" for value in point.below)
        by = f"alone {alone}, with the night before {with_last[0]}" if with_last else ""
        yield f"below {max(point.below):.2f}×", "fails the gate", by


def _level_text(history: History, place: int) -> str:
    by = "; ".join(what for kind, what in history.points[place].changes if kind != "commit")
    return f"{_percent(level_change(history, place))}{f', {by[:40]}' if by else ''}"


def _row(point: NightPoint, place: int, levels: dict[int, str]) -> NightRow:
    return NightRow(
        date=point.date,
        page=page_name(point.record),
        verdict=_verdict(point),
        speed=f"{point.speed.value:.2f}×" if point.speed else "",
        interval=_interval(point.speed, ".2f") if point.speed else "",
        against=_percent(point.against.value - 1) if point.against else "",
        metric=f"{point.metric.value:.2f}" if point.metric else "",
        p90=f"{point.p90.value:.1f}" if point.p90 else "",
        changes=point.changes,
        level=place in levels,
    )


def _verdict(point: NightPoint) -> Badge:
    return Badge(VERDICTS.get(point.what, ""), point.what, point.why)


def _interval(figure: Figure, form: str) -> str:
    return "" if figure.low is None or figure.high is None else f"{figure.low:{form}}–{figure.high:{form}}"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}%".replace("-", "−")
