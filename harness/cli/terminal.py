"""What the command line prints: lines on standard error, tables on standard output.

rich is imported when a table is printed, so that `--help`, `validate` and `--json` do not wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from harness.plan.plan import Plan
    from harness.plan.spec import Cell, CheckpointSpec
    from harness.records.figure import Figure
    from harness.run.rescore import Rescored


def say(line: str) -> None:
    """Print a message or progress line on standard error."""
    print(line, file=sys.stderr, flush=True)


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

    table = Table(title=escape(title))
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(escape(name), overflow="fold", justify=justify, no_wrap=name in WHOLE)
    return table


def _add_row(table: Table, row: Iterable[str]) -> None:
    from rich.markup import escape

    table.add_row(*map(escape, row))


def _print_plain(out: Console, line: str, style: str | None = None) -> None:
    """A line of text that may hold brackets."""
    out.print(line, style=style, markup=False, highlight=False)


def plan_json(plan: Plan) -> dict[str, Any]:
    """Every cell with its settings; `blocked` holds the reason and the fix where it cannot run here."""
    notes = {"notes": list(plan.notes)} if plan.notes else {}
    return {"suite": plan.suite.name, "cells": [cell.to_json() for cell in plan.cells]} | notes


def print_plan(plan: Plan) -> None:
    from harness.plan.spec import SAMPLE_NOTICE

    columns = ("model", "seed", "task", "backend", "recipe", "device", "shape", "key", "status")
    table = _table(f"{plan.suite.title} ({plan.suite.name})", columns)
    for cell in plan.cells:
        _add_row(table, _plan_row(cell))
    out = console()
    if plan.on_sample:
        _print_plain(out, SAMPLE_NOTICE)
    for note in plan.notes:
        _print_plain(out, note)
    out.print(table)
    out.print(_checkpoint_table(plan))


def _plan_row(cell: Cell) -> tuple[str, ...]:
    recipe = cell.checkpoint.recipe if cell.checkpoint.recipe != "ptq" else f"ptq {cell.scheme}"
    shape = f"{cell.shape.max_length}, batch {'/'.join(map(str, cell.batch_sizes))}"
    status = f"skipped: {cell.blocked[0]}; {cell.blocked[1]}" if cell.blocked else "runs"
    return cell.model, str(cell.seed), cell.task, cell.label, recipe, cell.device, shape, cell.key[:8], status


def _checkpoint_table(plan: Plan) -> Table:
    """How every checkpoint is made, each after those that it needs. Seeds share a row."""
    seeds_by_row: dict[tuple[str, str, str, str], list[int]] = {}

    def add(spec: CheckpointSpec) -> None:
        for needed in spec.needs:
            add(needed)
        step = spec.distill["stage"] if spec.distill else spec.scheme if spec.recipe in ("ptq", "qat") else ""
        row = (spec.model, spec.task, f"{spec.recipe} {step}".strip(), _settings(spec))
        seeds = seeds_by_row.setdefault(row, [])
        if spec.seed not in seeds:
            seeds.append(spec.seed)

    for cell in plan.cells:
        add(cell.checkpoint)
    title = "How the checkpoints are made (settings that are not named have their defaults)"
    table = _table(title, ("model", "task", "recipe", "settings", "seeds"))
    for row, seeds in seeds_by_row.items():
        _add_row(table, (*row, ", ".join(map(str, seeds))))
    return table


def _settings(spec: CheckpointSpec) -> str:
    """The settings that differ from the defaults of a suite file."""
    from harness.suite.train import TrainSettings

    train = {} if spec.recipe == "ptq" else spec.train or {}
    defaults = {name: field.default for name, field in TrainSettings.model_fields.items() if not field.is_required()}
    settings = {name: value for name, value in train.items() if value != defaults.get(name)}
    settings |= {f"calibration {name}": value for name, value in (spec.calibration or {}).items() if name != "seed"}
    for name, value in (spec.distill or {}).items():
        if isinstance(value, dict):
            settings |= {f"{name} {key}": setting for key, setting in value.items()}
        elif name != "stage":
            settings[name] = value
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items() if value is not None)


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
