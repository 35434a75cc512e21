"""Records to the rows that pages show. Everything that compares cells is derived here, from records alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.record import Accuracy, Figure, Record, Speed


@dataclass(frozen=True)
class Value:
    """What a table cell shows, and what it is sorted by (None sorts last)."""

    text: str
    order: float | None = None
    low: str = ""
    high: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    record: Record
    page: str
    columns: tuple[Value, ...]


@dataclass(frozen=True)
class Column:
    name: str
    unit: str
    title: str
    """What the figure means, shown when the header is pointed at and in the list below the table."""


@dataclass(frozen=True)
class Board:
    """Rows that may stand side by side: one suite, task, kind of data, part of the evaluation set, and machine."""

    suite: str
    task: str
    split: str
    sample: bool
    whole: bool
    machine: str
    data: str
    primary: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    others: tuple[Row, ...]
    """Cells without a measurement: failed and skipped."""


SPEED_COLUMNS = (
    ("single_stream", "real", "p50_ms", "p50", "ms", "Median latency, single stream: one sample a query, at its own length."),
    ("single_stream", "real", "p90_ms", "p90", "ms", "90th percentile of latency, single stream at real lengths (MLPerf's figure for single stream)."),
    ("single_stream", "real", "p99_ms", "p99", "ms", "99th percentile of latency, single stream at real lengths."),
    ("offline", "real", "qps", "QPS, real lengths", "/s", "Samples a second, offline: all samples at hand, sorted by length, batches padded to their longest."),
    ("offline", "fixed", "qps", "QPS, fixed length", "/s", "Samples a second, offline, every sample padded to max_length."),
)  # fmt: skip


def latest(records: Iterable[Record]) -> list[Record]:
    """The newest measured record of every cell key; an unmeasured one (failed, skipped) only where the same cell was never
    measured on that machine."""
    found: dict[str, Record] = {}
    for entry in sorted(records, key=lambda one: one.finished):
        if (
            entry.status in ("ok", "invalid")
            or entry.key not in found
            or found[entry.key].status in ("failed", "skipped")
        ):
            found[entry.key] = entry
    same_cell: dict[tuple[Any, ...], Record] = {}
    for entry in sorted(found.values(), key=lambda one: one.finished):
        name = (
            entry.suite,
            entry.task,
            entry.model,
            entry.label,
            entry.seed,
            is_sample(entry),
            is_whole(entry),
            machine_of(entry),
        )
        old = same_cell.get(name)
        if old is None or entry.status in ("ok", "invalid") or old.status in ("failed", "skipped"):
            same_cell[name] = entry
    return list(same_cell.values())


def is_sample(entry: Record) -> bool:
    return entry.data is not None and entry.data.kind == "sample"


def is_whole(entry: Record) -> bool:
    return entry.settings.get("limit") is None


def machine_of(entry: Record) -> str:
    """How pages call a machine: its GPU where the cell ran on one, else its processor."""
    here = entry.machine
    gpus = here.get("gpus") or []
    if gpus and entry.device == "cuda":
        return str(gpus[0]["name"])
    return f"{here.get('cpu', 'unknown processor')}, {here.get('cores', '?')} cores"


def page_name(entry: Record) -> str:
    """File name of a cell's page, made of letters that need no escaping anywhere."""
    return "cell-" + re.sub(r"[^A-Za-z0-9_-]", "-", entry.record_id) + ".html"


def boards(records: Sequence[Record]) -> list[Board]:
    """Every board, real data first. A skipped cell stands on the board it would have stood on."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for entry in records:
        data = entry.data.label if entry.data else "unknown"
        sample, whole = is_sample(entry), is_whole(entry)
        groups.setdefault((sample, not whole, entry.suite, entry.task, machine_of_board(entry), data), []).append(entry)
    found = []
    for (sample, part, suite, task, machine, data), entries in sorted(groups.items(), key=lambda item: item[0]):
        measured = [entry for entry in entries if entry.accuracy]
        splits = list(dict.fromkeys(part.split for entry in measured for part in entry.accuracy)) or [""]
        for number, split in enumerate(splits):
            rows = [entry for entry in measured if accuracy_of(entry, split)]
            columns, lines = table(rows, split)
            others = (
                [Row(entry, page_name(entry), ()) for entry in entries if not entry.accuracy] if number == 0 else []
            )
            primary = columns[0].name if columns else ""
            found.append(
                Board(
                    suite, task, split, sample, not part, machine, data, primary, columns, tuple(lines), tuple(others)
                )
            )
    return found


def machine_of_board(entry: Record) -> str:
    """Rows of one machine share a board whichever of its devices they ran on."""
    here = entry.machine
    gpus = ", ".join(str(gpu["name"]) for gpu in here.get("gpus") or [])
    return f"{here.get('cpu', 'unknown processor')}, {here.get('cores', '?')} cores" + (
        f", {gpus}" if gpus else ", no GPU"
    )


def accuracy_of(entry: Record, split: str) -> Accuracy | None:
    return next((part for part in entry.accuracy if part.split == split), None)


def table(entries: Sequence[Record], split: str) -> tuple[tuple[Column, ...], list[Row]]:
    """Columns of a board and its rows, fastest first (no figure of speed last); the order is no rank."""
    first = accuracy_of(entries[0], split) if entries else None
    if first is None:
        return (), []
    names = [first.primary, *(name for name in first.metrics if name != first.primary)]
    columns = [Column(name, "%", f"{name}, official definition, {split}, with its 95% interval.") for name in names]
    columns.append(
        Column(
            "difference",
            "points",
            f"{first.primary} less that of the same model and seed on the baseline backend. Not a paired test.",
        )
    )
    columns += [Column(name, unit, title) for _, _, _, name, unit, title in SPEED_COLUMNS]
    columns += [
        Column(
            "INT8 share",
            "% of MACs",
            "Share of the multiply-accumulates that really ran as integer products, by the engine's own placement.",
        ),
        Column("engine", "MiB", "Size of what the engine loads."),
        Column(
            "peak memory",
            "MiB",
            "Peak resident memory of the cell's own process in its speed rounds; device memory is on the cell's page.",
        ),
        Column("cold start", "s", "From the start of the process to the first answer."),
    ]
    base = {(one.model, one.seed): one for one in entries if one.baseline}
    rows = [Row(entry, page_name(entry), tuple(_values(entry, split, names, base))) for entry in entries]
    speed = len(names) + 1 + next(i for i, column in enumerate(SPEED_COLUMNS) if column[3] == "QPS, real lengths")
    return tuple(columns), sorted(rows, key=lambda row: -(row.columns[speed].order or 0))


def _values(entry: Record, split: str, names: Sequence[str], base: Mapping[tuple[str, int], Record]) -> Iterable[Value]:
    part = accuracy_of(entry, split)
    assert part is not None
    for name in names:
        yield figure(part.metrics.get(name))
    yield _difference(entry, split, names[0], base.get((entry.model, entry.seed)))
    for scenario, load, field, *_ in SPEED_COLUMNS:
        speed = speed_of(entry, scenario, load)
        value = getattr(speed, field) if speed else None
        note = f"batch {speed.batch_size}" if speed and scenario == "offline" else ""
        yield figure(value, note=note) if value else Value("simulation" if entry.simulated else "")
    yield Value(f"{100 * entry.flops.int8_share:.1f}", entry.flops.int8_share) if entry.flops else Value("")
    yield mebibytes(entry.artifact_bytes)
    yield mebibytes(entry.memory.peak_rss_bytes if entry.memory else None)
    yield figure(Figure(value=entry.cold_start_seconds)) if entry.cold_start_seconds is not None else Value("")


def _difference(entry: Record, split: str, name: str, base: Record | None) -> Value:
    if entry.baseline:
        return Value("baseline", 0.0)
    mine, theirs = accuracy_of(entry, split), accuracy_of(base, split) if base else None
    if not mine or not theirs or name not in mine.metrics or name not in theirs.metrics:
        return Value("")
    points = mine.metrics[name].value - theirs.metrics[name].value
    return Value(f"{points:+.2f}", points)


def speed_of(entry: Record, scenario: str, load: str) -> Speed | None:
    """A record's speed in a scenario under a load; of its largest batch."""
    parts = [part for part in entry.speed if part.scenario == scenario and part.load == load]
    return max(parts, key=lambda part: part.batch_size, default=None)


def figure(value: Figure | None, *, note: str = "") -> Value:
    """Rounded for reading; the cell's page has all digits."""
    if value is None:
        return Value("")
    digits = 2 if abs(value.value) < 100 else 1 if abs(value.value) < 1000 else 0
    low = f"{value.low:.{digits}f}" if value.low is not None else ""
    high = f"{value.high:.{digits}f}" if value.high is not None else ""
    return Value(f"{value.value:.{digits}f}", value.value, low, high, note)


def mebibytes(value: int | None) -> Value:
    return Value("") if value is None else Value(f"{value / 2**20:.1f}", float(value))


def flatten(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Every leaf of a record as (key path, JSON text), for the page that holds all of it."""
    if isinstance(value, dict) and value:
        return [leaf for key, entry in value.items() for leaf in flatten(entry, f"{path}.{key}" if path else key)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [leaf for index, entry in enumerate(value) for leaf in flatten(entry, f"{path}[{index}]")]
    return [(path, value if isinstance(value, str) else json.dumps(value))]
