from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from harness.errors import QuantboardError
from harness.machine import paths
from harness.machine.hardware import Machine
from harness.machine.software import code_digest, commit
from harness.plan.spec import Cell
from tasks import DataIdentity

Until = Literal["train", "quantize", "build", "score"]


TIMEOUT = 6 * 3600.0
"""Seconds after which a cell's process or a training counts as hung."""


@dataclass(frozen=True)
class Run:
    """What all cells of one execution share."""

    run_id: str
    suite: str
    title: str
    results: Path
    """The folder of all records."""
    cache: Path
    command: str
    machine: Machine
    commit: str | None
    dirty: bool | None
    code: str
    """`software.code_digest` as the run began."""
    identities: Mapping[str, DataIdentity]
    say: Callable[[str], None]
    show_progress: bool
    failed_checkpoints: dict[str, Outcome] = field(default_factory=dict)

    def file(self, cell: Cell) -> Path:
        """The JSONL file that the cell's record is appended to: those of the sample, generated or from files, lie apart,
        also where other tasks of the same run have real data."""
        known = self.identities.get(cell.task)
        of_sample = cell.data.kind == "sample" or (known is not None and known.label == "sample")
        folder = self.results / "sample" if of_sample else self.results
        return folder / self.suite / f"{self.run_id}.jsonl"


@dataclass(frozen=True)
class Outcome:
    """Why a checkpoint is not there."""

    status: Literal["failed", "skipped"]
    reason: str
    remedy: str = ""
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A cell whose accuracy is known, the speed rounds it has had, and what it took in rounds of turns."""

    cell: Cell
    scored: dict[str, Any]
    rounds: list[dict[str, Any]] = field(default_factory=list)
    turns: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class CellFailed(Exception):
    """A process of the cell ended badly."""

    def __init__(self, reason: str, log: tuple[str, ...]) -> None:
        super().__init__(reason)
        self.log = log


def _name(cell: Cell) -> str:
    return f"{cell.model} / {cell.task} / {cell.label} / seed {cell.seed}"


def work_folder(cell: Cell, run: Run) -> Path:
    """Where the cache keeps what a cell has measured so far."""
    return run.cache / "cells" / cell.key


def make_cache() -> None:
    """Raises QuantboardError where the cache's folder cannot be made or written to."""
    folder = paths.cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise QuantboardError(
            f"QUANTBOARD_CACHE: {folder}: cannot be written to ({error.strerror}); name a folder that can"
        ) from None


def new_run(
    suite: str,
    title: str,
    *,
    command: str,
    machine: Machine,
    identities: Mapping[str, DataIdentity],
    say: Callable[[str], None],
    show_progress: bool,
) -> Run:
    """An execution that begins now, on this state of the code."""
    make_cache()
    code, (sha, dirty) = code_digest(), commit()
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    return Run(
        run_id=run_id,
        suite=suite,
        title=title,
        results=paths.results(),
        cache=paths.cache(),
        command=command,
        machine=machine,
        commit=sha,
        dirty=dirty,
        code=code,
        identities=identities,
        say=say,
        show_progress=show_progress,
    )
