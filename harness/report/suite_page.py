"""What the page of a suite shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from harness.machine import paths
from harness.records.schema import Record
from harness.report.board_section import BoardSection, board_section
from harness.report.boards import Board
from harness.report.charts import curve_labels
from harness.report.comparability import is_sample, machine_of
from harness.report.macro_average import MacroAverage, definition
from harness.report.missing import RequestedCell, describe, missing_cells, requested_cells
from harness.report.tables import Column, Table, Value, formatted, number, text_columns
from harness.suite.load import load_for_pages
from tasks import short_name, task_names


@dataclass(frozen=True)
class MacroSection:
    title: str
    definition: str
    table: Table


@dataclass(frozen=True)
class Reference:
    """A published figure. facts, figures: a line each."""

    system: str
    facts: tuple[str, ...]
    source: str
    figures: tuple[str, ...]
    notes: str


@dataclass(frozen=True)
class SuitePage:
    """missing: cells that the suite asks for and that have no record."""

    name: str
    title: str
    sample: bool
    commands: tuple[str, ...]
    description: str
    missing: tuple[str, ...]
    averages: tuple[MacroSection, ...]
    boards: tuple[BoardSection, ...]
    references: tuple[Reference, ...]


def suite_page(
    name: str,
    sample: bool,
    records: Sequence[Record],
    boards: Sequence[Board],
    averages: Sequence[MacroAverage],
    uncommitted: AbstractSet[str],
) -> SuitePage:
    """records, boards, averages: of all suites. uncommitted: ids of records with an ancestor from a checkout with uncommitted
    changes."""
    own = [record for record in records if (record.suite, is_sample(record)) == (name, sample)]
    own_boards = [board for board in boards if (board.suite, board.sample) == (name, sample)]
    real = [record for record in records if record.suite == name and not is_sample(record)]
    own_averages = [average for average in averages if (average.suite, average.sample) == (name, sample)]
    description, references, requested = _read_suite(name, real)
    missing = [] if sample else missing_cells(requested, real)
    labels = curve_labels(own_boards)
    not_run = [() if sample else _not_run(board, real, requested, missing) for board in own_boards]
    sections = zip(own_boards, not_run, _retrained(own_boards), strict=True)
    return SuitePage(
        name=name,
        title=next(record.suite_title for record in reversed(records) if record.suite == name),
        sample=sample,
        commands=tuple(dict.fromkeys(record.command for record in own)),
        description=description,
        missing=tuple(describe(missing, requested)),
        averages=tuple(_macro_sections(own_averages)),
        boards=tuple(board_section(board, lines, models, labels, uncommitted) for board, lines, models in sections),
        references=tuple(map(_reference, references)),
    )


def _read_suite(name: str, records: Sequence[Record]) -> tuple[str, list[dict[str, Any]], list[RequestedCell]]:
    """The suite's description, its references, and the cells that it asks for; none without its file."""
    path = paths.suites() / f"{name}.toml"
    return (*load_for_pages(path), requested_cells(path, records)) if path.is_file() else ("", [], [])


def _not_run(
    board: Board, records: Sequence[Record], requested: Sequence[RequestedCell], missing: Sequence[RequestedCell]
) -> tuple[str, ...]:
    """What has records, but none on this board's machine."""
    own = [record for record in records if machine_of(record) == board.machine]
    of_task = [cell for cell in requested if cell.task == board.task]
    return tuple(describe([cell for cell in missing_cells(of_task, own) if cell not in missing], of_task))


def _retrained(boards: Sequence[Board]) -> list[str]:
    """For each board the models and seeds that an earlier board of its task has with other weights, or weights that may
    differ: trained separately, under one name."""
    lines = []
    for place, board in enumerate(boards):
        mine, names = _weights(board), list[str]()
        for earlier in boards[:place]:
            if (earlier.task, earlier.split) == (board.task, board.split):
                theirs = _weights(earlier)
                names += [
                    f"{model} (seed {seed})"
                    for model, seed in mine
                    if (model, seed) in theirs and not _same_weights(mine[model, seed], theirs[model, seed])
                ]
        lines.append(", ".join(dict.fromkeys(names)))
    return lines


def _weights(board: Board) -> dict[tuple[str, int], dict[str, str]]:
    """By model and seed, of models that were trained here: the SHA-256 of the weights of all their checkpoints, by key. Empty
    where records do not say."""
    weights: dict[tuple[str, int], dict[str, str]] = {}
    for row in board.rows:
        checkpoint = row.record.checkpoint
        if checkpoint and checkpoint.recipe != "load":
            weights.setdefault((row.record.model, row.record.seed), {}).update(checkpoint.lineage)
    return weights


def _same_weights(mine: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    shared = [key for key in mine if key in theirs]
    return bool(shared) and all(mine[key] == theirs[key] for key in shared)


def _macro_sections(averages: Sequence[MacroAverage]) -> Iterable[MacroSection]:
    """One for each benchmark that has an average."""
    for benchmark in dict.fromkeys(average.benchmark for average in averages if average.figure):
        own = [average for average in averages if average.benchmark == benchmark]
        yield MacroSection(f"{benchmark}, macro average", definition(benchmark), _macro_table(benchmark, own))


def _macro_table(benchmark: str, averages: Sequence[MacroAverage]) -> Table:
    tasks = [name for name in task_names() if any(name in average.scores for average in averages)]
    machines = len({average.machine for average in averages}) > 1
    columns = [*text_columns("backend", "model"), Column("seed")]
    columns += text_columns("machine") if machines else ()
    columns += [Column("macro average", "%"), *(Column(short_name(name), "%") for name in tasks)]
    rows = []
    for average in averages:
        row = [Value(average.label), Value(average.model), Value(str(average.seed), average.seed)]
        row += [Value(average.machine)] if machines else []
        if average.figure is None:
            row.append(Value(f"none: missing {', '.join(average.missing)}"))
        else:
            value = formatted(average.figure)
            row.append(value if value.low else formatted(average.figure, note=average.figure.method))
        row += [number(average.scores[name].value) if name in average.scores else Value("") for name in tasks]
        rows.append((*row, Value("; ".join(average.notes))))
    return Table(f"{benchmark}, macro average", (*columns, Column("notes", kind="notes")), tuple(rows), sortable=True)


def _reference(reference: Mapping[str, Any]) -> Reference:
    """As it stands in the suite's file; its own keys beside ours are shown too."""
    own_cells = ("system", "metrics", "notes", "source")
    facts = {name: value for name, value in reference.items() if name not in own_cells and not isinstance(value, dict)}
    return Reference(
        system=reference["system"],
        facts=tuple(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()),
        source=reference.get("source", ""),
        figures=tuple(f"{name} {value}" for name, value in reference.get("metrics", {}).items()),
        notes="; ".join(map(str, reference.get("notes", []))),
    )
