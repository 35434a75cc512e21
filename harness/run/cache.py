"""What lies in the cache: how large and old it is, which records need it, whether it is what was written, what may go."""

from __future__ import annotations

import errno
import fcntl
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from backends import artefacts
from harness.checkpoints.intact import checkpoint_fault
from harness.errors import QuantboardError, disk_fault
from harness.records.schema import Record
from harness.records.store import newest_by_key
from harness.run.work import read_kept

Kind = Literal[
    "checkpoint",
    "training state",
    "scores",
    "unfinished cell",
    "left over",
    "engine",
    "tokens",
    "source",
    "site",
    "hashes",
    "broken",
]
KINDS: tuple[str, ...] = get_args(Kind)
USELESS = ("broken", "left over")
"""Kinds that nothing will read again."""
DAY = 86_400.0


@dataclass(frozen=True)
class Entry:
    """name: its path below the cache. size: in bytes. used: when it was last read or written, in seconds since 1970. needed: why
    it is kept, empty where nothing needs it: it is made again when it is wanted."""

    kind: Kind
    name: str
    path: Path
    size: int
    used: float
    needed: str


def entries(cache: Path, records: Iterable[Record]) -> list[Entry]:
    """Everything in the cache, by kind and name."""
    newest = newest_by_key(records)
    measured = {key for key, record in newest.items() if record.measured}
    users: dict[str, int] = {}
    for record in newest.values():
        if record.measured and record.checkpoint:
            for key in {record.checkpoint.key, *record.checkpoint.lineage}:
                users[key] = users.get(key, 0) + 1
    found = []
    for kind, path in _places(cache):
        key = re.sub(r"^\.(state|part)-", "", path.name)
        needed = ""
        if kind == "checkpoint" and not path.name.startswith("."):
            needed = _records(users.get(key, 0))
        elif kind == "training state" and not (path.parent / key).is_dir():
            needed = "an interrupted training continues from it"
        elif kind == "scores":
            needed = _records(int(key in measured))
        elif kind == "unfinished cell" and key in measured:
            kind = "left over"
        elif kind == "unfinished cell":
            needed = "an interrupted run continues from it"
        size, used = _size_and_use(path)
        found.append(Entry(kind, path.relative_to(cache).as_posix(), path, size, used, needed))
    return sorted(found, key=lambda entry: (KINDS.index(entry.kind), entry.name))


def _records(count: int) -> str:
    return f"{count} record{'s' if count > 1 else ''}" if count else ""


def _places(cache: Path) -> Iterator[tuple[Kind, Path]]:
    folders: list[tuple[Kind, str]] = [
        ("checkpoint", "checkpoints/*"),
        ("scores", "scored/*"),
        ("unfinished cell", "cells/*"),
        ("engine", "engines/*/*"),
        ("tokens", "features/*"),
        ("tokens", "corpus/*"),
        ("tokens", "candidates/*"),
        ("tokens", "augmented/*"),
        ("source", "sources/*"),
        ("site", "site/*"),
        ("hashes", "hashes"),
        ("hashes", "engines/hashes"),
        ("hashes", "arrow"),
        ("broken", "broken/*"),
        ("broken", "engines/broken/*"),
    ]
    for kind, pattern in folders:
        for path in cache.glob(pattern):
            if pattern == "engines/*/*" and path.parent.name in ("hashes", "broken"):
                continue
            if path.suffix == ".lock" or path.name.endswith(artefacts.MARK):
                continue  # a lock may be held; a hash goes with its file
            yield ("training state" if path.name.startswith(".state-") else kind), path


def _size_and_use(path: Path) -> tuple[int, float]:
    size, used = 0, 0.0
    for file in path.rglob("*") if path.is_dir() else (path, artefacts.mark_of(path)):
        with suppress(OSError):
            stat = file.stat()
            if file.is_file():
                size, used = size + stat.st_size, max(used, stat.st_atime, stat.st_mtime)
    return size, used or path.stat().st_mtime


def verify(cache: Path) -> list[tuple[str, str]]:
    """Read every byte and compare it with its hash; what is broken is put aside. Returns (name, what is wrong) of each.

    Raises QuantboardError while a run uses the cache, and where something cannot be moved.
    """
    broken: list[tuple[str, str]] = []
    with unused(cache):
        shutil.rmtree(cache / "hashes", ignore_errors=True)  # nothing is believed unread
        shutil.rmtree(cache / "engines" / "hashes", ignore_errors=True)
        shutil.rmtree(cache / "arrow", ignore_errors=True)
        for kind, path in _places(cache):
            if fault := _fault(kind, path):
                aside = cache / "engines" if kind == "engine" else cache
                try:
                    artefacts.put_aside(path, aside / "broken")
                except OSError as error:
                    raise QuantboardError(disk_fault(error, path, "delete it", f"is damaged ({fault})")) from None
                broken.append((path.relative_to(cache).as_posix(), fault))
    return broken


def _fault(kind: Kind, path: Path) -> str:
    """What is wrong with an entry; empty where nothing is, or where it has no hash: what is unfinished, and Inductor's files."""
    if kind in ("broken", "hashes") or path.name.startswith(".part-") or path.name.endswith(".part"):
        return ""
    if kind == "checkpoint":
        return checkpoint_fault(path)
    if kind in ("scores", "unfinished cell"):
        files = sorted(path.glob("*.json"))
        return next((f"{file.name}: {artefacts.DIFFERS}" for file in files if read_kept(file) is None), "")
    if kind == "training state":
        faults = (artefacts.folder_fault(state) for state in path.glob("step-*"))
        return next(filter(None, faults), "")
    if path.is_dir() and (path / artefacts.SUMS).is_file():
        return artefacts.folder_fault(path)
    if path.is_dir():  # word candidates, a file for some rows; what a build of a site leaves for the next
        files = [file for file in sorted(path.iterdir()) if artefacts.mark_of(file).is_file()]
        return next((f"{file.name}: {fault}" for file in files if (fault := artefacts.file_fault(file))), "")
    return artefacts.file_fault(path) if artefacts.mark_of(path).is_file() else ""


def to_prune(
    found: Iterable[Entry],
    *,
    kinds: Iterable[str] = (),
    days: float | None = None,
    keep: int | None = None,
    needed: bool,
) -> list[Entry]:
    """What a rule deletes. What is broken, and what is left over of a cell that has its record, always goes. kinds: of these; all
    where empty. days: what was not used for so long. keep: the longest unused, until the cache is not larger than so many bytes.
    needed: also what records need."""
    found = list(found)
    useless = [entry for entry in found if entry.kind in USELESS]
    allowed = [
        entry
        for entry in sorted(found, key=lambda entry: entry.used)
        if entry.kind not in USELESS
        and (needed or not entry.needed)
        and (not kinds or entry.kind in kinds)
        and (days is None or entry.used < time.time() - days * DAY)
    ]
    if keep is None:
        return [*useless, *(allowed if kinds or days is not None else [])]
    chosen, size = useless, sum(entry.size for entry in found if entry.kind not in USELESS)
    for entry in allowed:
        if size > keep:
            chosen, size = [*chosen, entry], size - entry.size
    return chosen


def prune(cache: Path, chosen: Iterable[Entry]) -> None:
    """Delete entries. Raises QuantboardError while a run uses the cache."""
    with unused(cache):
        for entry in chosen:
            if entry.path.is_dir():
                doomed = entry.path.with_name(f".part-{entry.path.name}-deleted")  # a kill leaves no half of it
                entry.path.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)
            else:
                entry.path.unlink(missing_ok=True)
                artefacts.mark_of(entry.path).unlink(missing_ok=True)


@contextmanager
def unused(cache: Path) -> Iterator[None]:
    """Inside the block no run can begin. Raises QuantboardError while one uses the cache."""
    if not cache.is_dir():
        yield
        return
    with (cache / "cells.lock").open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise QuantboardError(f"{cache}: a run uses this cache; wait for it, or stop it") from None
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        yield
