"""What the terminal shows of a pick, at most 80 columns wide: the answer in three lines, the table, the notes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.cli.method_table import (
    RANGES,
    WIDTH,
    Notes,
    asked,
    how_timed,
    mebibytes,
    percent,
    table,
    three_digits,
    times,
    titles_of,
    verdicts,
    words,
)

if TYPE_CHECKING:
    from harness.report.methods import Contest
    from harness.report.pick import Limits, Pick, Ratio


def place_lines(contest: Contest) -> list[str]:
    """Where a pick is made: task, model, suite, machine."""
    board = contest.board
    split = f" {board.split}" if board.split not in ("", "validation") else ""
    return _wrapped(f"{board.task}{split}, {contest.model} ({board.suite})", board.machine)


def answer_lines(contest: Contest, choice: Pick, limits: Limits, take: str | None = None) -> list[str]:
    """The answer: what to ship, what ties with it or how sure it is, and how to take it. take: the command that exports it."""
    from harness.report.rounded import rounded

    titles = titles_of(contest.methods)
    base = next((titles[m.name] for m in contest.methods if m.name == contest.baseline_name), "the baseline")
    if choice.ship is None:
        return _wrapped(f"Nothing holds the limits. {choice.loosen}".rstrip())
    ship = choice.ship
    parts = [f"{times(ship.speed_up)} {base}{_bracket(ship.speed_up)}"]
    parts.append(f"keeps {percent(ship.kept)}% of its {words(contest.metric)}{_bracket(ship.kept, 100)}")
    parts += [f"p90 {ship.p90_ms:.1f} ms"] if ship.p90_ms else []
    parts += [f"{mebibytes(ship.size_mib)} MiB"] if ship.size_mib else []
    lines = [f"Ship {titles[ship.name]}: {', '.join(parts)}."]
    if choice.close_call:
        low = ship.kept.low if ship.kept else None
        certain = f"it keeps {rounded(100 * low, 1, 100 * limits.keep)}%" if low is not None else "nothing is known"
        safe = "No method surely does."
        if choice.surely:
            safe = f"{titles[choice.surely.name]} ({times(choice.surely.speed_up)}) surely does."
        lines.append(f"Close call: with 95% certainty {certain}, below your {100 * limits.keep:g}%. {safe}")
    if choice.tied:
        tied = (f"{titles[method.name]} ({times(method.speed_up)})" for method in choice.tied)
        lines.append(f"Tied on speed with {', '.join(tied)}.")
    lines += [f"Take it: {take}"] if take else []
    return _wrapped(*lines)


def table_lines(contest: Contest, choice: Pick, limits: Limits, more: Sequence[str] = ()) -> list[str]:
    """All methods, the fastest first, and the notes below them. more: notes of the caller's."""
    titles = titles_of(contest.methods)
    notes = Notes([RANGES, *how_timed(contest), asked(limits)])
    verdict = verdicts(contest, choice, notes)
    failed = [record for record in contest.board.unmeasured if record.status == "failed"]
    for note in (*(f"{one.label} failed: {' '.join(one.reason.split())[:200]}" for one in failed), *more):
        notes.add(note)
    memory = limits.memory_mib is not None
    rows = table(contest.methods, contest.metric, verdict, titles, memory=memory)
    return [*rows, "", *notes.lines()]


def _bracket(ratio: Ratio | None, factor: float = 1) -> str:
    if ratio is None or ratio.low is None or ratio.high is None or ratio.low == ratio.high:
        return ""
    ends = (f"{factor * end:.1f}" if factor > 1 else three_digits(end) for end in (ratio.low, ratio.high))
    return f" [{', '.join(ends)}]"


def _wrapped(*lines: str) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, WIDTH, break_on_hyphens=False)]
