"""A cell belongs to one run at a time: what it has measured so far lies in one folder of the cache."""

from __future__ import annotations

import errno
import fcntl
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.cells import Cell
from harness.errors import QuantboardError


@contextmanager
def claimed(cells: Iterable[Cell], cache: Path) -> Iterator[None]:
    """While inside, no other process gets one of these cells. Raises QuantboardError where another has one, before anything
    was begun.

    A byte of one file stands for each cell, under a record lock (fcntl(2)), which the kernel releases however the process
    ends. Where a file system has no locks, nothing is claimed.
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
