"""What a node of a Ray cluster does for a run: it plans the suite for its own machine, and runs groups of cells with the code of a
local run. Nothing here imports Ray: both functions are called in Ray's tasks (`harness.run.cluster`)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from backends import BackendError, artefacts, shared
from harness.errors import QuantboardError
from harness.machine import hardware, paths
from harness.machine.hardware import Machine
from harness.machine.software import code_digest
from harness.plan.data import DataOrReason, identities
from harness.plan.keys import machine_identity
from harness.plan.plan import make_plan
from harness.plan.spec import Cell, CheckpointSpec, folder_of
from harness.records.schema import Record
from harness.run.context import Again, Run, Until, broken_names, make_cache
from harness.run.events import Event
from harness.run.executor import execute
from harness.suite.tables import Suite
from tasks import TaskError

Send = Callable[[Literal["say", "record"], Any], None]
"""Tells the driver: a line, or a `Finished`."""


@dataclass(frozen=True)
class Work:
    """What all nodes plan and run.

    choice: the arguments of `make_plan` beside suite, data, identities and machine. code: hash of the driver's source. store: where
    machines share artefacts; empty where they do not.
    """

    suite: Suite
    data: Mapping[str, DataOrReason]
    choice: Mapping[str, Any]
    code: str
    store: str = ""


@dataclass(frozen=True)
class NodePlan:
    """The cells of the suite on a node. Their keys are those of a local run there."""

    machine: Machine
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Group:
    """Cells that stand in one table, to be run on one node. machine: that they were planned for. run: the driver's. previous: the
    last record of each cell key."""

    cells: Sequence[Cell]
    machine: Machine
    work: Work
    run: Run
    previous: Mapping[str, Record]
    again: Again
    until: Until | None


@dataclass(frozen=True)
class Finished:
    """A cell's record. file: the record's place below the results folder. scores: the content of its scores files, by the names
    that it gives them."""

    record: str
    file: str
    scores: Mapping[str, bytes]


def user_fault(step: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """The result of a step, and the fault of this node or its input that ended it: exceptions need not survive the way to the
    driver. A bug is raised."""
    try:
        return step(*arguments), ""
    except (QuantboardError, BackendError, TaskError, shared.StoreError) as error:
        return None, str(error)


def plan_here(work: Work) -> NodePlan:
    """The suite's plan for this node. Raises QuantboardError, TaskError or StoreError where it cannot run the suite."""
    if code_digest() != work.code:
        raise QuantboardError("its code is not the driver's; install the same version of quantboard there")
    make_cache()
    if work.store:
        shared.open_store(work.store)
    machine = hardware.describe()
    known = identities(work.data)
    plan = make_plan(work.suite, data=work.data, identities=known, machine=machine, **work.choice)
    return NodePlan(machine, plan.cells)


def run_group(group: Group, send: Send) -> None:
    """Run a group as a local run does, and send each new record with its scores as soon as there is one. Raises QuantboardError
    where this is not the machine that the cells were planned for, or its cache is in use or cannot be written to."""
    machine, cache = hardware.describe(), paths.cache()
    if machine_identity(machine) != machine_identity(group.machine):
        raise QuantboardError(
            f"it was planned as {machine_identity(group.machine)}, but a task there gets {machine_identity(machine)};"
            " give Ray all of the node's cores and GPUs"
        )
    make_cache()
    _be_not_nice(send)
    os.environ[shared.URL] = group.work.store
    sharing = _Sharing(group.cells, cache, lambda line: send("say", line))
    with tempfile.TemporaryDirectory(prefix="quantboard-") as folder:
        run = replace(
            group.run,
            results=Path(folder),
            cache=cache,
            machine=machine,
            identities=identities({task: group.work.data[task] for task in {cell.task for cell in group.cells}}),
            say=lambda line: send("say", line),
            watch=sharing.watch,
            failed_checkpoints={},
            ceilings={},
            checked=set(),
            told=broken_names(cache),
        )
        sharing.fetch(scores=group.again == "speed")
        by_key = {cell.key: cell for cell in group.cells}
        for record in execute(group.cells, run, group.previous, again=group.again, until=group.until):
            if record.run_id == run.run_id:
                file = run.record_file(by_key[record.key])
                names = {part.scores_file for part in record.accuracy if part.scores_file}
                scores = {name: (file.parent / name).read_bytes() for name in names}
                send("record", Finished(record.model_dump_json(), str(file.relative_to(run.results)), scores))
        sharing.share()


def _be_not_nice(send: Send) -> None:
    """Ray gives its workers a low priority (niceness 15), which a measurement must not have."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, min(0, os.getpriority(os.PRIO_PROCESS, 0)))
    except PermissionError:
        send(
            "say",
            "note: Ray's workers have a low priority here; start Ray with RAY_worker_niceness=0 for figures of a local run",
        )


class _Sharing:
    """What a group takes from the store that machines share, and adds to it: checkpoints, ONNX files, tokens, scores. Only between
    steps, never while something is measured."""

    def __init__(self, cells: Sequence[Cell], cache: Path, say: Callable[[str], None]) -> None:
        self._cache, self._say = cache, say
        specs = {spec.key: spec for cell in cells for spec in _lineage(cell.checkpoint)}
        self._checkpoints = [folder_of(spec, cache) for spec in specs.values()]
        self._scores = [cache / "scored" / cell.key for cell in cells]
        self._before = set(self._made())
        self._done: set[Path] = set()

    def fetch(self, *, scores: bool) -> None:
        """Before the first step. scores: also those of earlier measurements."""
        if shared.has_none():
            return
        for folder in (*self._checkpoints, *(self._scores if scores else ())):
            if not folder.is_dir() and artefacts.fetch(folder, self._cache):
                artefacts.remember_folder(folder, self._cache / "hashes")

    def watch(self, event: Event) -> None:
        if event.step in ("checkpoint", "accuracy") and not event.done:
            self.share()

    def share(self) -> None:
        """Add what was made since, each once."""
        if shared.has_none():
            return
        for folder in self._scores:
            if folder.is_dir() and folder not in self._done:
                artefacts.seal_folder(folder)
        engines = self._cache / "engines"
        for path in (*self._checkpoints, *self._scores, *(self._made() - self._before)):
            if path.exists() and path not in self._done:
                self._done.add(path)
                if why := artefacts.share(path, engines if path.is_relative_to(engines) else self._cache):
                    self._say(f"{path.name} cannot be shared: {why}; other nodes make it again")

    def _made(self) -> set[Path]:
        """Files of the cache that have their hash beside them."""
        marks = [*self._cache.glob("features/*.npz.sha256"), *self._cache.glob("engines/onnx/*.onnx.sha256")]
        return {mark.with_name(mark.name.removesuffix(artefacts.MARK)) for mark in marks}


def _lineage(spec: CheckpointSpec) -> Iterator[CheckpointSpec]:
    """A checkpoint after those that it is made from."""
    for needed in spec.needs:
        yield from _lineage(needed)
    yield spec
