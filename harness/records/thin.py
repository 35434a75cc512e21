"""Old nights that results folders can do without: all newest nights stay, and of the older ones the first of every week."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from harness.errors import RecordError, disk_fault
from harness.records import jsonl
from harness.records.schema import Record
from harness.records.store import order


@dataclass(frozen=True)
class Thinned:
    """runs: those that go. records: how many of them. scores: files of scores that no other record names."""

    runs: tuple[str, ...]
    records: int
    scores: tuple[Path, ...]


def old_runs(records: Iterable[Record], keep: int) -> set[str]:
    """Ids of the runs to drop. A run can go where each of its cells was measured `keep` times or more after it, so that rows
    keep the baseline of their night; of those that can, the first of a calendar week stays."""
    by_cell: dict[tuple[object, ...], list[Record]] = {}
    runs: dict[str, list[Record]] = {}
    for record in sorted(records, key=order):
        runs.setdefault(record.run_id, []).append(record)
        by_cell.setdefault(_cell(record), []).append(record)
    newer: dict[str, int] = {}
    for own in by_cell.values():
        measured_after = 0
        for record in reversed(own):
            newer[record.record_id] = measured_after
            measured_after += record.measured
    dropped, weeks = set[str](), set[tuple[object, ...]]()
    for run_id, own in sorted(runs.items(), key=lambda item: order(item[1][0])):
        if min(newer[record.record_id] for record in own) < keep:
            continue
        week = (
            own[0].suite,
            json.dumps(own[0].machine.get("cpu")),
            date.fromisoformat(own[0].finished[:10]).isocalendar()[:2],
        )
        if week in weeks:
            dropped.add(run_id)
        weeks.add(week)
    return dropped


def _cell(record: Record) -> tuple[object, ...]:
    machine = (record.machine.get("cpu"), record.machine.get("cores"), json.dumps(record.machine.get("gpus")))
    return (record.suite, record.task, record.model, record.label, record.seed, *machine)


def thin(read: Sequence[tuple[Path, Record]], keep: int, *, write: bool) -> Thinned:
    """Drop the old runs' records, and the scores that only they name. Other lines stay byte for byte. Raises RecordError."""
    dropped = old_runs((record for _, record in read), keep)
    kept_scores = {name for path, record in read if record.run_id not in dropped for name in _scores(path, record)}
    gone = [(path, record) for path, record in read if record.run_id in dropped]
    scores = dict.fromkeys(name for path, record in gone for name in _scores(path, record) if name not in kept_scores)
    files = [name for name in scores if name.is_file()]
    if write:
        try:
            for path in dict.fromkeys(path for path, _ in gone):
                _rewrite(path, dropped)
            for name in files:
                name.unlink()
        except OSError as error:
            raise RecordError(disk_fault(error, gone[0][0], "make the folder writable", "cannot be written")) from None
    return Thinned(tuple(sorted(dropped)), len(gone), tuple(files))


def _scores(path: Path, record: Record) -> list[Path]:
    names = [part.scores_file for part in record.accuracy if part.scores_file]
    return [path.parent / name for name in names if ".." not in Path(name).parts and not Path(name).is_absolute()]


def _rewrite(path: Path, dropped: set[str]) -> None:
    values = dict(jsonl.read(path))
    lines = path.read_bytes().split(b"\n")
    kept = [
        line for number, line in enumerate(lines, 1) if number in values and values[number]["run_id"] not in dropped
    ]
    if not kept:
        path.unlink()
        return
    fresh = path.with_name(f".{path.name}.part")
    fresh.write_bytes(b"\n".join([*kept, b""]))
    fresh.replace(path)
