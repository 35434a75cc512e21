"""Runs a plan's cells, each in fresh processes, and appends a record for each as soon as it has been measured."""

from __future__ import annotations

import errno
import fcntl
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.errors import QuantboardError
from harness.plan.spec import Cell
from harness.records.schema import Record
from harness.run.context import Run, Until
from harness.run.group import _execute_group


def execute(
    cells: Sequence[Cell], run: Run, known: dict[str, Record], *, fresh: bool, until: Until | None
) -> Iterator[Record]:
    """One record a cell: an old one where the cell was already done, else a new one, already on the disk.

    Cells of one task and seed are measured together, since they stand in one table: first the accuracy of each, then their
    speed rounds one after the other (there and back: what came last in one round comes first in the next), after each the
    same work by turns, so that what the machine does falls on all of them. What a cell has measured is kept in the cache until its record is written; a run that was
    killed goes on there. With `until`, cells stop at that step and no record is appended.

    Raises QuantboardError where another run is at one of them.
    """
    before = {} if fresh or until else {cell.key: old for cell in cells if (old := _done_as_here(cell, run, known))}
    with locked_cells((cell for cell in cells if not cell.blocked and cell.key not in before), run.cache):
        for group in of_one_table(cells):
            yield from _execute_group(group, run, known, before, fresh, until)


def _done_as_here(cell: Cell, run: Run, known: dict[str, Record]) -> Record | None:
    flags = list(run.machine.flags)  # no part of keys, but of how integer products round and how fast they run
    old = known.get(cell.key)
    same = old is not None and old.machine.get("flags", flags) == flags
    return old if old and same and old.measured else None


def of_one_table(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells by task and seed, whatever stands between them in a plan: a QAT model's beside its parent's of the same seed."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.task, cell.seed), []).append(cell)
    return list(groups.values())


@contextmanager
def locked_cells(cells: Iterable[Cell], cache: Path) -> Iterator[None]:
    """While inside, no other process gets one of these cells. Raises QuantboardError where another has one, before anything
    was begun.

    A byte of one file stands for each cell, under a record lock (fcntl(2)), which the kernel releases however the process
    ends. Where a file system has no locks, nothing is locked.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "cells.lock").open("ab") as file:
        for cell in cells:
            try:
                place = int.from_bytes(hashlib.sha256(cell.key.encode()).digest()[:6])
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise QuantboardError(
                        f"another run on this machine is at {cell.model} / {cell.task} / {cell.label} / seed {cell.seed};"
                        " wait for it, or stop it (what it has measured is kept)"
                    ) from None
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
        yield
