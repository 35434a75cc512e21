"""What the page of a model of random weights shows on one machine: how fast each method is. There is no accuracy, hence no pick."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from harness.report.comparability import NO_ACCURACY
from harness.report.leaderboards import Leaderboard
from harness.report.pages import suite_page_name
from harness.report.shown_speed import throughput_of
from harness.report.task_page import MachineLink, machine_links, origin_notes, unmeasured_methods
from harness.report.task_rows import MethodRow, method_rows


@dataclass(frozen=True)
class SpeedOnlyPage:
    """eyebrow: why there is no pick. notes: (name, text)."""

    title: str
    model: str
    eyebrow: str
    lede: str
    sample: bool
    machines: tuple[MachineLink, ...]
    rows: tuple[MethodRow, ...]
    show_p90: bool
    unmeasured: tuple[tuple[str, str], ...]
    suites: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]
    csv: str
    json_file: str
    parquet: str


def speed_only_page(board: Leaderboard, group: Sequence[Leaderboard], uncommitted: AbstractSet[str]) -> SpeedOnlyPage:
    """As `task_page`."""
    subject, rows = board.subject, tuple(method_rows(board, board.choose()))
    suites = dict.fromkeys((entry.contest.board.suite, entry.record.suite_title) for entry in board.entries)
    return SpeedOnlyPage(
        title=subject.title,
        model=subject.model,
        eyebrow=NO_ACCURACY,
        lede=f"{len(rows)} methods on {board.machine.title}, {_work(board)}",
        sample=subject.sample,
        machines=machine_links(board, group),
        rows=rows,
        show_p90=any(row.p90.text for row in rows),
        unmeasured=unmeasured_methods(board),
        suites=tuple((title, suite_page_name(suite, subject.sample)) for suite, title in suites),
        notes=tuple(_notes(board, uncommitted)),
        csv=board.page.replace(".html", ".csv"),
        json_file=board.page.replace(".html", ".json"),
        parquet=board.page.replace(".html", ".parquet"),
    )


def _work(board: Leaderboard) -> str:
    """The model's sizes and what it was given, in words."""
    record = board.main.baseline
    sizes = record.checkpoint.architecture if record.checkpoint else {}
    words = [f"{sizes['num_hidden_layers']} layers of width {sizes['hidden_size']}"] if sizes else []
    if speed := throughput_of(record):
        lengths = f"sequences of {speed.sequence_length} tokens"
        if speed.load == "real":
            lengths = f"the task's own lengths, at most {speed.sequence_length} tokens"
        words += [lengths, f"batches of {speed.batch_size}"]
    return ", ".join(words)


def _notes(board: Leaderboard, uncommitted: AbstractSet[str]) -> Iterable[tuple[str, str]]:
    yield (
        "Random weights",
        "take the same time as trained ones of the same sizes; what they answer means nothing, so nothing here says which method"
        " to ship.",
    )
    yield (
        "Speed-ups",
        "are of samples a second at the largest batch. Interleaved: both ran the same batches alternately in fresh processes. A"
        " dotted line marks a figure whose interval is wider than its suite asks for. p90 is of one query at a time.",
    )
    yield from origin_notes(board, uncommitted)
