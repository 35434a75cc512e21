"""What the page of a suite shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.machine import paths
from harness.records.schema import Record
from harness.report.board_section import BoardContext, BoardSection
from harness.report.boards import Outline, Place
from harness.report.charts import curve_labels
from harness.report.comparability import is_sample, machine_of
from harness.report.macro_average import MacroAverage, definition
from harness.report.missing import RequestedCell, describe, missing_cells, requested_cells
from harness.report.search_section import SearchSection
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
    """missing: cells that the suite asks for and that have no record. boards: the section of each, for a template laid out."""

    name: str
    title: str
    sample: bool
    commands: tuple[str, ...]
    description: str
    missing: tuple[str, ...]
    averages: tuple[MacroSection, ...]
    boards: tuple[Any, ...]
    references: tuple[Reference, ...]
    search: SearchSection | None = None


@dataclass(frozen=True)
class Suite:
    """records: of the suite, on real data and on the sample. outlines: its boards, on one of the two."""

    name: str
    sample: bool
    records: tuple[Record, ...]
    outlines: tuple[Outline, ...]

    @cached_property
    def real(self) -> list[Record]:
        return [record for record in self.records if not is_sample(record)]

    @cached_property
    def path(self) -> Path | None:
        path = paths.suites() / f"{self.name}.toml"
        return path if path.is_file() else None

    @cached_property
    def requested(self) -> list[RequestedCell]:
        """The cells that it asks for; none without its file."""
        return requested_cells(self.path, self.real) if self.path else []

    @cached_property
    def missing(self) -> list[RequestedCell]:
        return [] if self.sample else missing_cells(self.requested, self.real)


def board_contexts(suite: Suite) -> list[BoardContext]:
    """Of each of its boards."""
    labels = curve_labels(suite.outlines)
    return [
        BoardContext(() if suite.sample else _not_run(outline.place, suite), retrained, labels)
        for outline, retrained in zip(suite.outlines, _retrained(suite.outlines), strict=True)
    ]


def suite_page(
    suite: Suite,
    averages: Sequence[MacroAverage],
    boards: Sequence[BoardSection | Markup] = (),
    search: SearchSection | None = None,
) -> SuitePage:
    """averages: of all suites. boards: the sections of its own. search: that wrote the suite."""
    own = [record for record in suite.records if is_sample(record) == suite.sample]
    place = suite.name, suite.sample
    own_averages = [average for average in averages if (average.suite, average.sample) == place]
    description, references = load_for_pages(suite.path) if suite.path else ("", [])
    return SuitePage(
        name=suite.name,
        title=suite.records[-1].suite_title,
        sample=suite.sample,
        commands=tuple(dict.fromkeys(record.command for record in own)),
        description=description,
        missing=tuple(describe(suite.missing, suite.requested)),
        averages=tuple(_macro_sections(own_averages)),
        boards=tuple(boards),
        references=tuple(map(_reference, references)),
        search=search,
    )


def _not_run(place: Place, suite: Suite) -> tuple[str, ...]:
    """What has records, but none on this board's machine."""
    own = [record for record in suite.real if machine_of(record) == place.machine]
    of_task = [cell for cell in suite.requested if cell.task == place.task]
    absent = [cell for cell in missing_cells(of_task, own) if cell not in suite.missing]
    return tuple(describe(absent, of_task))


def _retrained(outlines: Sequence[Outline]) -> list[str]:
    """For each board the models and seeds that an earlier board of its task has with other weights, or weights that may
    differ: trained separately, under one name."""
    lines = []
    weights = [_weights(outline.records) for outline in outlines]
    for at, outline in enumerate(outlines):
        mine, names, place = weights[at], list[str](), outline.place
        for earlier, theirs in zip(outlines[:at], weights[:at], strict=True):
            if (earlier.place.task, earlier.place.split) == (place.task, place.split):
                names += [
                    f"{model} (seed {seed})"
                    for model, seed in mine
                    if (model, seed) in theirs and not _same_weights(mine[model, seed], theirs[model, seed])
                ]
        lines.append(", ".join(dict.fromkeys(names)))
    return lines


def _weights(records: Iterable[Record]) -> dict[tuple[str, int], dict[str, str]]:
    """By model and seed, of models that were trained here: the SHA-256 of the weights of all their checkpoints, by key. Empty
    where records do not say."""
    weights: dict[tuple[str, int], dict[str, str]] = {}
    for record in records:
        checkpoint = record.checkpoint
        if checkpoint and checkpoint.recipe != "load":
            weights.setdefault((record.model, record.seed), {}).update(checkpoint.lineage)
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
