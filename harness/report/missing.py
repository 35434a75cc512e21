"""The cells that a suite asks for and that have no record. Without them a board would look complete."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.errors import SuiteError
from harness.records.schema import Record
from harness.report.comparability import is_whole
from harness.suite.load import load_suite


class RequestedCell(NamedTuple):
    task: str
    seed: int
    model: str
    label: str


def requested_cells(file: Path, records: Iterable[Record]) -> list[RequestedCell]:
    """The cells that a suite file asks for; none of a file that this version rejects, because records outlive their suite.
    records: the suite's own; they say whether a loaded model brought ranges."""
    try:
        suite = load_suite(str(file))
    except SuiteError:
        return []
    loaded = [record for record in records if record.checkpoint and record.checkpoint.recipe == "load"]
    with_ranges = {record.model for record in loaded if record.checkpoint and record.checkpoint.scheme}
    with_ranges |= {name for name, model in suite.models.items() if model.recipe == "qat"}
    cells: dict[RequestedCell, None] = {}
    for task in suite.tasks:
        for seed in suite.seeds:
            for model in suite.models:
                for label, backend in zip(suite.labels, suite.backends, strict=True):
                    # a model's own ranges replace the scheme: backends that differ only in it make one cell
                    own_ranges = model in with_ranges and backend.scheme is not None
                    shown = (backend.label or backend.name) if own_ranges else label
                    cells[RequestedCell(task, seed, model, shown)] = None
    return list(cells)


def missing_cells(requested: Iterable[RequestedCell], records: Iterable[Record]) -> list[RequestedCell]:
    """Those without a record. A record that says why a cell was skipped counts; one of a part of the evaluation set does not."""
    recorded = {(record.task, record.seed, record.model, record.label) for record in records if is_whole(record)}
    return [cell for cell in requested if cell not in recorded]


def describe(missing: Collection[RequestedCell], requested: Sequence[RequestedCell]) -> list[str]:
    """A line for each set of cells that tasks and seeds miss alike. A task without cells, `glue/cola (seeds 43, 44)`, misses
    all of them."""
    seeds = {cell.seed for cell in requested}
    lines: dict[str, dict[str, list[int]]] = {}
    for task, seed in dict.fromkeys((cell.task, cell.seed) for cell in requested):
        cells = [cell for cell in requested if (cell.task, cell.seed) == (task, seed)]
        absent = [cell for cell in cells if cell in missing]
        if absent:
            what = "" if absent == cells else _models_and_labels(absent, cells)
            lines.setdefault(what, {}).setdefault(task, []).append(seed)
    described = []
    for what, tasks in lines.items():
        where = ", ".join(
            f"{task} (seed{'s' if numbers[1:] else ''} {', '.join(map(str, numbers))})" if len(seeds) > 1 else task
            for task, numbers in tasks.items()
        )
        described.append(f"{where}: {what}" if what else where)
    return described


def _models_and_labels(absent: Sequence[RequestedCell], cells: Sequence[RequestedCell]) -> str:
    words = []
    for model in dict.fromkeys(cell.model for cell in absent):
        labels = [cell.label for cell in absent if cell.model == model]
        is_all = labels == [cell.label for cell in cells if cell.model == model]
        words.append(f"all of {model}" if is_all else f"{', '.join(labels)} of {model}")
    return "; ".join(words)
