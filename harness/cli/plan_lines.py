"""What `plan` shows, at most 80 columns wide: a row a method of a model and task, why some cannot run, how models are made."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from harness.cli.method_table import WIDTH, Column, Notes, laid_out

if TYPE_CHECKING:
    from harness.plan.plan import Plan
    from harness.plan.spec import Cell, CheckpointSpec

KEYS = "Nothing is downloaded, nothing has run. --json has every setting and the content keys."
MADE = "How the models are made (settings that are not named have their defaults):"


def plan_lines(plan: Plan) -> list[str]:
    """The cells of a plan; those that differ by seed alone share a row."""
    from harness.plan.spec import SAMPLE_NOTICE

    runs = sum(not cell.blocked for cell in plan.cells)
    head = [SAMPLE_NOTICE] if plan.on_sample else []
    head.append(f"{plan.suite.title} ({plan.suite.name}): {len(plan.cells)} cells, {runs} run here.")
    notes = Notes()
    rows: dict[tuple[str, ...], list[str]] = {}
    for cell in plan.cells:
        seeds = rows.setdefault(_row(cell, notes), [])
        seeds += [str(cell.seed)] if str(cell.seed) not in seeds else []
    table = list(_table(rows)) if rows else []
    for note in (*plan.notes, KEYS):
        notes.add(note)
    made = [
        part
        for line in _checkpoints(plan)
        for part in textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent=" " * 6)
    ]
    head = [part for line in head for part in textwrap.wrap(line, WIDTH)]
    return [*head, "", *table, "", *notes.lines(), "", MADE, *made]


def _row(cell: Cell, notes: Notes) -> tuple[str, ...]:
    """Model, task, method, recipe, shape, whether it runs."""
    recipe = cell.checkpoint.recipe if cell.checkpoint.recipe != "ptq" else f"ptq {cell.scheme}"
    shape = f"{cell.shape.max_length}, {'/'.join(map(str, cell.batch_sizes))}"
    runs = f"no {notes.add('; '.join(cell.blocked))}" if cell.blocked else f"on {cell.device}"
    return cell.model, cell.task, cell.label, recipe, shape, runs


def _table(rows: dict[tuple[str, ...], list[str]]) -> list[str]:
    """Where it gets too wide, what all rows have in common is left out, then the ends of names."""
    names = ("Model", "Task", "Method", "Made by", "Length, batch", "Runs")
    columns: list[Column] = [(name, cells, "<") for name, cells in zip(names, zip(*rows, strict=True), strict=True)]
    columns.insert(2, ("Seed", [",".join(seeds) for seeds in rows.values()], "<"))
    for kept in (columns, [*columns[:5], columns[6]], columns[:4] + columns[6:]):
        lines = laid_out(kept, 2 if kept is columns else 1)
        if max(map(len, lines)) <= WIDTH:
            return lines
    room = 20
    short: list[Column] = [(name, [_cut(cell, room) for cell in cells], side) for name, cells, side in columns]
    return laid_out([*short[:4], short[6]], 1)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _checkpoints(plan: Plan) -> list[str]:
    """How every checkpoint is made, each after those that it needs. Seeds share a line."""
    seeds_by_line: dict[tuple[str, ...], list[int]] = {}

    def add(spec: CheckpointSpec) -> None:
        for needed in spec.needs:
            add(needed)
        step = spec.distill["stage"] if spec.distill else spec.scheme if spec.recipe in ("ptq", "qat") else ""
        line = (spec.model, spec.task, f"{spec.recipe} {step}".strip(), _settings(spec))
        seeds = seeds_by_line.setdefault(line, [])
        if spec.seed not in seeds:
            seeds.append(spec.seed)

    for cell in plan.cells:
        add(cell.checkpoint)
    return [
        f"{model}, {task}: {recipe}{f' ({settings})' if settings else ''}, seed {', '.join(map(str, seeds))}"
        for (model, task, recipe, settings), seeds in seeds_by_line.items()
    ]


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
