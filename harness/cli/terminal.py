"""Plans and records as tables in the terminal (rich)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from harness.plan.plan import Plan
    from harness.plan.spec import CheckpointSpec
    from harness.records.figure import Figure
    from harness.records.schema import Record


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def plan_json(plan: Plan) -> dict[str, Any]:
    """Every cell with its settings; `blocked` holds the reason and the remedy where it cannot run here."""
    return {"suite": plan.suite.name, "cells": [cell.to_json() for cell in plan.cells]}


def print_plan(plan: Plan) -> None:
    from harness.plan.spec import SAMPLE_NOTICE

    table = Table(title=escape(f"{plan.suite.title} ({plan.suite.name})"))
    for name in ("model", "seed", "task", "backend", "recipe", "device", "shape", "key", "here"):
        table.add_column(name, overflow="fold")
    for cell in plan.cells:
        recipe = cell.checkpoint.recipe if cell.checkpoint.recipe != "ptq" else f"ptq {cell.scheme}"
        here = "runs" if not cell.blocked else f"skipped: {cell.blocked[0]}; {cell.blocked[1]}"
        shape = f"{cell.shape.max_length}, batch {'/'.join(map(str, cell.batch_sizes))}"
        row = (cell.model, str(cell.seed), cell.task, cell.label, recipe, cell.device, shape, cell.key[:8], here)
        table.add_row(*map(escape, row))
    out = console()
    if plan.on_sample:
        out.print(SAMPLE_NOTICE, markup=False, highlight=False)
    out.print(table)
    out.print(_made(plan))


def _made(plan: Plan) -> Table:
    """How every checkpoint is made, those that others begin at first; seeds share a line."""
    made: dict[tuple[str, str, str, str], list[int]] = {}

    def add(spec: CheckpointSpec) -> None:
        for one in spec.needs:
            add(one)
        step = spec.distill["stage"] if spec.distill else spec.scheme if spec.recipe in ("ptq", "qat") else ""
        seeds = made.setdefault((spec.model, spec.task, f"{spec.recipe} {step}".strip(), _settings(spec)), [])
        if spec.seed not in seeds:
            seeds.append(spec.seed)

    for cell in plan.cells:
        add(cell.checkpoint)
    table = Table(title="How their models are made (what is not said has its default)")
    for name in ("model", "task", "recipe", "settings", "seeds"):
        table.add_column(name, overflow="fold")
    for (*words, settings), seeds in made.items():
        table.add_row(*map(escape, words), escape(settings), ", ".join(map(str, seeds)))
    return table


def _settings(spec: CheckpointSpec) -> str:
    """What is not the default of its key in a suite file."""
    from harness.suite.train import TrainSettings

    train = {} if spec.recipe == "ptq" else spec.train or {}
    usual = {name: field.default for name, field in TrainSettings.model_fields.items() if not field.is_required()}
    found = {name: value for name, value in train.items() if value != usual.get(name)}
    found |= {f"calibration {name}": value for name, value in (spec.calibration or {}).items() if name != "seed"}
    extra = {name: value for name, value in (spec.distill or {}).items() if name != "stage"}
    for name, value in extra.items():
        found |= {f"{name} {key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.items() if value is not None)


def console() -> Console:
    """Wide enough that a figure is never cut where there is no terminal to fit in."""
    found = Console()
    return found if found.is_terminal else Console(width=180)


def print_records(records: Sequence[Record], until: str | None = None) -> None:
    """The final table: a line a cell, beside its baseline where both were recorded. until: nothing was recorded."""
    from harness.report.comparability import data_with_limit
    from harness.report.compare import speed_of
    from harness.report.glue_average import MEANS, macro_averages, macro_line

    if not records:
        return
    lost, faster = _beside([] if until else records)
    table = Table(title=escape(records[0].suite_title))
    for name in ("model", "task", "backend", "seed", "status"):
        table.add_column(name, overflow="fold")
    for name in (
        "accuracy % [95%]",
        "points against baseline [95%]",
        "p90 ms",
        "samples/s",
        "speed-up [95%]",
        "INT8 share",
        "peak MiB",
    ):
        table.add_column(name, justify="right")
    table.add_column("data")
    for entry in records:
        single, offline = speed_of(entry, "single_stream", "real"), speed_of(entry, "offline", "real")
        table.add_row(
            entry.model,
            entry.task,
            entry.label,
            str(entry.seed),
            entry.status,
            "\n".join(
                f"{_split(entry, part.split)}{name} {show(figure)}"
                for part in entry.accuracy
                for name, figure in part.metrics.items()
            ),
            "\n".join(lost.get(entry.record_id, [])),
            show(single.p90_ms, interval=False) if single and single.p90_ms else "",
            show(offline.qps) if offline else "",
            "\n".join(faster.get(entry.record_id, [])),
            f"{entry.flops.int8_share:.0%}" if entry.flops else "",
            f"{entry.memory.peak_rss_bytes / 2**20:.0f}" if entry.memory else "",
            "\n".join(
                [data_with_limit(entry), *(f"no {split}" for split in (entry.data.missing if entry.data else ()))]
            ),
        )
    out = console()
    out.print(table)
    for entry in records:
        if entry.reason:
            remedy = f"; {entry.remedy}" if entry.remedy else ""
            out.print(
                f"{entry.model} / {entry.task} / {entry.label}: {entry.status}: {entry.reason}{remedy}",
                markup=False,
                highlight=False,
            )
        for line in entry.log_tail:
            out.print(f"    {line}", markup=False, highlight=False)
    macros = [] if until else macro_averages(records)
    for one in macros:
        out.print(macro_line(one), markup=False, highlight=False)
    if macros:
        out.print(f"macro average: the {MEANS}.", style="dim")
    out.print(
        "samples/s: offline, real lengths, largest batch; p90: single stream, real lengths; simulations and seeds after a suite's first carry no speed figure.\n"
        "points: paired over the same examples; p is Holm-corrected over the table; speed-up: of the same work by turns, else of samples/s; 'other training', 'training not known': (perhaps) not of the baseline's weights (docs/method.md).",
        style="dim",
    )


def _beside(records: Sequence[Record]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """By record id: a line a split with difference and p; ratio of speed."""
    from harness.machine import paths
    from harness.records import store
    from harness.records.scores import ScoreStore
    from harness.report.boards import boards
    from harness.report.columns import QPS, Value

    lost: dict[str, list[str]] = {}
    faster: dict[str, list[str]] = {}
    folder = paths.results()
    stored = ScoreStore(store.read(folder)) if folder.is_dir() else ScoreStore()

    def line(value: Value) -> str:
        return (
            value.text
            + (f" [{value.low}, {value.high}]" if value.low else "")
            + (f" {value.note}" if value.note else "")
        )

    for board in boards(records, stored):
        place = [column.name for column in board.columns]
        for row in board.rows:
            if words := line(row.columns[place.index("difference")]):
                lost.setdefault(row.record.record_id, []).append(_split(row.record, board.split) + words)
            if QPS in place:
                faster[row.record.record_id] = [line(row.columns[place.index("speed-up")])]
    return lost, faster


def _split(entry: Record, name: str) -> str:
    """Which part of the evaluation set a line is of, where there are several."""
    return f"{name.removeprefix('validation_')} " if len(entry.accuracy) > 1 else ""


def show(figure: Figure, *, interval: bool = True) -> str:
    text = f"{figure.value:.2f}" if figure.value < 1000 else f"{figure.value:.0f}"
    if interval and figure.low is not None and figure.high is not None:
        text += (
            f" [{figure.low:.2f}, {figure.high:.2f}]"
            if figure.value < 1000
            else f" [{figure.low:.0f}, {figure.high:.0f}]"
        )
    return text
