"""What `compare` shows in the terminal: a line a task, at most 80 characters wide, that says which side is better."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.cli.method_table import WIDTH, Column, Notes, laid_out, three_digits

if TYPE_CHECKING:
    from harness.measure.paired import PairedTest
    from harness.report.pairs import Pair
    from harness.report.speed_ratios import Load

LEVEL = 0.05
"""Of Holm's p, below which one side is called better."""
MORE = "Better: Holm's p is below 0.05. Every figure with its p: quantboard compare --markdown, or --json."


def compare_lines(pairs: Sequence[Pair]) -> list[str]:
    """A row a pair: the primary metric of both, their difference, the ratio of speed, and which side is better."""
    from harness.report.pairs import notes, title

    shown = [_cells(pair) for pair in pairs]
    headers, sides = ("", "A", "B", "A less B", "", "Speed", "", "Better"), "<>>><><<"
    columns: list[Column] = [("Task", [_task(pair) for pair in pairs], "<")]
    cells = [list(column) for column in zip(*shown, strict=True)]
    columns += [(header, column, side) for header, column, side in zip(headers, cells, sides, strict=True)]
    without_ranges = [column for place, column in enumerate(columns) if place not in (5, 7)]
    layouts = (laid_out(one, gap) for one in (columns, without_ranges) for gap in (2, 1))
    head, *rows = next((lines for lines in layouts if max(map(len, lines)) <= WIDTH), laid_out(without_ranges, 1))
    groups: dict[tuple[str, ...], list[str]] = {}
    for pair, row in zip(pairs, rows, strict=True):
        groups.setdefault(tuple(_heading(pair, pairs)), []).append(row)
    lines = [*textwrap.wrap(title(pairs), WIDTH), "", head]
    for heading, group in groups.items():
        lines += [*textwrap.wrap(", ".join(heading), WIDTH), *group]
    return [*lines, "", *Notes([*notes(pairs), MORE]).lines()]


def _heading(pair: Pair, pairs: Sequence[Pair]) -> list[str]:
    """What tells a pair from the others beside its task."""
    from harness.report.pairs import distinctions

    seeds = {(other.mine.seed, other.theirs.seed) for other in pairs}
    mine, theirs = pair.mine.seed, pair.theirs.seed
    seed = [f"seed {mine}" if mine == theirs else f"seeds {mine} and {theirs}"] if len(seeds) > 1 else []
    return [*distinctions(pair, pairs), *seed]


def _task(pair: Pair) -> str:
    split = f" {pair.split.removeprefix('validation_')}" if len(pair.mine.accuracy) > 1 else ""
    return f"{pair.mine.task}{split}"


def _cells(pair: Pair) -> tuple[str, ...]:
    """Of one pair: metric, A, B, difference and its range, ratio of speed and its range, the better side."""
    from harness.report.compare import accuracy_of

    parts = [accuracy_of(side, pair.split) for side in (pair.mine, pair.theirs)]
    primary = parts[0].primary if parts[0] else "speed only"
    test = pair.differences.get(primary)
    load = _speed(pair)
    ratio = pair.ratios[load] if load else None
    values = (f"{part.metrics[primary].value:.2f}" if part and primary in part.metrics else "" for part in parts)
    return (
        primary.replace("matthews_correlation", "MCC").replace("_", " "),
        *values,
        f"{test.value:+.2f}" if test else "",
        _range(test, lambda value: f"{value:.2f}", " to "),
        f"{three_digits(ratio.value)}×" if ratio else "",
        _range(ratio, three_digits, "-"),
        _better(pair, primary, test, load, ratio),
    )


def _speed(pair: Pair) -> Load | None:
    """The ratio that tables show: of interleaved rounds at the largest batch, else of samples a second."""
    from harness.report.shown_speed import shown_load
    from harness.report.speed_ratios import INTERLEAVED

    for scenario, figure in ((INTERLEAVED, None), ("offline", "qps")):
        loads = [
            load
            for load in pair.ratios
            if load[0] == scenario and load[1] == shown_load(pair.mine) and figure in (None, load[3])
        ]
        if loads:
            return max(loads, key=lambda load: load[2])
    return None


def _better(pair: Pair, primary: str, test: PairedTest | None, load: Load | None, ratio: PairedTest | None) -> str:
    """`A` or `B`, with what it is better at where that is one of two; `neither` where nothing can be told apart."""
    score = _side(test.value if test else 0.0, pair.corrected.get(primary))
    speed = _side(ratio.value - 1 if ratio else 0.0, pair.corrected.get(load) if load else None)
    if score == speed:
        return score or "neither"
    if score and speed:
        return f"{score} score, {speed} speed"
    return f"{score} score" if score else f"{speed} speed"


def _range(test: PairedTest | None, form: Callable[[float], str], between: str) -> str:
    return (
        "" if test is None or test.low is None or test.high is None else f"{form(test.low)}{between}{form(test.high)}"
    )


def _side(advantage: float, p: float | None) -> str:
    return "" if p is None or p >= LEVEL or not advantage else "A" if advantage > 0 else "B"
