"""What the page of a task and model on one machine shows: the method to ship, the limits, the chart, the table, and what its
script needs to pick under other limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from harness.measure.nights import Spread
from harness.records.schema import Record
from harness.report.boards import page_name
from harness.report.comparability import NOT_SCORED
from harness.report.leaderboards import Leaderboard
from harness.report.pages import suite_page_name, uncommitted_remarks
from harness.report.pick import Limits, Pick
from harness.report.rounded import rounded
from harness.report.task_chart import TaskChart, task_charts
from harness.report.task_rows import MethodRow, Shown, method_rows, shown_share
from harness.report.task_script import answer_words, method_data, script_data


@dataclass(frozen=True)
class Answer:
    """The card that names the pick. eyebrow: where to ship this, or why there is none. figures: (figure, what it is, interval)."""

    found: bool
    eyebrow: str
    title: str
    why: str
    figures: tuple[tuple[str, str, str], ...]
    tied: str
    close: str
    command: str


@dataclass(frozen=True)
class MachineLink:
    title: str
    page: str
    here: bool


@dataclass(frozen=True)
class AccuracyOnly:
    title: str
    page: str
    kept: Shown


@dataclass(frozen=True)
class TaskPage:
    """limits: (option, label, unit) of those that may be given besides the share kept. data: JSON for the page's script."""

    title: str
    model: str
    metric: str
    heading: str
    baseline: str
    lede: str
    sample: bool
    machines: tuple[MachineLink, ...]
    answer: Answer
    keep: str
    limits: tuple[tuple[str, str, str], ...]
    charts: tuple[TaskChart, ...]
    facts: tuple[str, ...]
    rows: tuple[MethodRow, ...]
    show_p90: bool
    show_size: bool
    accuracy_only: tuple[AccuracyOnly, ...]
    unmeasured: tuple[tuple[str, str], ...]
    suites: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]
    compare: str
    history: str
    csv: str
    json_file: str
    parquet: str
    data: str


LIMITS = (
    ("p90", "p90", "ms"),
    ("p99", "p99", "ms"),
    ("size", "size", "MiB"),
    ("memory", "memory", "MiB"),
)


def task_page(
    board: Leaderboard, group: Sequence[Leaderboard], uncommitted: AbstractSet[str], history: str = ""
) -> TaskPage:
    """group: the same subject on all machines. uncommitted: ids of records with an ancestor from a checkout with uncommitted
    changes. history: the page of its nights; empty where there is one night."""
    choice = board.choose()
    subject = board.subject
    rows = tuple(method_rows(board, choice))
    sizes = {row.size.text for row in rows}
    suites = dict.fromkeys((entry.contest.board.suite, entry.record.suite_title) for entry in board.entries)
    baseline = next((entry.name.title for entry in board.entries if entry.name.kind == "baseline"), "the baseline")
    return TaskPage(
        title=subject.title,
        model=subject.model,
        metric=subject.metric,
        heading=subject.metric[:1].upper() + subject.metric[1:],
        baseline=baseline,
        lede=f"{len(rows)} methods" + ("" if len(group) > 1 else f" on {board.machine.title}"),
        sample=subject.sample,
        machines=machine_links(board, group),
        answer=_answer(board, choice, baseline),
        keep=f"{100 * Limits().keep:g}",
        limits=LIMITS,
        charts=task_charts(board, choice),
        facts=tuple(_facts(board, rows)),
        rows=rows,
        show_p90=any(row.p90.text for row in rows),
        show_size=len(sizes - {""}) > 1,
        accuracy_only=tuple(
            AccuracyOnly(item.title, page_name(item.record), shown_share(item.kept)) for item in board.simulated
        ),
        unmeasured=unmeasured_methods(board),
        suites=tuple((title, suite_page_name(suite, subject.sample)) for suite, title in suites),
        notes=tuple(_notes(board, uncommitted)),
        compare=board.compare_page,
        history=history,
        csv=board.page.replace(".html", ".csv"),
        json_file=board.page.replace(".html", ".json"),
        parquet=board.page.replace(".html", ".parquet"),
        data=script_data(board, baseline),
    )


def machine_links(board: Leaderboard, group: Sequence[Leaderboard]) -> tuple[MachineLink, ...]:
    return tuple(MachineLink(other.machine.title, other.page, other is board) for other in group)


def unmeasured_methods(board: Leaderboard) -> tuple[tuple[str, str], ...]:
    """(what, why)."""
    return tuple((f"{record.label} of {record.model}", _why_unmeasured(record)) for record in board.unmeasured)


def _answer(board: Leaderboard, choice: Pick, baseline: str) -> Answer:
    ship = choice.ship
    none = Answer(False, "Nothing fits", "No method meets your limits", "", (), "", "", "")
    if not board.is_contested:
        timed = any(method.speed_up for method in board.methods)
        title = "Only the baseline has a valid speed" if timed else "No method was timed here"
        return replace(none, eyebrow="No pick", title=title)
    if ship is None:
        return replace(none, why=f"Loosen a limit. {choice.loosen}")
    words = answer_words(board)
    count = sum(1 for _ in board.methods) - len(choice.outside)
    key = "tied" if choice.tied else "baseline" if ship.speed_up and ship.speed_up.value <= 1 else "fastest"
    data = method_data(board)[board.methods.index(ship)]
    low = ship.kept.low if ship.kept else None
    least = (
        f"may keep only {rounded(100 * low, 2, 100 * Limits().keep)}%"
        if low is not None
        else "its accuracy has no interval"
    )
    surely = f"; {board.entry_of(choice.surely).name.short} surely keeps enough" if choice.surely else ""
    return Answer(
        found=True,
        eyebrow=words["ship"],
        title=board.entry_of(ship).name.title,
        why=words[key].format(n=count),
        figures=(
            (str(data["speed_text"]), f"{baseline}'s throughput", str(data["speed_interval"])),
            (str(data["kept_text"]), f"of its {board.subject.metric} kept", str(data["kept_interval"])),
            (str(data["size_text"]), "on disk", ""),
        ),
        tied="; ".join(str(method_data(board)[board.methods.index(method)]["tie_text"]) for method in choice.tied),
        close=f"{least}{surely}" if choice.close_call else "",
        command=str(data["command"]),
    )


def _facts(board: Leaderboard, rows: Sequence[MethodRow]) -> Iterable[str]:
    """The caveats in a few words; the notes at the foot say more."""
    if board.subject.data != "official":
        yield f"data: {board.subject.data}"
    if any(row.speed.imprecise for row in rows):
        yield "dotted: imprecise"
    if any(entry.foreign for entry in board.entries):
        yield "rows of several suites"


def _between_words(between: Spread) -> str:
    if not between.freedom:
        return "How runs differ is not known here, since no cell was measured twice; the intervals lack it."
    deviation = 100 * math.sqrt(between.variance)
    return (
        f"Speed-ups of one cell differ between runs by {deviation:.1f}% (standard deviation); the intervals include it."
    )


def _why_unmeasured(record: Record) -> str:
    return f"{record.status}: {record.reason or NOT_SCORED}" + (f". Fix: {record.remedy}" if record.remedy else "")


def _notes(board: Leaderboard, uncommitted: AbstractSet[str]) -> Iterable[tuple[str, str]]:
    main = board.main.board
    sizes = f" {main.split_sizes}." if main.split_sizes else ""
    yield "Data", f"{main.data}.{sizes} Kept is relative to the baseline that each row's suite trained or loaded."
    yield (
        "Speed-ups",
        "are of samples a second at real lengths and the largest batch. Interleaved: both ran the same batches alternately"
        " in fresh processes. A dotted line marks a figure whose interval is wider than its suite asks for; that is"
        " uncertainty, nothing is wrong with it. p90 and p99 are of one query at a time.",
    )
    yield (
        "The pick",
        "is the fastest method within the limits, with those within 5% of it that a paired test cannot tell from it; of"
        " these the one that keeps most, then the simplest to make. quantboard pick names the same.",
    )
    if any(entry.foreign for entry in board.entries):
        others = dict.fromkeys(entry.contest.board.suite for entry in board.entries if entry.foreign)
        yield (
            "Several suites",
            f"ran here. Rows of {', '.join(others)} are compared with the baseline of their own run; between runs no speed is"
            f" tested, which counts as a tie. {_between_words(board.between)} Of a method that two suites have, the suite counts"
            " that timed more engines.",
        )
    if any(len(entry.rows) > 1 for entry in board.entries):
        yield (
            "Seeds.",
            "A row of several seeds shows the median; its intervals reach from the lowest to the highest end.",
        )
    yield from origin_notes(board, uncommitted)


def origin_notes(board: Leaderboard, uncommitted: AbstractSet[str]) -> Iterable[tuple[str, str]]:
    """Where its records come from, as far as a reader must know. uncommitted: as of `task_page`."""
    remarks = dict.fromkeys(
        sentence for entry in board.entries for _, sentence in uncommitted_remarks(entry.record, uncommitted)
    )
    if remarks:
        yield "Provenance.", " ".join(remarks)
    yield "Machine.", f"{board.machine.identity}."
