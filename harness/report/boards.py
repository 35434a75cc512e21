"""Records to the rows that pages show. Everything that compares cells is derived here, from records alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.records.store import newest_by_key, order
from harness.report.columns import (
    COMPARED,
    QPS,
    ROUNDS,
    SPEED_COLUMNS,
    SPEED_COMPARED,
    Column,
    Value,
    _values,
    in_doubt,
)
from harness.report.comparability import (
    accuracy_stands,
    data_of,
    examples_of,
    is_sample,
    limit_of,
    machine_of_board,
    parts_of,
    text_of,
)
from harness.report.compare import (
    Comparison,
    OverSeeds,
    accuracy_of,
    compare_board,
    compare_engines,
    over_seeds,
    speed_of,
)
from harness.report.qat_parts import Trained, in_parts
from tasks.identity import BY_COUNT


@dataclass(frozen=True)
class Row:
    record: Record
    page: str
    columns: tuple[Value, ...]
    beside: Comparison = field(default_factory=Comparison)

    @property
    def charted(self) -> bool:
        """No rule fails for what the chart shows of it: what was computed, and samples a second at real lengths."""
        speed = speed_of(self.record, "offline", "real")
        return self.chartable and speed is not None and not in_doubt(self.record, speed)

    @property
    def chartable(self) -> bool:
        """It has what the chart shows, whether or not a rule fails for it."""
        return self.record.measured and speed_of(self.record, "offline", "real") is not None

    @property
    def early(self) -> bool:
        """Its speed was measured by the first version of the program."""
        return bool(self.record.speed) and not any(one.mean_tokens for part in self.record.speed for one in part.rounds)

    @property
    def accuracy_stands(self) -> bool:
        return accuracy_stands(self.record)


@dataclass(frozen=True)
class Board:
    """Rows that may stand side by side: one suite, task, machine, data, and the same examples evaluated."""

    suite: str
    task: str
    split: str
    sample: bool
    limit: int | None
    """Examples that --limit left of the evaluation set."""
    machine: str
    data: str
    parts: str
    """How many rows its splits have, where that is another number than the official split's; and what is missing."""
    primary: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    others: tuple[Row, ...]
    """Cells without a measurement: failed and skipped."""
    seeds: tuple[OverSeeds, ...] = ()
    engines: Mapping[str, Comparison] = field(default_factory=dict)
    """By record id: cells with integer products against their own engine without."""
    trained: tuple[Trained, ...] = ()
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of general stages: what identifies each text, and the models that read it."""


def latest(records: Iterable[Record]) -> list[Record]:
    """The newest measured record of every cell key; an unmeasured one (failed, skipped) only where the same cell was never
    measured on that machine."""
    same_cell: dict[tuple[Any, ...], Record] = {}
    for entry in sorted(newest_by_key(records).values(), key=order):
        name = (
            entry.suite,
            entry.task,
            entry.model,
            entry.label,
            entry.seed,
            examples_of(entry),
            machine_of_board(entry),
        )
        # what could not run has no device yet
        same_cell[(name, entry.device if entry.measured else "")] = entry
    measured = {name for name, device in same_cell if device}
    return [entry for (name, device), entry in same_cell.items() if device or name not in measured]


def page_name(entry: Record) -> str:
    """File name of a cell's page, made of letters that need no escaping anywhere."""
    return "cell-" + re.sub(r"[^A-Za-z0-9_-]", "-", entry.record_id) + ".html"


def boards(records: Sequence[Record], stored: ScoreStore | None = None) -> list[Board]:
    """Every board, real data first; of one suite and task the one with the newest record. A skipped cell stands on the board it would have stood on. Without `stored` scores
    nothing is tested: differences have no interval, and accuracy no ranks."""
    stored = stored or ScoreStore()
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for entry in records:
        data = data_of(entry)
        data = data.replace(BY_COUNT, "official")  # as records of before call the same rows
        place = (is_sample(entry), limit_of(entry) or 0, entry.suite, entry.task, machine_of_board(entry), data)
        groups.setdefault((*place, examples_of(entry)[1]), []).append(entry)
    found = []
    newest_first = sorted(groups.items(), key=lambda item: max(entry.finished for entry in item[1]), reverse=True)
    for (sample, limit, suite, task, machine, data, _), entries in sorted(newest_first, key=lambda item: item[0][:4]):
        data = data_of(max(entries, key=order))
        measured = [entry for entry in entries if entry.accuracy]
        splits = list(dict.fromkeys(part.split for entry in measured for part in entry.accuracy)) or [""]
        parts = ", or ".join(dict.fromkeys(words for entry in entries if (words := parts_of(entry))))
        for number, split in enumerate(splits):
            rows = [entry for entry in measured if accuracy_of(entry, split)]
            beside = compare_board(rows, split, stored)
            engines = compare_engines(rows, split, stored)
            columns, lines = table(rows, split, beside, engines)
            others = (
                [Row(entry, page_name(entry), ()) for entry in entries if not entry.accuracy] if number == 0 else []
            )
            primary = columns[0].name if columns else ""
            found.append(
                Board(
                    *(suite, task, split, sample, limit or None, machine, data, parts),
                    *(primary, columns, tuple(lines)),
                    others=tuple(others),
                    seeds=tuple(over_seeds(rows, split, beside)),
                    engines=engines,
                    trained=tuple(in_parts(rows, split, beside, stored)),
                    texts=_texts(rows),
                )
            )
    return found


def _texts(rows: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for entry in rows:
        if text := text_of(entry):
            found.setdefault(text, {})[entry.model] = None
    return {text: tuple(models) for text, models in found.items()}


def table(
    entries: Sequence[Record], split: str, beside: Mapping[str, Comparison], engines: Mapping[str, Comparison]
) -> tuple[tuple[Column, ...], list[Row]]:
    """Columns of a board and its rows, fastest first (no figure of speed last); the order is no rank, ranks are columns."""
    first = accuracy_of(entries[0], split) if entries else None
    if first is None:
        return (), []
    names = [first.primary, *(name for name in first.metrics if name != first.primary)]
    columns = [Column(name, "%", f"{name}, official definition, {split}, with its 95% interval.") for name in names]
    columns += [Column(name, unit, title.format(metric=first.primary)) for name, unit, title in COMPARED]
    for *_, name, unit, title in SPEED_COLUMNS:
        columns.append(Column(name, unit, title.format(rounds=ROUNDS)))
        if name == QPS:
            columns += [Column(*column) for column in SPEED_COMPARED]
    columns += [
        Column(
            "INT8 share",
            "% of MACs",
            "Share of the multiply-accumulates that really ran as integer products, by the engine's own placement.",
        ),
        Column("parameters", "million", "Numbers that the model computes with, whatever their precision."),
        Column("engine", "MiB", "Size of what the engine loads."),
        Column(
            "peak memory",
            "MiB",
            "Peak resident memory of the cell's own process in its speed rounds; device memory is on the cell's page.",
        ),
        Column(
            "cold start",
            "s",
            "From the start of the process to the first answer, page cache warm: the median of the rounds. Building the engine is not in it.",
        ),
    ]
    several = len({one.base.model for one in beside.values() if one.base}) > 1
    rows = []
    for entry in entries:
        own, engine = beside[entry.record_id], engines.get(entry.record_id, Comparison())
        values = _values(entry, split, names, own, engine, name_base=several)
        rows.append(Row(entry, page_name(entry), tuple(values), own))
    speed = next(place for place, column in enumerate(columns) if column.name == QPS)
    return tuple(columns), sorted(rows, key=lambda row: -(row.columns[speed].order or 0))


def flatten(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Every leaf of a record as (key path, JSON text), for the page that holds all of it."""
    if isinstance(value, dict) and value:
        return [leaf for key, entry in value.items() for leaf in flatten(entry, f"{path}.{key}" if path else key)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [leaf for index, entry in enumerate(value) for leaf in flatten(entry, f"{path}[{index}]")]
    return [(path, value if isinstance(value, str) else json.dumps(value))]
