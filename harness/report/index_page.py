"""What the index shows: of each task and model the method to ship on each machine, then the suites behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.records.schema import Record
from harness.report.boards import Board
from harness.report.leaderboards import Leaderboard, Subject, leaderboard_machines
from harness.report.machines import Machine
from harness.report.names import Name
from harness.report.pages import SuiteSummary, not_measured, suite_summaries
from harness.report.pick import Limits, Pick, Ratio
from harness.report.plots import SHAPES, Mark, Scale, drawn

SPARK = (326.0, 70.0)
"""Width and height of a card's chart, in pixels of a card at its usual width."""

KEPT_RANGE = (0.98, 1.01)
"""Shares kept at the bottom and the top of a card's chart; what lies outside stands at the edge."""


@dataclass(frozen=True)
class MachinePick:
    """A line of a card. none: why there is no pick; empty where there is one."""

    machine: str
    machine_title: str
    page: str
    none: str = ""
    short: str = ""
    title: str = ""
    kind: str = ""
    shape: str = ""
    speed: str = ""
    speed_interval: str = ""
    kept: str = ""
    kept_interval: str = ""
    close_call: bool = False


@dataclass(frozen=True)
class Spark:
    """frontiers: a path, and whether it is not the first machine's. limit, bottom: heights of the limit and of the axis."""

    marks: tuple[Mark, ...]
    frontiers: tuple[tuple[str, bool], ...]
    limit: float
    bottom: float
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Card:
    title: str
    model: str
    page: str
    state: str
    sample: bool
    baseline: str
    spark: Spark | None
    picks: tuple[MachinePick, ...]


@dataclass(frozen=True)
class Headline:
    """The first pick in figures."""

    speed: str
    kept: str
    metric: str
    what: str


@dataclass(frozen=True)
class IndexPage:
    """keep: the share that a pick must keep, in percent. not_measured: backends that no cell could run."""

    headline: Headline | None
    cards: tuple[Card, ...]
    kinds: tuple[tuple[str, str, str], ...]
    keep: str
    updated: str
    suites: tuple[SuiteSummary, ...]
    not_measured: tuple[str, ...]


KINDS = (
    ("baseline", "the baseline"),
    ("float", "not quantized"),
    ("static", "INT8, calibrated"),
    ("dynamic", "INT8, dynamic"),
    ("trained", "trained: QAT or another model"),
)


def index_page(
    records: Sequence[Record], boards: Sequence[Board], subjects: Mapping[Subject, Sequence[Leaderboard]]
) -> IndexPage:
    everywhere = leaderboard_machines(subjects)
    speeds = [
        m.speed_up.value for group in subjects.values() for board in group for m in drawn(board.methods) if m.speed_up
    ]
    fastest = max([2.0, *speeds])
    cards = [_card(subject, group, everywhere, fastest) for subject, group in subjects.items()]
    return IndexPage(
        headline=_headline(subjects),
        cards=tuple(cards),
        kinds=tuple((kind, SHAPES[kind], text) for kind, text in KINDS),
        keep=f"{100 * Limits().keep:g}%",
        updated=max((record.finished[:10] for record in records), default=""),
        suites=tuple(suite_summaries(records, boards)),
        not_measured=tuple(not_measured(records)),
    )


def _headline(subjects: Mapping[Subject, Sequence[Leaderboard]]) -> Headline | None:
    """Of the first card that has a pick besides its baseline; real data only."""
    for subject, group in subjects.items():
        for board in group:
            ship = board.choose().ship
            if (
                ship
                and ship.kept
                and ship.speed_up
                and ship.speed_up.value > 1
                and not (subject.sample or subject.limit)
            ):
                entry = board.entry_of(ship)
                where = f"{entry.name.title} on {subject.title}, {board.machine.title}"
                return Headline(_times(ship.speed_up), _percent(ship.kept), subject.metric, where)
    return None


def _card(subject: Subject, group: Sequence[Leaderboard], everywhere: Sequence[Machine], fastest: float) -> Card:
    picks = [(board, board.choose()) for board in group]
    lines = {board.machine: _line(board, choice) for board, choice in picks}
    figures = [_baseline_figure(board) for board in group]
    limited = f"{subject.limit:,} examples" if subject.limit else ""
    if not subject.sample and not subject.limit:
        for machine in everywhere:
            lines.setdefault(machine, MachinePick(machine.short, machine.title, "", none="not run here"))
    return Card(
        title=subject.title,
        model=subject.model,
        page=group[0].page,
        state=limited or subject.data,
        sample=subject.sample or subject.limit is not None,
        baseline=f"baseline's {subject.metric} {' · '.join(dict.fromkeys(figures))}",
        spark=_spark(picks, everywhere, fastest),
        picks=tuple(lines[machine] for machine in everywhere if machine in lines),
    )


def _baseline_figure(board: Leaderboard) -> str:
    part = next(part for part in board.main.baseline.accuracy if part.split == board.subject.split)
    return f"{part.metrics[part.primary].value:.2f}"


def _line(board: Leaderboard, choice: Pick) -> MachinePick:
    place = (board.machine.short, board.machine.title, board.page)
    if not board.is_contested:
        timed = any(entry.record.speed or entry.record.turns for entry in board.entries)
        return MachinePick(*place, none="no valid speed but the baseline's" if timed else "scored, not timed")
    ship = choice.ship
    if ship is None or ship.kept is None or ship.speed_up is None:
        return MachinePick(*place, none=f"nothing keeps {100 * Limits().keep:g}%")
    name: Name = board.entry_of(ship).name
    return MachinePick(
        *place,
        short=name.short,
        title=name.title,
        kind=name.kind,
        shape=SHAPES[name.kind],
        speed=_times(ship.speed_up),
        speed_interval=_interval(ship.speed_up, 1, ".2f"),
        kept=_percent(ship.kept),
        kept_interval=_interval(ship.kept, 100, ".2f"),
        close_call=choice.close_call,
    )


def _spark(picks: Sequence[tuple[Leaderboard, Pick]], everywhere: Sequence[Machine], fastest: float) -> Spark | None:
    width, height = SPARK
    scale = Scale(8, width - 8, 6, height - 6, 0.75, fastest + 0.15, *KEPT_RANGE)
    marks, frontiers = list[Mark](), list[tuple[str, bool]]()
    for board, choice in picks:
        if not board.is_contested:
            continue
        number = min(everywhere.index(board.machine), 1)
        frontiers.append((scale.path(board.methods), number > 0))
        ordered = sorted(drawn(board.methods), key=lambda method: method is choice.ship)
        for method in ordered:
            assert method.kept and method.speed_up
            name, kept = board.entry_of(method).name, method.kept.value
            what = f"{name.title}, {board.machine.title}: {_times(method.speed_up)}, {_percent(method.kept)}"
            clamped = 1 if kept < KEPT_RANGE[0] else -1 if kept > KEPT_RANGE[1] else 0
            at = scale.x(method.speed_up.value), scale.y(kept)
            marks.append(Mark(*at, name.kind, SHAPES[name.kind], what, number, method is choice.ship, clamped))
    if not marks:
        return None
    ticks = tuple((scale.x(value), f"{value}×") for value in range(1, int(fastest + 0.15) + 1))
    return Spark(tuple(marks), tuple(frontiers), scale.y(Limits().keep), height, ticks)


def _times(ratio: Ratio) -> str:
    return f"{ratio.value:.2f}×"


def _percent(ratio: Ratio) -> str:
    return f"{100 * ratio.value:.2f}%"


def _interval(ratio: Ratio, times: float, form: str) -> str:
    if ratio.low is None or ratio.high is None:
        return "no interval"
    if ratio.low == ratio.high:
        return ""
    return f"{times * ratio.low:{form}}–{times * ratio.high:{form}}"
