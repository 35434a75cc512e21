"""What the terminal shows of a search, at most 80 columns wide: its steps, the table of what was tried, the sensitive parts, the answer."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.cli.method_table import WIDTH, three_digits
from harness.cli.terminal import say

if TYPE_CHECKING:
    from harness.measure.paired import PairedTest
    from harness.plan.spec import Cell
    from harness.run.search import Candidate, Found

WAY = 19
"""Columns of a way; a longer one takes several lines."""
SENSITIVE = 8
"""Parts that are shown."""


def say_within(line: str) -> None:
    """As `say`, in lines that fit."""
    for part in _wrapped(line) or [""]:
        say(part)


def answer_lines(cell: Cell, baseline: Cell, found: Found, file: str | None, data: str | None = None) -> list[str]:
    """file: the suite that was written; None where there is no result. data: what --data was given for a suite."""
    head = (
        f"{cell.model}, {cell.task}: {cell.backend} against {baseline.backend}, {found.metric} {found.baseline:.2f} on"
        f" {found.examples} training rows, on which nothing was calibrated"
    )
    told = [*_wrapped(head), "", *_table(found), ""]
    told += _wrapped(
        "Moved: how far the logits move, as a share of their variance. Of each part alone, in the way that moves them least:"
    )
    told += [f"  {error:9.2e}  {pattern}" for pattern, error in found.sensitivities[:SENSITIVE]]
    told.append("")
    if found.best is None:
        return [*told, *_wrapped(f"No result: {found.why}")]
    kept = found.best.kept
    layers = f", and keep in float {', '.join(kept)}" if kept else ", no layer in float"
    command = ["quantboard", "run", str(file), *(["--data", data] if data else [])]
    layers += ". Of what keeps enough and, as far as can be told, is as fast, it moves the logits least"
    answer = f"{file}: the suite with this row. The evaluation split was not read:"
    return [*told, *_wrapped(f"Take: {found.best.way}{layers}"), *_wrapped(answer), f"  {shlex.join(command)}"]


def _table(found: Found) -> Iterator[str]:
    yield f"  {'way':<{WAY}}  {'float':>5}  {'kept %':>6} {'':14}  {'moved':>7}  {'speed':>5}"
    for one in found.candidates:
        first, *more = textwrap.wrap(one.way, WAY, break_on_hyphens=False)
        mark = "*" if one == found.best else " "
        yield f"{mark} {first:<{WAY}}  {_figures(one, found.baseline)}".rstrip()
        yield from (f"    {part}" for part in more)


def _figures(one: Candidate, baseline: float) -> str:
    low, high = one.difference.low, one.difference.high
    ends = "" if low is None or high is None else f"[{_percent(low, baseline)}, {_percent(high, baseline)}]"
    kept = f"{100 * one.share(baseline):6.2f} {ends:<14}"
    return f"{len(one.kept):>5}  {kept}  {one.error:7.1e}  {_speed(one.speed)}"


def _percent(difference: float, baseline: float) -> str:
    return f"{100 * (1 + difference / baseline):.1f}"


def _speed(test: PairedTest | None) -> str:
    if test is None:
        return f"{'-':>5}"
    ends = f" [{three_digits(test.low)}, {three_digits(test.high)}]" if test.low and test.high else ""
    return f"{three_digits(test.value)}x{ends}"


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
