"""Results files: a JSON object a line, of which a kill can cut the last one short."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import RecordError

BEGIN = b'{"schema_version"'
"""How every line that we write begins."""


REMEDY = "restore the file from git or delete the line"


def add(path: Path, line: str) -> None:
    """Append a line, and return only when it is on the disk. What a killed run left of a line at the end of the file is taken
    away: followed by another line it could not be told from a broken one. Raises RecordError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            end = file.tell()
            tail = _tail(path) if end else b""
            if is_cut(tail):
                file.truncate(end - len(tail))
            elif tail:
                file.write(b"\n")
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RecordError(
            f"{path}: cannot write the record: {error.strerror}; free some space or make the folder writable"
        ) from None


def _tail(path: Path) -> bytes:
    """What stands behind the last newline; the whole file is read only where that is anything."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return b""
    return path.read_bytes().rpartition(b"\n")[2]


def is_cut(tail: bytes) -> bool:
    """Whether the end of a file without a newline is a line that was being written when the process died, wherever it was
    cut: it begins as one of ours and is not whole. A part of a JSON object is never JSON itself."""
    if not tail or not (tail.startswith(BEGIN) or BEGIN.startswith(tail)):
        return False
    try:
        json.loads(tail)
    except ValueError:
        return True
    except RecursionError:
        return False
    return False


def read(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and JSON value of every line; a cut last one is passed over. Raises RecordError with file and line."""
    try:
        if not path.is_file():
            raise RecordError(
                f"{path}: is no file (a folder, or a link to nothing); move it out of the results folder or rename it"
            )
        found = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}; make it readable or move it away") from None
    for number, line in enumerate(found, 1):
        if not line.strip() or (number == len(found) and is_cut(line)):
            continue
        try:
            value = json.loads(line)
        except RecursionError:
            raise RecordError(f"{path}: line {number}: nested too deeply for a record; {REMEDY}") from None
        except ValueError:
            raise RecordError(f"{path}: line {number}: not a JSON object; {REMEDY}") from None
        yield number, value
