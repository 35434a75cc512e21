"""Runs a plan's cells, each in fresh processes, and appends a record for each as soon as it has been measured."""

from __future__ import annotations

import errno
import fcntl
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from backends.artefacts import sha256_of
from harness.errors import QuantboardError
from harness.plan.spec import Cell
from harness.records import store
from harness.records.schema import Record
from harness.records.scores import copy_scores
from harness.run.context import Again, Run, Until, cell_name, work_folder
from harness.run.group import execute_group
from harness.run.kept import drop_left


def execute(
    cells: Sequence[Cell], run: Run, previous: Mapping[str, Record], *, again: Again, until: Until | None
) -> Iterator[Record]:
    """One record a cell: the old one where the cell is finished, else a new one that is already on the disk.

    Cells of one task and seed stand in one table and are measured together: first the accuracy of each, then their speed
    rounds. In a round the cells run one after the other, in the opposite order of the round before, and then do the same work
    interleaved, so that changes of the machine affect all of them alike. What has been measured is kept in the cache until the
    cell's record is written, and a run that was killed continues from there.

    previous: the last record of each cell key. again: what of a finished cell is measured. until: stop at this step, and write no
    records. What another run has finished since `previous` was read is not measured again, either. Raises QuantboardError where
    another run is measuring one of the cells.
    """
    finished = finished_cells(cells, run, previous, again, until)
    with locked_cells((cell for cell in cells if not cell.blocked and cell.key not in finished), run.cache) as lock:
        if not again and (added := added_since(cells, run)):
            previous = store.newest_by_key([*previous.values(), *added])
            finished = finished_cells(cells, run, previous, again, until)
        for cell in cells:
            if cell.key in finished and work_folder(cell, run).is_dir() and lock(cell):
                drop_left(cell, run)
        for group in group_by_table(cells):
            yield from execute_group(group, run, previous, finished, again, until)


def added_since(cells: Iterable[Cell], run: Run) -> list[Record]:
    """The records of files of these cells that were written to since the run read them: another run may have ended between that
    and the locks."""
    if run.seen is None:
        return []
    added = list[Record]()
    for folder in {run.record_file(cell).parent for cell in cells}:
        for path, size in store.sizes(folder).items():
            if size != run.seen.get(path):
                records = [record for _, _, record in store.read_file(path, run.say)]
                for record in records:
                    run.stored.add(path, record)
                added += records
    return added


def finished_cells(
    cells: Iterable[Cell], run: Run, previous: Mapping[str, Record], again: Again, until: Until | None
) -> dict[str, Record]:
    """Good records of cells on the run's machine, which are not measured again. The processor's flags are not part of a cell's key,
    but they decide how integer products are rounded and how fast they are."""
    if again == "all" or until:
        return {}
    flags = list(run.machine.flags)
    return {
        cell.key: record
        for cell in cells
        if (record := previous.get(cell.key)) is not None
        and record.measured
        and record.machine.get("flags", flags) == flags
        and _has_scores(cell, record, run)
        and not (again == "speed" and record.speed)
    }


def _has_scores(cell: Cell, record: Record, run: Run) -> bool:
    """Whether the scores of a record are there and whole, as every comparison needs them. Where the cache kept the same scores,
    they are put back; otherwise the cell is measured again."""
    for part in record.accuracy:
        path = run.stored.path(record, part.scores_file) if part.scores_file else None
        fault = run.stored.fault(record, part, run.cache / "hashes") if path else ""
        if not path or not fault:
            continue
        kept = run.cache / "scored" / cell.key / "scores.npz"
        with suppress(OSError):
            if sha256_of(kept) == part.scores_sha256:
                copy_scores(kept, path)
                run.say(f"{cell_name(cell)}: {path}: {fault}; its scores were put back from the cache")
                continue
        run.say(f"{cell_name(cell)}: {path}: {fault}; it is measured again")
        return False
    return True


def group_by_table(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells of the same task and seed, in the order of the plan. A QAT model is thus beside its parent of the same seed."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.task, cell.seed), []).append(cell)
    return list(groups.values())


@contextmanager
def locked_cells(cells: Iterable[Cell], cache: Path) -> Iterator[Callable[[Cell], bool]]:
    """Inside the block no other process can lock one of these cells. Raises QuantboardError where another has one of them,
    before anything was begun. Yields what locks one more cell, and says whether no other process has it.

    A byte of one file stands for each cell, under a record lock (fcntl(2)), which the kernel releases however the process
    ends. Where a file system has no locks, nothing is locked.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "cells.lock").open("ab") as file:

        def lock(cell: Cell) -> bool:
            try:
                byte = int.from_bytes(hashlib.sha256(cell.key.encode()).digest()[:6])
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return False
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
            return True

        for cell in cells:
            if not lock(cell):
                raise QuantboardError(
                    f"another run on this machine is measuring {cell_name(cell)};"
                    " wait for it, or stop it (what it has measured is kept)"
                )
        yield lock
