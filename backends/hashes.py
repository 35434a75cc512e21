"""Hashes of files, remembered by what tells that a file has not changed since: its path, inode, size, mtime and ctime (a program can
set mtime, but not ctime). The memory is one file, to which every process appends what it has hashed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

FILE = "known"
"""The memory's name in its folder. A line holds what identifies a file as it was, its SHA-256, and a check of the two."""
LARGEST = 16 << 20
"""Bytes of a memory, some 150,000 files; a larger one is begun anew."""


class Memory:
    """The hashes that are remembered in a folder. Lines that are damaged, or cut short by a kill, are not believed."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._lines: dict[str, list[str]] = {}
        self._read = self._inode = 0

    def recall(self, name: str) -> str | None:
        line = self._lines.get(name)
        return line[0] if line and line[1] == _check(name, line[0]) else None

    def refresh(self) -> None:
        """Read what was added since, by whichever process; forget all where the file is gone."""
        try:
            stat = self._file.stat()
            if stat.st_ino != self._inode or stat.st_size < self._read:
                self._lines, self._read, self._inode = {}, 0, stat.st_ino
            if stat.st_size > self._read:
                with self._file.open("rb") as file:
                    file.seek(self._read)
                    added = file.read()
                whole = added[: added.rfind(b"\n") + 1]
                self._read += len(whole)
                words = (line.split() for line in whole.decode("ascii", "replace").splitlines())
                self._lines |= {line[0]: line[1:] for line in words if len(line) == 3}
        except OSError:
            self._lines, self._read, self._inode = {}, 0, 0

    def remember(self, hashes: Iterable[tuple[str, str]]) -> None:
        """Append (name, SHA-256), all in one write. A full or read-only disk costs hashing the files again next time, and nothing
        else."""
        text = "".join(f"{name} {sha256} {_check(name, sha256)}\n" for name, sha256 in hashes)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            if self._read > LARGEST:
                self._file.unlink(missing_ok=True)
            with self._file.open("ab", buffering=0) as file:
                file.write(text.encode())
        except OSError:
            pass


memory_in = cache(Memory)
"""The memory in a folder: one for the whole process."""


def name_of(path: Path | str) -> str:
    """Identifies a file with the content that it has now. Raises OSError."""
    stat = os.stat(path)  # noqa: PTH116 (half the time of Path, for thousands of files)
    facts = f"{os.path.abspath(path)}|{stat.st_ino}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}"  # noqa: PTH100
    return hashlib.sha256(os.fsencode(facts)).hexdigest()[:16]


def _check(name: str, sha256: str) -> str:
    return hashlib.sha256(f"{name} {sha256}".encode()).hexdigest()[:16]


def sha256s(paths: Iterable[Path | str], folder: Path | None = None) -> list[str]:
    """SHA-256 of files in hex. folder: of a memory, which spares reading unchanged files again. Raises OSError where one cannot be
    read."""
    memory = memory_in(folder) if folder else None
    found, new = [], []
    if memory:
        memory.refresh()
    for path in paths:
        name = name_of(path) if memory else ""  # before reading: what changes meanwhile is another file
        sha256 = memory.recall(name) if memory else None
        if sha256 is None:
            with open(path, "rb") as file:  # noqa: PTH123
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            new.append((name, sha256))
        found.append(sha256)
    if memory and new:
        memory.remember(new)
    return found
