"""Records to boards: rows that may share a table, compared with one another. Derived from records alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.records.store import Item, newest_by_key, order
from harness.report.columns import board_columns, row_values
from harness.report.comparability import (
    corpus_identity,
    data_of,
    examples_of,
    is_sample,
    is_speed_invalid,
    limit_of,
    machine_of,
    unofficial_splits,
)
from harness.report.compare import (
    Comparison,
    SeedSpread,
    accuracy_of,
    ancestor_of,
    compare_board,
    compare_engines,
    primary_of,
    seed_spreads,
    stands_on,
)
from harness.report.qat_parts import QatParts, qat_parts
from harness.report.shown_speed import shown_load, throughput_of
from harness.report.tables import Column, Value
from tasks.identity import BY_COUNT


@dataclass(frozen=True)
class Row:
    record: Record
    values: tuple[Value, ...]
    """As the board's columns."""
    comparison: Comparison = field(default_factory=Comparison)

    @property
    def in_chart(self) -> bool:
        """It has what the chart shows, and no rule fails for that."""
        speed = throughput_of(self.record)
        return self.has_chart_figures and speed is not None and not is_speed_invalid(self.record, speed)

    @property
    def has_chart_figures(self) -> bool:
        """It has what the chart shows, valid or not: an accuracy, and samples a second at real lengths."""
        return bool(self.record.accuracy) and throughput_of(self.record) is not None


@dataclass(frozen=True)
class Place:
    """What a board is about. limit: examples that `--limit` left of the evaluation set. split_sizes: of splits that are not
    official."""

    suite: str
    task: str
    split: str
    sample: bool
    limit: int | None
    machine: str
    data: str
    split_sizes: str


@dataclass(frozen=True)
class Board(Place):
    """Rows that may be compared: one suite, task, machine and data, and the same examples evaluated.

    primary: empty where all rows are of random weights, which have no accuracy. unmeasured: failed and skipped cells. engines: by
    record id, cells with integer products compared with their own engine without. corpora: of general distillation, what identifies each text, and the models that read it.
    """

    primary: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    unmeasured: tuple[Record, ...]
    seeds: tuple[SeedSpread, ...] = ()
    engines: Mapping[str, Comparison] = field(default_factory=dict)
    qat: tuple[QatParts, ...] = ()
    corpora: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def records(self) -> tuple[Record, ...]:
        """Those that have a row."""
        return tuple(row.record for row in self.rows)

    @cached_property
    def by_ancestor(self) -> Mapping[str, tuple[Row, ...]]:
        """The rows by the model whose cell is their baseline."""
        models: dict[str, list[Row]] = {}
        for row in self.rows:
            models.setdefault(ancestor_of(row.record), []).append(row)
        return {model: tuple(rows) for model, rows in models.items()}


@dataclass(frozen=True)
class Outline:
    """A board before anything is compared. records: those that have a row."""

    place: Place
    records: tuple[Record, ...]


def latest(records: Iterable[Record]) -> list[Record]:
    """The newest measured record of every cell; an unmeasured one (failed, skipped) only where the same cell was never
    measured on that machine."""
    return latest_of(records, cell_place)


def latest_of(items: Iterable[Item], place: Callable[[Item], Hashable]) -> list[Item]:
    """As `latest`. place: the cell and its machine, as `cell_place` gives it."""
    by_cell: dict[tuple[Hashable, str], Item] = {}
    for item in sorted(newest_by_key(items).values(), key=order):
        # a cell that could not run has no device yet
        by_cell[(place(item), item.device if item.measured else "")] = item
    measured = {cell for cell, device in by_cell if device}
    return [item for (cell, device), item in by_cell.items() if device or cell not in measured]


def cell_place(record: Record) -> tuple[Any, ...]:
    """Identifies the cell, the examples and the machine, whatever the versions of code and libraries."""
    place = (record.suite, record.task, record.model, record.label, record.seed)
    return (*place, examples_of(record), machine_of(record))


def page_name(record: Record) -> str:
    """File name of a cell's page, made of letters that need no escaping anywhere."""
    return f"cell-{page_part(record.record_id)}.html"


def page_part(name: str) -> str:
    """A name as a part of a file's name: as it is, or, where it is long or has other characters, with a hash, so that no two are
    the same."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', name)[:80]}-{digest}"


def make_boards(records: Sequence[Record], stored: ScoreStore | None = None, *, for_pick: bool = False) -> list[Board]:
    """Every board: real data first, then by limit, suite and task; of one task the board with the newest record first. A
    skipped cell is on the board that it would have had a row on. Without `stored` scores nothing is tested: differences have
    no interval, and accuracy has no ranks. for_pick: only what methods are picked by, without the ranks and further tests of
    pages, which take seconds where there are many cells."""
    stored = stored or ScoreStore()
    return [board for group in grouped(records) for board in boards_of(group, stored, for_pick=for_pick)]


def grouped(records: Sequence[Record]) -> list[list[Record]]:
    """The records that may share a table, in the order of their boards."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(_group(record), []).append(record)
    newest_first = sorted(groups.values(), key=lambda group: max(record.finished for record in group), reverse=True)
    return sorted(
        newest_first,
        key=lambda group: (is_sample(group[0]), limit_of(group[0]) or 0, group[0].suite, group[0].task),
    )


def _group(record: Record) -> tuple[Any, ...]:
    data = data_of(record).replace(BY_COUNT, "official")  # older records call the same rows official
    place = (is_sample(record), limit_of(record) or 0, record.suite, record.task, machine_of(record), data)
    return (*place, examples_of(record)[1])


def boards_of(group: Sequence[Record], stored: ScoreStore, *, for_pick: bool = False) -> list[Board]:
    """A board for each split that the group was evaluated on."""
    splits = splits_of(group)
    unmeasured = [record for record in group if not record.accuracy and not record.speed_only]
    return [
        _board(group, split, unmeasured if split == splits[0] else [], stored, for_pick=for_pick) for split in splits
    ]


def outlines_of(group: Sequence[Record]) -> list[Outline]:
    """As `boards_of`."""
    return [
        Outline(place_of(group, split), tuple(record for record in group if stands_on(record, split)))
        for split in splits_of(group)
    ]


def splits_of(group: Iterable[Record]) -> list[str]:
    """Those that have accuracies; and "" where cells have none, because their weights are random or because no cell ran."""
    group = list(group)
    splits = list(dict.fromkeys(part.split for record in group for part in record.accuracy))
    return splits if splits and not any(record.speed_only for record in group) else [*splits, ""]


def place_of(group: Sequence[Record], split: str) -> Place:
    sizes = filter(None, map(unofficial_splits, group))
    return Place(
        suite=group[0].suite,
        task=group[0].task,
        split=split,
        sample=is_sample(group[0]),
        limit=limit_of(group[0]),
        machine=machine_of(group[0]),
        data=data_of(max(group, key=order)),
        split_sizes=", or ".join(dict.fromkeys(sizes)),
    )


def _board(
    group: Sequence[Record], split: str, unmeasured: Sequence[Record], stored: ScoreStore, *, for_pick: bool
) -> Board:
    records = [record for record in group if stands_on(record, split)]
    comparisons = compare_board(records, split, stored, for_pick=for_pick)
    engines = {} if for_pick else compare_engines(records, split, stored)
    columns, rows = _table(records, split, comparisons, engines)
    return Board(
        **vars(place_of(group, split)),
        primary=primary_of(records, split),
        columns=columns,
        rows=tuple(rows),
        unmeasured=tuple(unmeasured),
        seeds=() if for_pick else tuple(seed_spreads(records, split, comparisons)),
        engines=engines,
        qat=() if for_pick else tuple(qat_parts(records, split, comparisons, stored)),
        corpora=_corpora(records),
    )


def _corpora(records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    models: dict[str, dict[str, None]] = {}
    for record in records:
        if identity := corpus_identity(record):
            models.setdefault(identity, {})[record.model] = None
    return {identity: tuple(names) for identity, names in models.items()}


def _table(
    records: Sequence[Record],
    split: str,
    comparisons: Mapping[str, Comparison],
    engines: Mapping[str, Comparison],
) -> tuple[tuple[Column, ...], list[Row]]:
    """Columns of a board and its rows, fastest first, those without a speed last. The order is no rank; ranks are columns."""
    if not records:
        return (), []
    first = accuracy_of(records[0], split)
    metrics = [first.primary, *(name for name in first.metrics if name != first.primary)] if first else []
    load = "real" if any(shown_load(record) == "real" for record in records if record.speed) else "fixed"
    columns = board_columns(metrics, split, load)
    base_models = {comparison.base.model for comparison in comparisons.values() if comparison.base}
    rows = []
    for record in records:
        comparison = comparisons[record.record_id]
        engine = engines.get(record.record_id, Comparison())
        values = row_values(record, split, metrics, load, comparison, engine, name_baseline=len(base_models) > 1)
        rows.append(Row(record, tuple(values), comparison))
    speed = next(place for place, column in enumerate(columns) if column.name.startswith("QPS"))
    return columns, sorted(rows, key=lambda row: -(row.values[speed].order or 0))
