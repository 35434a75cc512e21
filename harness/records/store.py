"""Records in results folders: append one, read all, order them, find those that a name stands for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from harness.errors import QuantboardError, Tell, did_you_mean, key_path, printable, refuse
from harness.records import jsonl
from harness.records.schema import SCHEMA_VERSION, Record, check_free_parts

SHORTEST_ID = 8
"""A record id may be cut short to this many characters."""


def append(path: Path, record: Record) -> None:
    """Append one record as a line, and return only when it is on the disk. Raises RecordError."""
    jsonl.append(path, record.model_dump_json())


def read(folder: Path, tell: Tell = refuse) -> Iterator[tuple[Path, Record]]:
    """Every record below a folder with its file, files in the order of their names.

    A last line that a killed run cut short is skipped. `tell` gets any other broken line with file and line: `refuse` raises
    RecordError, and with another `tell` it costs that record alone.
    """
    for path in files(folder):
        for _, _, record in read_file(path, tell):
            yield path, record


def files(folder: Path) -> list[Path]:
    """The results files below a folder, in the order of their names."""
    return sorted(folder.rglob("*.jsonl"))


def sizes(folder: Path) -> dict[Path, int]:
    """Bytes of every results file below a folder, which tell later what was appended meanwhile."""
    found = {}
    for path in files(folder):
        with suppress(FileNotFoundError):
            found[path] = path.stat().st_size
    return found


def read_file(path: Path, tell: Tell = refuse) -> Iterator[tuple[int, bytes, Record]]:
    """Every record of a file: the first byte of its line, the line, the record. As `read`."""
    for number, start, line in jsonl.lines(path, tell):
        record = _parsed(path, number, line, tell)
        if record:
            yield start, line, record


def _parsed(path: Path, number: int, line: bytes, tell: Tell) -> Record | None:
    """Nearly all lines are whole, and one parser reads them; what it refuses is read again for its fault."""
    with suppress(ValidationError):
        return _checked(line)
    for value in jsonl.parsed(path, number, line, tell):
        try:
            return parse(value)
        except ValidationError as error:
            problem = printable(_first_problem(error))
            tell(f"{path}: line {number}: {problem}: not a record of schema version {SCHEMA_VERSION}; {jsonl.FIX}")
    return None


def parse(value: Any) -> Record:
    """A record from its JSON value. Older schema versions are to be migrated here once there are any.

    Raises ValidationError, also where `settings` or `machine` do not hold what pages and comparisons read of them.
    """
    return _checked(json.dumps(value))


def _checked(line: str | bytes) -> Record:
    record = Record.model_validate_json(line)
    check_free_parts(record.settings, record.machine)
    return record


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{key_path(first['loc']) or 'the line'}: {first['msg'].removeprefix('Value error, ')}"


class Dated(Protocol):
    """What decides which of several measurements of a cell is the newest. A record has it."""

    @property
    def key(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def measured(self) -> bool: ...
    @property
    def finished(self) -> str: ...
    @property
    def run_id(self) -> str: ...
    @property
    def rescored(self) -> str | None: ...


Item = TypeVar("Item", bound=Dated)


def order(record: Dated) -> tuple[str, str, str]:
    """Sort key: when a record was measured. A rescored copy comes right after the record that it was made from."""
    return record.finished, record.run_id, record.rescored or ""


def newest_by_key(records: Iterable[Item]) -> dict[str, Item]:
    """By cell key the newest measured record, or the newest of any status where none was measured."""
    newest: dict[str, Item] = {}
    for record in sorted(records, key=order):
        known = newest.get(record.key)
        if record.measured or known is None or not known.measured:
            newest[record.key] = record
    return newest


def names_of(record: Record) -> tuple[str, ...]:
    """What a user may call a record, apart from its id."""
    return (record.label, record.backend, record.model, f"{record.model}/{record.label}")


def select(records: Sequence[Record], name: str, *, lacking: Sequence[Record] = (), what: str = "") -> list[Record]:
    """The records that a name stands for: a record id or the beginning of a single one, a label, a backend, a model, or
    MODEL/LABEL. Raises QuantboardError where it stands for none.

    lacking: records without `what` the caller needs (skipped ones, for example). Where the name stands for these alone,
    the error says why.
    """
    if selected := _named(records, name):
        return selected
    if without := _named(lacking, name):
        raise QuantboardError(_why_without(without, name, what))
    known = sorted({known for record in records for known in names_of(record)})
    if not known:
        raise QuantboardError(f"no record is called '{name}'; there are no records yet")
    raise QuantboardError(f"no record is called '{name}'{did_you_mean(name, known, 'there are')}")


def _named(records: Sequence[Record], name: str) -> list[Record]:
    by_id = [record for record in records if record.record_id == name]
    if not by_id and len(name) >= SHORTEST_ID:
        by_id = [record for record in records if record.record_id.startswith(name)]
        if len(by_id) > 1:
            raise QuantboardError(f"'{name}' is the beginning of {len(by_id)} record ids; give more of it")
    return by_id or [record for record in records if name in names_of(record)]


def _why_without(records: Sequence[Record], name: str, what: str) -> str:
    """One line about the newest of these records. Its reason may come from a log and have several lines."""
    newest = max(records, key=order)
    reason = f" ({' '.join(newest.why.split())})" if newest.why else ""
    others = len(records) - 1
    more = (
        f" ({others} other record{'s have' if others > 1 else ' has'} the name '{name}' and none either)"
        if others
        else ""
    )
    fix = " ".join(newest.remedy.split()) or f"run it again: {newest.command}"
    return f"{newest.record_id} is {newest.standing}{reason} and has no {what}{more}; {fix}"
