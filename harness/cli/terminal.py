"""What the command line prints: lines on standard error, tables on standard output.

rich is imported when a table is printed, so that `--help`, `validate` and `--json` do not wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from harness.plan.plan import Plan
    from harness.records.figure import Figure
    from harness.run.rescore import Rescored


def say(line: str) -> None:
    """Print a message or progress line on standard error."""
    print(visible(line), file=sys.stderr, flush=True)


@cache
def tell(line: str) -> None:
    """Say once what is damaged and left out."""
    say(f"left out: {line}")


def console() -> Console:
    """Wide enough that no figure is cut where the output goes to a file or a pipe."""
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=180)


WHOLE = ("model", "backend")
"""Columns of names, which stay on one line."""


def _table(title: str, columns: Iterable[str], right: Collection[str] = ()) -> Table:
    """right: the columns of figures."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(visible(title)))
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(escape(name), overflow="fold", justify=justify, no_wrap=name in WHOLE)
    return table


def _add_row(table: Table, row: Iterable[str]) -> None:
    from rich.markup import escape

    table.add_row(*(escape(visible(cell)) for cell in row))


def _print_plain(out: Console, line: str, style: str | None = None) -> None:
    """A line of text that may hold brackets."""
    out.print(line, style=style, markup=False, highlight=False)


def plan_json(plan: Plan) -> dict[str, Any]:
    """Every cell with its settings; `blocked` holds the reason and the fix where it cannot run here."""
    notes = {"notes": list(plan.notes)} if plan.notes else {}
    return {"suite": plan.suite.name, "cells": [cell.to_json() for cell in plan.cells]} | notes


def show(figure: Figure, *, interval: bool = True) -> str:
    """Rounded, with its interval where it has one."""
    digits = 2 if figure.value < 1000 else 0
    text = f"{figure.value:.{digits}f}"
    if interval and figure.low is not None and figure.high is not None:
        text += f" [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"
    return text


def print_rescored(rescored: Sequence[Rescored], files: Sequence[str]) -> None:
    """The table of `rescore`. files: those that records were appended to."""
    from harness.run.rescore import figures_differ

    columns = ("record", "cell", "split", "metric", "recorded", "now")
    table = _table("Scored again from stored predictions", columns, right=("recorded", "now"))
    for outcome in rescored:
        record = outcome.record
        cell = f"{record.model} / {record.task} / {record.label} / seed {record.seed}"
        for split, metric, before, now in outcome.changes():
            mark = " differs" if figures_differ(before, now) else ""
            _add_row(table, (record.record_id, cell, split, metric, _shown(before), _shown(now) + mark))
    out = console()
    out.print(table)
    for path in files:
        _print_plain(out, f"written: {path}")


def _shown(figure: Figure | None) -> str:
    return show(figure) if figure else "none"
