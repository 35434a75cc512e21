"""What the index shows: of each task and model the method to ship on each machine, then the suites behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.report.index_strip import Strip, cost_strip
from harness.report.leaderboards import Subject
from harness.report.listing import ListedSubject, listed
from harness.report.machines import Machine
from harness.report.pages import SuiteSummary
from harness.report.pick import Limits, Ratio
from harness.report.plots import SHAPES, Mark, Scale, drawn
from harness.report.standings import Standing, by_subject

SPARK = (326.0, 70.0)
"""Width and height of a card's chart, in pixels of a card at its usual width."""

KEPT_RANGE = (0.98, 1.01)
"""Shares kept at the bottom and the top of a card's chart; what lies outside stands at the edge."""


MOST_ABSENT = 2
"""Of more machines that a task did not run on, a card says how many."""


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
    uncommitted: bool = False


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
    """machines: (name on a card, what it is). keep: the share that a pick must keep, in percent. speed_only: models of random weights. not_measured: backends that no cell could run."""

    headline: Headline | None
    strip: Strip | None
    cards: tuple[Card, ...]
    kinds: tuple[tuple[str, str, str], ...]
    machines: tuple[tuple[str, str], ...]
    keep: str
    updated: str
    suites: tuple[SuiteSummary, ...]
    speed_only: tuple[ListedSubject, ...]
    not_measured: tuple[str, ...]

    @property
    def has_uncommitted(self) -> bool:
        return any(pick.uncommitted for card in self.cards for pick in card.picks)


KINDS = (
    ("baseline", "the baseline"),
    ("float", "not quantized"),
    ("static", "INT8, calibrated"),
    ("dynamic", "INT8, dynamic"),
    ("trained", "trained: QAT or another model"),
)


def index_page(
    standings: Sequence[Standing], suites: Sequence[SuiteSummary], unmeasured: Sequence[str], updated: str
) -> IndexPage:
    """standings: of all leaderboards, subjects in the order of their cards. unmeasured: backends that no cell could run. updated: the
    day of the newest record."""
    alone = [standing for standing in standings if standing.subject.speed_only]
    standings = [standing for standing in standings if not standing.subject.speed_only]
    subjects = by_subject(standings)
    everywhere = sorted({standing.machine for standing in standings}, key=lambda machine: machine.place)
    speeds = [m.speed_up.value for standing in standings for m in drawn(standing.methods) if m.speed_up]
    fastest = max([2.0, *speeds])
    return IndexPage(
        headline=_headline(subjects),
        strip=cost_strip([board for group in subjects.values() for board in group]),
        cards=tuple(_card(subject, group, everywhere, fastest) for subject, group in subjects.items()),
        kinds=tuple((kind, SHAPES[kind], text) for kind, text in KINDS),
        machines=tuple((machine.short, machine.title) for machine in everywhere),
        keep=f"{100 * Limits().keep:g}%",
        updated=updated,
        suites=tuple(suites),
        speed_only=listed(alone, lambda one: one.page, lambda one: f"{len(one.methods)} methods"),
        not_measured=tuple(unmeasured),
    )


def _headline(subjects: Mapping[Subject, Sequence[Standing]]) -> Headline | None:
    """Of the first card that has a pick besides its baseline; real data and committed code only."""
    for subject, group in subjects.items():
        for board in (board for board in group if not board.uncommitted):
            ship = None if board.ship is None else board.methods[board.ship]
            if (
                ship
                and ship.kept
                and ship.speed_up
                and ship.speed_up.value > 1
                and not (subject.sample or subject.limit)
            ):
                assert board.ship is not None
                where = f"with {board.names[board.ship].title}: {subject.title} on {board.machine.title}"
                return Headline(_times(ship.speed_up), _percent(ship.kept), subject.metric, where)
    return None


def _card(subject: Subject, group: Sequence[Standing], everywhere: Sequence[Machine], fastest: float) -> Card:
    lines = {board.machine: _line(board) for board in group}
    limited = f"{subject.limit:,} examples" if subject.limit else ""
    absent = [] if subject.sample or subject.limit else [machine for machine in everywhere if machine not in lines]
    if few := len(absent) <= MOST_ABSENT:
        lines |= {machine: MachinePick(machine.short, machine.title, "", none="not run here") for machine in absent}
    picks = [lines[machine] for machine in everywhere if machine in lines]
    if not few:
        titles = "; ".join(machine.title for machine in absent)
        picks.append(MachinePick("others", titles, "", none=f"not run on {len(absent)} other machines"))
    return Card(
        title=subject.title,
        model=subject.model,
        page=group[0].page,
        state=limited or subject.data,
        sample=subject.sample or subject.limit is not None,
        baseline=f"baseline's {subject.metric} {_baselines(group)}",
        spark=_spark(group, everywhere, fastest),
        picks=tuple(picks),
    )


def _baselines(group: Sequence[Standing]) -> str:
    """Of all machines; where they differ, each with its machine."""
    known = [board for board in group if board.baseline]
    values = sorted({board.baseline for board in known}, key=float)
    if len(values) > 2:
        return f"{values[0]} to {values[-1]}"
    if len(values) == 2 and len(known) == 2:
        return ", ".join(f"{board.baseline} ({board.machine.short})" for board in known)
    return " or ".join(values)


def _line(board: Standing) -> MachinePick:
    place = (board.machine.short, board.machine.title, board.page)
    if not board.contested:
        return MachinePick(*place, none="no valid speed but the baseline's" if board.timed else "scored, not timed")
    ship = None if board.ship is None else board.methods[board.ship]
    if board.ship is None or ship is None or ship.kept is None or ship.speed_up is None:
        return MachinePick(*place, none=f"nothing keeps {100 * Limits().keep:g}%")
    name = board.names[board.ship]
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
        close_call=board.close_call,
        uncommitted=board.uncommitted,
    )


def _spark(group: Sequence[Standing], everywhere: Sequence[Machine], fastest: float) -> Spark | None:
    width, height = SPARK
    scale = Scale(8, width - 8, 6, height - 6, 0.75, fastest + 0.15, *KEPT_RANGE)
    marks, frontiers = list[Mark](), list[tuple[str, bool]]()
    for board in group:
        if not board.contested:
            continue
        number = min(everywhere.index(board.machine), 1)
        frontiers.append((scale.path(board.methods), number > 0))
        named = [
            (method, name, place == board.ship)
            for place, (method, name) in enumerate(zip(board.methods, board.names, strict=True))
            if method.kept and method.speed_up
        ]
        for method, name, picked in sorted(named, key=lambda item: item[2]):
            assert method.kept and method.speed_up
            kept = method.kept.value
            what = f"{name.title}, {board.machine.title}: {_times(method.speed_up)}, {_percent(method.kept)}"
            clamped = 1 if kept < KEPT_RANGE[0] else -1 if kept > KEPT_RANGE[1] else 0
            at = scale.x(method.speed_up.value), scale.y(kept)
            marks.append(Mark(*at, name.kind, SHAPES[name.kind], what, number, picked, clamped))
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
