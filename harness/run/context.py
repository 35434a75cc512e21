"""What the cells of one run share, and what is kept of a cell between its processes."""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from harness.errors import QuantboardError
from harness.machine import paths
from harness.machine.hardware import Machine
from harness.machine.software import code_digest, commit
from harness.plan.spec import Cell
from harness.records.scores import ScoreStore
from harness.records.speed_schema import Ceiling
from harness.run.events import Watch, unwatched
from tasks import DataIdentity

Until = Literal["train", "quantize", "build", "score"]
"""The step after which `run --until` stops."""


Again = Literal["", "speed", "all"]
"""What of a finished cell is measured again: nothing, its speed with the scores that are kept, or all but its checkpoint."""


TIMEOUT = 6 * 3600.0
"""Seconds after which a cell's process counts as hung; a training has ten times as long."""


@dataclass(frozen=True)
class Run:
    """One execution of a suite on this machine."""

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
    """Hash of the source as the run began (`harness.machine.software.code_digest`)."""
    identities: Mapping[str, DataIdentity]
    say: Callable[[str], None]
    show_progress: bool
    watch: Watch = unwatched
    """Called with every step."""
    suite_folder: str = ""
    """What tells suite files of one name apart: see `Record.suite_folder`."""
    failed_checkpoints: dict[str, MissingCheckpoint] = field(default_factory=dict)
    """By key: a checkpoint that failed once is not tried again in the same run."""
    ceilings: dict[int, list[Ceiling]] = field(default_factory=dict)
    """By number of threads, once they have been taken."""
    stored: ScoreStore = field(default_factory=ScoreStore)
    """The scores of all records that there were when the run began."""
    checked: set[str] = field(default_factory=set)
    """Keys of the checkpoints that this run has compared with their hashes."""
    told: set[str] = field(default_factory=set)
    """Names of what was broken in the cache and has been told, or had been put aside before the run."""
    seen: Mapping[Path, int] | None = None
    """The results files and their sizes (`store.sizes`) before their records were read; None: no other run writes to them."""

    def record_file(self, cell: Cell) -> Path:
        """The JSONL file that the cell's record is appended to. Records of the sample, generated or read from files, have a
        folder of their own, also where other tasks of the same run have real data."""
        known = self.identities.get(cell.task)
        on_sample = cell.data.kind == "sample" or (known is not None and known.label == "sample")
        folder = self.results / "sample" if on_sample else self.results
        return folder / self.suite / f"{self.run_id}.jsonl"


def longer(name: str) -> str:
    """The remedy for a process that reached a limit of `measure`."""
    return f"raise measure.{name} in the suite if it only needs longer"


def memory_limit(cell: Cell) -> int | None:
    """The bytes that each process of a cell may take for its data; None: as many as there are."""
    gib = cell.measure.memory_gib if cell.device == "cpu" else None
    return int(gib * 2**30) if gib else None


REFUSED = re.compile(
    r"MemoryError|bad[_ ]alloc|can(?:no|')t allocate|failed to allocate|unable to allocate"
    r"|memory allocation .*fail|failed to map segment|can't start new thread|pthread_create failed",
    re.IGNORECASE,
)
"""What Python, NumPy, PyTorch, the engines, C++, Rust, OpenBLAS and the loader say where memory is refused to them."""


def under_limit(why: str, cell: Cell, log: Sequence[str] = ()) -> str:
    """How a process ended, and what to do where its limit of memory is the cause. log: the last lines that it wrote."""
    if not memory_limit(cell):
        return why
    limit = f"measure.memory_gib = {cell.measure.memory_gib:g}"
    if not any(REFUSED.search(line) for line in (why, *log)):
        return f"{why}, under {limit}"
    ended = why.partition("; ")[0]  # without a remedy for another cause
    return f"{ended}: it asked for more memory than {limit} grants; raise it in the suite, or lower shape.batch_sizes"


@dataclass(frozen=True)
class MissingCheckpoint:
    """Why a checkpoint could not be made, as the records of its cells say it."""

    status: Literal["failed", "skipped"]
    reason: str
    remedy: str = ""
    log: tuple[str, ...] = ()


class CellFailed(Exception):
    """A process of the cell ended badly. log: the last lines that it wrote."""

    def __init__(self, reason: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.log = log


@dataclass
class CellResults:
    """What a cell's processes have measured so far."""

    cell: Cell
    accuracy: dict[str, Any]
    """What the process of the accuracy step returned."""
    rounds: list[dict[str, Any]] = field(default_factory=list)
    """What the process of each speed round returned."""
    turns: list[dict[str, Any]] = field(default_factory=list)
    """Interleaved times, one a round and load."""
    notes: list[str] = field(default_factory=list)
    scores_file: str | None = None
    """The scores file of an earlier record that holds the same scores."""
    lost: CellFailed | None = None
    """How its process ended badly in an interleaved round."""


def cell_name(cell: Cell) -> str:
    """How messages name a cell."""
    return f"{cell.model} / {cell.task} / {cell.label} / seed {cell.seed}"


def work_folder(cell: Cell, run: Run) -> Path:
    """Where the cache keeps what a cell has measured so far, until its record is written."""
    return run.cache / "cells" / cell.key


def new_run(
    suite: str,
    title: str,
    *,
    command: str,
    machine: Machine,
    identities: Mapping[str, DataIdentity],
    say: Callable[[str], None],
    show_progress: bool,
    watch: Watch = unwatched,
    suite_folder: str = "",
    stored: ScoreStore | None = None,
    seen: Mapping[Path, int] | None = None,
) -> Run:
    """A run that begins now, with the code as it is now. stored: the scores of all records so far. seen: the files that these were
    read from. Raises QuantboardError where the cache cannot be written to."""
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
        watch=watch,
        suite_folder=suite_folder,
        stored=stored or ScoreStore(),
        told=broken_names(paths.cache()),
        seen=seen,
    )


def broken_names(cache: Path) -> set[str]:
    """What lies in the cache's folders of what was put aside as broken."""
    return {path.name for folder in (cache, cache / "engines") for path in (folder / "broken").glob("*")}


def make_cache() -> None:
    """Make the cache folder. Raises QuantboardError where it cannot be made or written to."""
    folder = paths.cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise QuantboardError(
            f"QUANTBOARD_CACHE: {folder}: cannot be written to ({error.strerror}); set it to a writable folder"
        ) from None
