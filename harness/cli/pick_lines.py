"""What the terminal shows of a pick, at most 80 columns wide: the answer in three lines, the table, the notes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.report.methods import Contest
    from harness.report.pick import Limits, Pick, Ratio

WIDTH = 80
UNTESTED = (
    "A speed-up without a range was not tested: other processes were busy, or too few rounds ran. Run it again on a quiet machine"
    " with more --minutes."
)
_NAME = 18
"""Columns of a method's name, with the blank after it. For longer ones the range of accuracy is left out."""


def place_lines(contest: Contest) -> list[str]:
    """Where a pick is made: task, model, suite, machine."""
    board = contest.board
    split = f" {board.split}" if board.split not in ("", "validation") else ""
    return _wrapped(f"{board.task}{split}, {contest.model} ({board.suite})", board.machine)


def answer_lines(contest: Contest, choice: Pick, limits: Limits, take: str | None = None) -> list[str]:
    """The answer: what to ship, what ties with it or how sure it is, and how to take it. take: the command that exports it."""
    titles = _titles(contest)
    base = next((titles[m.name] for m in contest.methods if m.name == contest.baseline.label), "the baseline")
    if choice.ship is None:
        return _wrapped(f"Nothing holds the limits. {choice.loosen}".rstrip())
    ship = choice.ship
    parts = [f"{_times(ship.speed_up)} {base}{_bracket(ship.speed_up)}"]
    parts.append(f"keeps {_percent(ship.kept)}% of its {_words(contest.metric)}{_bracket(ship.kept, 100)}")
    parts += [f"p90 {ship.p90_ms:.1f} ms"] if ship.p90_ms else []
    parts += [f"{ship.size_mib:.0f} MiB"] if ship.size_mib else []
    lines = [f"Ship {titles[ship.name]}: {', '.join(parts)}."]
    if choice.close_call:
        low = ship.kept.low if ship.kept else None
        certain = f"it keeps {100 * low:.1f}%" if low is not None else "nothing is known"
        safe = "No method surely does."
        if choice.surely:
            safe = f"{titles[choice.surely.name]} ({_times(choice.surely.speed_up)}) is the fastest that surely does."
        lines.append(f"Close call: with 95% certainty {certain}, below your {100 * limits.keep:g}%. {safe}")
    if choice.tied:
        tied = (f"{titles[method.name]} ({_times(method.speed_up)})" for method in choice.tied)
        lines.append(f"Tied on speed with {', '.join(tied)}.")
    lines += [f"Take it: {take}"] if take else []
    return _wrapped(*lines)


def table_lines(contest: Contest, choice: Pick, limits: Limits, more: Sequence[str] = ()) -> list[str]:
    """All methods, the fastest first, and the notes below them. more: notes of the caller's."""
    titles, notes = _titles(contest), _notes(contest, limits)
    width = max(_NAME, *(len(title) + 1 for title in titles.values()))
    wide = width == _NAME
    lines = [
        f"  {'Method':<{width}}{_header(contest.metric, wide)}{'Kept %':>6}  {'Speed-up':<16}{'p90 ms':>6}{'MiB':>6}"
    ]
    outside = {method.name: why for method, why in choice.outside}
    for method in sorted(contest.methods, key=lambda method: -(method.speed_up.value if method.speed_up else 0)):
        verdict = "ship" if method is choice.ship else "base" if method.name == contest.baseline.label else "fits"
        if method.name in outside:
            notes.append(f"{titles[method.name]}: {outside[method.name]}.")
            verdict = f"no {len(notes)}"
        lines.append(
            f"  {titles[method.name]:<{width}}{_accuracy(method.accuracy, wide)}{_percent(method.kept):>6}"
            f"  {_times(method.speed_up):>5} {_range(method.speed_up):<10}"
            f"{_number(method.p90_ms, '.1f'):>6}{_number(method.size_mib, '.0f'):>6}  {verdict}".rstrip()
        )
    notes += [*_failures(contest, titles), *more]
    numbered = [
        line
        for number, note in enumerate(notes, 1)
        for line in textwrap.wrap(note, WIDTH, initial_indent=f"  {number}  ", subsequent_indent=" " * 5)
    ]
    return [*lines, "", *numbered]


def _notes(contest: Contest, limits: Limits) -> list[str]:
    turns = next((turns for turns in contest.baseline.turns if turns.batch_size > 1), None)
    how = (
        f"batch {turns.batch_size}, {len(turns.rounds)} rounds, all methods on the same batches in turn"
        if turns
        else ""
    )
    asked = [f"keep {100 * limits.keep:g}%{' surely' if limits.sure else ''} (--keep)"]
    for option, name, unit in (
        ("p90_ms", "p90", "ms"),
        ("p99_ms", "p99", "ms"),
        ("size_mib", "size", "MiB"),
        ("memory_mib", "memory", "MiB"),
    ):
        if (bound := getattr(limits, option)) is not None:
            asked.append(f"{name} at most {bound:g} {unit}")
    return [
        "Ranges are 95% intervals: other rows of the same kind of text.",
        *([f"Speed-ups: {how}."] if how else []),
        *([UNTESTED] if any(method.speed_up and method.speed_up.low is None for method in contest.methods) else []),
        f"Asked: {', '.join(asked)}.",
    ]


def _failures(contest: Contest, titles: Mapping[str, str]) -> list[str]:
    failed = [record for record in contest.board.unmeasured if record.status == "failed"]
    return [f"{record.label} failed: {' '.join(record.reason.split())[:200]}" for record in failed]


def _titles(contest: Contest) -> dict[str, str]:
    """What a method is called: by its backend's title, where no other method has the same."""
    titles = {method.name: method.title or method.name for method in contest.methods}
    return {name: title if [*titles.values()].count(title) == 1 else name for name, title in titles.items()}


def _header(metric: str, wide: bool) -> str:
    name = {"accuracy": "Accuracy", "matthews_correlation": "MCC"}.get(metric, _words(metric).capitalize())
    return f"{name + ' %':<18}"[:18] if wide else f"{name[:7] + ' %':>9} "


def _accuracy(ratio: Ratio | None, wide: bool) -> str:
    value = "" if ratio is None else f"{ratio.value:.1f}"
    if not wide:
        return f"{value:>9} "
    return f"{value:>5}  {_percents(ratio):<11}"


def _percents(ratio: Ratio | None) -> str:
    if ratio is None or ratio.low is None or ratio.high is None:
        return ""
    return f"{ratio.low:.1f}-{ratio.high:.1f}"


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _percent(ratio: Ratio | None) -> str:
    return f"{100 * ratio.value:.1f}" if ratio else ""


def _times(ratio: Ratio | None) -> str:
    return f"{_three_digits(ratio.value)}×" if ratio else ""


def _range(ratio: Ratio | None) -> str:
    """low-high, at most nine characters below 1000."""
    if ratio is None or ratio.low is None or ratio.high is None or ratio.low == ratio.high:
        return ""
    return f"{_three_digits(ratio.low)}-{_three_digits(ratio.high)}"


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _bracket(ratio: Ratio | None, factor: float = 1) -> str:
    if ratio is None or ratio.low is None or ratio.high is None or ratio.low == ratio.high:
        return ""
    ends = (f"{factor * end:.1f}" if factor > 1 else _three_digits(end) for end in (ratio.low, ratio.high))
    return f" [{', '.join(ends)}]"


def _number(value: float | None, form: str) -> str:
    return format(value, form) if value is not None else ""


def _wrapped(*lines: str) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, WIDTH)]
