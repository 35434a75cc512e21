from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import QuantboardError, RecordError, printable
from harness.errors import path as place
from harness.records import jsonl, schema
from harness.records.schema import (
    SCHEMA_VERSION,
    Record,
)


def done_before(folder: Path) -> dict[str, Record]:
    """The last good record of every cell key below a results folder, and the last of any kind where there is none."""
    found: dict[str, Record] = {}
    for entry in sorted((entry for _, entry in read(folder)), key=order):
        if (
            entry.status in ("ok", "invalid")
            or found.get(entry.key) is None
            or found[entry.key].status in ("failed", "skipped")
        ):
            found[entry.key] = entry
    return found


def order(entry: Record) -> tuple[str, str, str]:
    """Sorts records by when they were measured; a copy that was scored again comes right behind what it was made from."""
    return entry.finished, entry.run_id, entry.rescored or ""


def append(path: Path, record: Record) -> None:
    """Append one record as a line, and return only when it is on the disk. Raises RecordError."""
    jsonl.add(path, record.model_dump_json())


def read(folder: Path) -> Iterator[tuple[Path, Record]]:
    """Every record below a folder, files in name order. A last line that a killed run cut short is passed over; any other
    broken line raises RecordError with file and line."""
    for path in sorted(folder.rglob("*.jsonl")):
        for number, value in jsonl.read(path):
            try:
                entry = parse(value)
            except ValidationError as error:
                what = printable(_words(error))
                raise RecordError(
                    f"{path}: line {number}: {what}: not a record of schema version {SCHEMA_VERSION}; {jsonl.REMEDY}"
                ) from None
            yield path, entry


def _words(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{place(first['loc']) or 'the line'}: {first['msg'].removeprefix('Value error, ')}"


def parse(value: Any) -> Record:
    """A record from its JSON value; older schema versions are migrated here once there are any. Raises ValidationError, also
    where the free parts do not hold what pages and comparisons read of them."""
    found = Record.model_validate_json(json.dumps(value))
    schema.check(found.settings, found.machine)
    return found


def select(records: Sequence[Record], name: str, *, lacking: Sequence[Record] = (), what: str = "") -> list[Record]:
    """The records that a name means: a record id or the beginning of a single one, a label, a backend, a model, or
    MODEL/LABEL. Raises QuantboardError where it means none. lacking: records without `what` the caller needs, such as were
    skipped; a name that means these alone is told so."""
    found = _named(records, name)
    if found:
        return found
    if without := _named(lacking, name):
        raise QuantboardError(_why_without(without, name, what))
    known = sorted({one for entry in records for one in names_of(entry)})
    near = difflib.get_close_matches(name, known, 1)
    rest = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known[:12]) or 'no records yet'}"
    raise QuantboardError(f"no record is called '{name}'; {rest}")


def _named(records: Sequence[Record], name: str) -> list[Record]:
    by_id = [entry for entry in records if entry.record_id == name]
    if not by_id:
        by_id = [entry for entry in records if len(name) >= 8 and entry.record_id.startswith(name)]
        if len(by_id) > 1:
            raise QuantboardError(f"'{name}' is the beginning of {len(by_id)} record ids; give more of it")
    return by_id or [entry for entry in records if name in names_of(entry)]


def _why_without(entries: Sequence[Record], name: str, what: str) -> str:
    """Of the newest; reasons may come from a log and have several lines."""
    newest = max(entries, key=order)
    reason = f" ({' '.join(newest.reason.split())})" if newest.reason else ""
    more = f", like {len(entries) - 1} more that '{name}' means" if len(entries) > 1 else ""
    remedy = " ".join(newest.remedy.split()) or f"run it again: {newest.command}"
    return f"{newest.record_id} is {newest.status}{reason} and so has no {what}{more}; {remedy}"


def names_of(entry: Record) -> tuple[str, ...]:
    return (entry.label, entry.backend, entry.model, f"{entry.model}/{entry.label}")
