"""Results files: one JSON object a line. A killed process can leave the last line incomplete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backends import artefacts
from harness.errors import RecordError, Tell, disk_fault, refuse

BEGIN = b'{"schema_version"'
"""How every line that we write begins."""

FIX = "restore the file from git or delete the line"


def append(path: Path, line: str) -> None:
    """Append a line, and return only when it is on the disk.

    An incomplete last line of a killed process is removed first: followed by another line, it would look like a damaged
    file. Raises RecordError.
    """
    try:
        artefacts.make_folder(path.parent)
        is_new = not path.exists()
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
        if is_new:
            artefacts.sync(path.parent)
    except OSError as error:
        raise RecordError(disk_fault(error, path, "make the folder writable", "cannot write the record")) from None


def _tail(path: Path) -> bytes:
    """What follows the last newline. The whole file is read only where something does."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return b""
    return path.read_bytes().rpartition(b"\n")[2]


def is_cut(tail: bytes) -> bool:
    """Whether the end of a file, without a newline, is a line that a process was writing when it died.

    Such a line begins as ours do and is incomplete. The beginning of a JSON object is never valid JSON itself, so it does
    not matter where the line was cut.
    """
    if not tail or not (tail.startswith(BEGIN) or BEGIN.startswith(tail)):
        return False
    try:
        json.loads(tail)
    except ValueError:
        return True
    except RecursionError:
        return False
    return False


def read(path: Path, tell: Tell = refuse) -> Iterator[tuple[int, Any]]:
    """Number and JSON value of every line; an incomplete last line is skipped. `tell` gets any other damage with file and line: `refuse`
    raises RecordError, and with another `tell` the line alone is left out."""
    for number, _, line in lines(path, tell):
        for value in parsed(path, number, line, tell):
            yield number, value


def lines(path: Path, tell: Tell = refuse) -> Iterator[tuple[int, int, bytes]]:
    """Number, first byte and content of every line that is neither blank nor an incomplete last one."""
    try:
        if not path.is_file():
            tell(f"{path}: not a file (a folder, or a broken link); move it out of the results folder or rename it")
            return
        found = path.read_bytes().split(b"\n")
    except OSError as error:
        tell(f"{path}: cannot be read: {error.strerror}; make it readable or move it away")
        return
    start = 0
    for number, line in enumerate(found, 1):
        if line.strip() and not (number == len(found) and is_cut(line)):
            yield number, start, line
        start += len(line) + 1


def parsed(path: Path, number: int, line: bytes, tell: Tell = refuse) -> Iterator[Any]:
    """The JSON value of a line; nothing where it is damaged."""
    try:
        yield json.loads(line)
    except RecursionError:
        tell(f"{path}: line {number}: nested too deeply for a record; {FIX}")
    except ValueError:
        tell(f"{path}: line {number}: not a JSON object; {FIX}")
