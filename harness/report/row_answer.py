"""The first lines of a cell's page: what the method is called, whether to ship it, and its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from harness.report.leaderboards import Entry, Leaderboard, Subject
from harness.report.pick import Pick
from harness.report.tables import Badge
from harness.report.task_rows import MethodRow, method_rows


@dataclass(frozen=True)
class RowAnswer:
    """page: of the leaderboard. figures: (figure, what it is, interval, how imprecise). commands: to export and to rerun it. links: other
    pages about the method: (what, page). compare, history: of the leaderboard."""

    title: str
    page: str
    where: str
    verdict: Badge
    how: str
    figures: tuple[tuple[str, str, str, str], ...]
    links: tuple[tuple[str, str], ...] = ()
    compare: str = ""
    history: str = ""


def row_answers(
    subjects: Mapping[Subject, Sequence[Leaderboard]], with_history: AbstractSet[str] = frozenset()
) -> dict[str, RowAnswer]:
    """By record id, of every cell that stands on a leaderboard; a method of several seeds has one answer. with_history: ids of
    records with a history."""
    found: dict[str, RowAnswer] = {}
    for group in subjects.values():
        for board in group:
            choice = board.choose()
            any_history = any(entry.record.record_id in with_history for entry in board.entries)
            for entry, row in zip(board.entries, method_rows(board, choice), strict=True):
                answer = _answer(board, entry, row, choice)
                answer = replace(answer, history=board.history_page if any_history else "")
                if entry.record.record_id in with_history:
                    history = f"{board.history_page}#{board.anchor_of(entry)}"
                    answer = replace(answer, links=(*answer.links, ("its nights", history)))
                found |= {own.record.record_id: answer for own in entry.rows}
    return found


def _answer(board: Leaderboard, entry: Entry, row: MethodRow, choice: Pick) -> RowAnswer:
    subject = board.subject
    return RowAnswer(
        title=entry.name.title,
        page=board.page,
        where=f"{subject.title} with {subject.model}, {board.machine.title}",
        verdict=row.verdict if board.is_contested or board.subject.speed_only else Badge("", "not in a contest"),
        how=f"{row.how}; {_standing(entry, choice)}" if board.is_contested else row.how,
        figures=tuple(_figures(board, entry, row)),
        links=(("compare it", row.compare),) if row.compare else (),
        compare=board.compare_page,
    )


def _standing(entry: Entry, choice: Pick) -> str:
    if entry.method is choice.ship:
        return (
            "as fast as any within the limits, and keeps most of these" if choice.tied else "the fastest that keeps 99%"
        )
    if entry.method in choice.tied:
        equal = (
            entry.method.kept and choice.ship and choice.ship.kept and entry.method.kept.value == choice.ship.kept.value
        )
        return f"tied for fastest with the pick, which keeps {'as much' if equal else 'more'}"
    return "another method ships"


def _figures(board: Leaderboard, entry: Entry, row: MethodRow) -> Iterable[tuple[str, str, str, str]]:
    seeds = len({own.record.seed for own in entry.rows})
    of_seeds = f", median of {seeds} seeds" if seeds > 1 else ""
    base = next((one for one in board.entries if one.name.kind == "baseline"), None)
    baseline = base.name.short if base else "baseline"
    if row.speed.order is not None:
        yield row.speed.text, f"{baseline}'s throughput", row.speed.interval, row.speed.imprecise
    if row.kept.text:
        yield f"{row.kept.text}%", f"of its {board.subject.metric} kept{of_seeds}", row.kept.interval, ""
    if row.metric.text:
        yield row.metric.text, f"{board.subject.metric}{of_seeds}", row.metric.interval, ""
    if row.p90.text:
        yield f"{row.p90.text} ms", "p90, one at a time", _theirs(entry, base, "p90_ms", "ms"), row.p90.imprecise
    if row.size.text:
        yield f"{row.size.text} MiB", "on disk", _theirs(entry, base, "size_mib", "MiB"), ""


def _theirs(entry: Entry, base: Entry | None, figure: str, unit: str) -> str:
    """The baseline's figure, beside another method's."""
    value = getattr(base.method, figure) if base and base is not entry else None
    return f"{base.name.short}: {value:.1f} {unit}" if base and value else ""
