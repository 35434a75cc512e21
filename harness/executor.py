"""Runs a plan's cells, each in fresh processes, and appends a record for each as soon as it has been measured."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backends import get_backend
from harness import record
from harness.cell import USER_FAULT, Job
from harness.cells import Cell, CheckpointSpec, digest, folder_of
from harness.children import Ended, run_module
from harness.claims import claimed
from harness.measure.memory import available_bytes
from harness.origin import content, estranged
from harness.record import Record
from harness.recording import kept_in, make_record, measured_record
from harness.turns import Found, comparable, take_turns
from tasks import DataIdentity

Until = Literal["train", "quantize", "build", "score"]
FITS = 0.8
"""Of the memory that is there, what models that take turns may need together."""
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
    machine: dict[str, Any]
    commit: str | None
    dirty: bool | None
    code: str
    """`machine.code_digest` as the run began."""
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


def done_before(folder: Path) -> dict[str, Record]:
    """The last good record of every cell key below a results folder, and the last of any kind where there is none."""
    found: dict[str, Record] = {}
    for entry in sorted((entry for _, entry in record.read(folder)), key=record.order):
        if (
            entry.status in ("ok", "invalid")
            or found.get(entry.key) is None
            or found[entry.key].status in ("failed", "skipped")
        ):
            found[entry.key] = entry
    return found


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
    with claimed((cell for cell in cells if not cell.blocked and cell.key not in before), run.cache):
        for group in of_one_table(cells):
            yield from _execute_group(group, run, known, before, fresh, until)


def _done_as_here(cell: Cell, run: Run, known: dict[str, Record]) -> Record | None:
    flags = run.machine.get("flags")  # no part of keys, but of how integer products round and how fast they run
    old = known.get(cell.key)
    same = old is not None and old.machine.get("flags", flags) == flags
    return old if old and same and old.status in ("ok", "invalid") else None


def of_one_table(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells by task and seed, whatever stands between them in a plan: a QAT model's beside its parent's of the same seed."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.task, cell.seed), []).append(cell)
    return list(groups.values())


def _execute_group(
    cells: list[Cell],
    run: Run,
    known: dict[str, Record],
    before: dict[str, Record],
    fresh: bool,
    until: Until | None,
) -> Iterator[Record]:
    def finish(cell: Cell, new: Record) -> Record:
        run.say(f"{_name(cell)}: {new.status}" + (f": {new.reason}" if new.reason else ""))
        old = known.get(cell.key)
        repeated = (
            old is not None
            and new.status == old.status == "skipped"
            and (new.reason, new.remedy) == (old.reason, old.remedy)
        )
        if until is None:
            if not repeated:
                record.append(run.file(cell), new)
            shutil.rmtree(kept_in(cell, run), ignore_errors=True)
        return new

    waiting: list[Measured] = []
    for cell in cells:
        if old := before.get(cell.key):
            run.say(f"{_name(cell)}: done before ({old.run_id})")
            yield old
        elif cell.blocked:
            yield finish(cell, make_record(cell, run, status="skipped", reason=cell.blocked[0], remedy=cell.blocked[1]))
        else:
            if fresh:
                shutil.rmtree(kept_in(cell, run), ignore_errors=True)
            found = _begin(cell, run, until)
            if isinstance(found, Record):
                yield finish(cell, found)
            else:
                waiting.append(found)
    for number in range(1, max((one.cell.measure.rounds for one in waiting), default=0) + 1):
        for one in waiting[:: 1 if number % 2 else -1]:
            if number > one.cell.measure.rounds:
                continue
            try:
                one.rounds.append(_step(one.cell, run, "speed", f"round-{number}", number))
            except CellFailed as failure:
                waiting.remove(one)
                yield finish(one.cell, _failed(one.cell, run, failure))
        left = {one.cell.key: one for one in waiting if number <= one.cell.measure.rounds}
        for cells_together in comparable(one.cell for one in left.values()):
            _take_turns([left[cell.key] for cell in cells_together], run, number)
    for one in waiting:
        yield finish(one.cell, measured_record(one, run, None))


def _take_turns(cells: list[Measured], run: Run, number: int) -> None:
    """One round of turns among cells that are measured together, or what a run that was killed kept of it. A cell whose
    record that run had written took its turns with it: the last one's still stand."""
    places = [kept_in(one.cell, run) / f"turns-{number}.json" for one in cells]
    kept = [one for one in map(_read_kept, places) if one]
    if len(kept) < len(cells) or len({one["together"] for one in kept}) > 1:
        if len(cells) < 2:
            return
        kept = _round_of_turns(cells, run, number)
        for place, content in zip(places, kept, strict=True):
            with suppress(OSError):  # a full disk costs what a killed run could have kept
                place.with_suffix(".part").write_text(json.dumps(content))
                place.with_suffix(".part").replace(place)
    for one, content in zip(cells, kept, strict=True):
        one.turns.extend(content["found"])
        if content["note"]:
            one.notes.append(f"by turns, round {number}: {content['note']}")
            run.say(f"{_name(one.cell)}: {one.notes[-1]}")


def _round_of_turns(cells: list[Measured], run: Run, number: int) -> list[dict[str, Any]]:
    first = cells[0].cell
    together = f"{run.run_id} {first.task} {first.seed} {first.device} {number}"
    run.say(f"{first.task} / seed {first.seed}: {len(cells)} cells by turns, round {number} of {first.measure.rounds}")
    jobs = {one.cell.key: _job(one.cell, run, "turns", f"turns-{number}", number) for one in cells}
    notes: dict[str, str] = {}
    found: Found = {}
    if why := _too_large(cells, run):
        notes = dict.fromkeys(jobs, why)
    else:
        try:
            found = take_turns(jobs, together, notes.__setitem__)
        except OSError as error:
            notes = dict.fromkeys(jobs, f"{error.filename or 'its processes'}: {error.strerror}")
    return [{"together": together, "found": found.get(key, []), "note": notes.get(key, "")} for key in jobs]


def _too_large(cells: list[Measured], run: Run) -> str:
    """Why these models cannot all be in memory at once, by what each needed alone; nothing where they can."""
    last = [one.rounds[-1] for one in cells]
    gpus = run.machine.get("gpus") or [{}]
    for name, there, needed in (
        ("memory", available_bytes(), [found["peak_rss_bytes"] for found in last]),
        ("the GPU's memory", gpus[0].get("memory_bytes"), [found["peak_device_bytes"] or 0 for found in last]),
    ):
        if there and sum(needed) > FITS * there:
            wanted, is_there = sum(needed) / 2**30, there / 2**30
            return f"the {len(cells)} models need {wanted:.1f} GiB of {name} together, {is_there:.1f} are there"
    return ""


def _begin(cell: Cell, run: Run, until: Until | None) -> Record | Measured:
    """Checkpoint and accuracy. A record where nothing is left to be measured; never raises for what goes wrong in them."""
    missing = ensure_checkpoint(base_of(cell.checkpoint) if until == "train" else cell.checkpoint, run)
    if missing:
        return make_record(
            cell, run, status=missing.status, reason=missing.reason, remedy=missing.remedy, log_tail=list(missing.log)
        )
    if until in ("train", "quantize"):
        return make_record(cell, run, status="ok")
    try:
        _drop_foreign(cell, run)
        if until == "build":
            _step(cell, run, "build", "build")
            return make_record(cell, run, status="ok")
        measured = Measured(cell, _step(cell, run, "accuracy", "accuracy"))
        _as_planned(measured, run)
    except CellFailed as failure:
        return _failed(cell, run, failure)
    if until == "score" or get_backend(cell.backend).simulated or not cell.measure.rounds:
        return measured_record(measured, run, until)
    return measured


def _as_planned(measured: Measured, run: Run) -> None:
    """Raises CellFailed where the examples are others than the record would name."""
    identity = run.identities.get(measured.cell.task)
    for split, found in measured.scored["data"].items():
        planned = identity.splits.get(split) if identity else None
        if planned and planned.sha256 != found:
            shutil.rmtree(kept_in(measured.cell, run), ignore_errors=True)
            raise CellFailed(f"{measured.cell.task}: split {split} has other content than when this was planned", ())


def _failed(cell: Cell, run: Run, failure: CellFailed) -> Record:
    return make_record(cell, run, status="failed", reason=str(failure), log_tail=list(failure.log))


def base_of(spec: CheckpointSpec) -> CheckpointSpec:
    """The trained or loaded checkpoint below a post-training quantized one."""
    return base_of(spec.parent) if spec.recipe == "ptq" and spec.parent else spec


def ensure_checkpoint(spec: CheckpointSpec, run: Run) -> Outcome | None:
    """Make the checkpoint in a process of its own unless it is in the cache; None when it is there afterwards.

    What failed once in a run is not tried again for the next cell that needs it."""
    folder = folder_of(spec, run.cache)
    if why := estranged(spec, folder.parent):
        return Outcome("failed", *why)
    if folder.is_dir():
        return None
    if spec.key in run.failed_checkpoints:
        return run.failed_checkpoints[spec.key]
    for one in spec.needs:
        if failed := ensure_checkpoint(one, run):
            return failed
    words = {
        "finetune": "fine-tune",
        "ptq": f"calibrate {spec.scheme} for",
        "qat": f"train quantizers of {spec.scheme} for",
        "pretrained": "take as it was pretrained:",
        "masked_lm": "train to fill in words:",
    }
    if spec.distill:
        words["distill"] = f"distill ({spec.distill['stage']})"
    run.say(f"{words.get(spec.recipe, spec.recipe)} {spec.model} on {spec.task}, seed {spec.seed}")
    with tempfile.TemporaryDirectory(prefix="quantboard-") as name:
        job, log = Path(name) / "checkpoint.json", Path(name) / "checkpoint.log"
        job.write_text(json.dumps({"spec": _plain(spec), "cache": str(run.cache)}))
        ended = run_module(
            "harness.checkpoint", job, log, timeout=10 * TIMEOUT, show=run.show_progress, keep_memory=True
        )
    if not ended.reason:
        return None
    outcome = _checkpoint_outcome(spec, ended)
    run.failed_checkpoints[spec.key] = outcome
    return outcome


def _checkpoint_outcome(spec: CheckpointSpec, ended: Ended) -> Outcome:
    if ended.code == USER_FAULT and ended.log:
        try:
            told = json.loads(ended.log[-1])
            status: Literal["failed", "skipped"] = "skipped" if told["kind"] == "unavailable" else "failed"
            return Outcome(status, told["error"], told.get("remedy", ""), tuple(told.get("log") or ended.log[:-1]))
        except (json.JSONDecodeError, KeyError, TypeError):
            pass
    return Outcome("failed", f"checkpoint {spec.model} ({spec.recipe}): {ended.reason}", log=ended.log)


def _plain(spec: CheckpointSpec) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(spec)


def _drop_foreign(cell: Cell, run: Run) -> None:
    """A record is of one state of the code, of one machine and of one checkpoint: what was measured of others is not kept, nor
    what uncommitted changes did."""
    weights = content(folder_of(cell.checkpoint, run.cache))
    folder = kept_in(cell, run)
    # Some virtual machines are given memory as they use it.
    machine = {name: value for name, value in run.machine.items() if name != "memory_bytes"}
    mark = {"commit": run.commit, "code": run.code, "machine": digest(machine), "checkpoint": weights}
    stamp = folder / "code.json"
    if run.dirty or _read_kept(stamp) != mark:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stamp.write_text(json.dumps(mark))
        except OSError as error:
            raise _full(error, folder) from None


def _full(error: OSError, folder: Path) -> CellFailed:
    place = error.filename or folder
    return CellFailed(f"{place}: {error.strerror}; free some space or move the cache with QUANTBOARD_CACHE", ())


def _step(cell: Cell, run: Run, mode: str, name: str, number: int = 0) -> dict[str, Any]:
    """What one process of the cell found, or found in a run that was killed later. Raises CellFailed."""
    from harness.measure.watch import Watch

    folder, job = kept_in(cell, run), _job(cell, run, mode, name, number)
    said = name.replace("round-", "speed, round ") + (f" of {cell.measure.rounds}" if mode == "speed" else "")
    try:
        if mode != "build" and (kept := _read_kept(job.out)) is not None:
            run.say(f"{_name(cell)}: {said}: kept from before")
            return kept
        run.say(f"{_name(cell)}: {said}")
        with tempfile.TemporaryDirectory(prefix="quantboard-") as scratch:
            path, log = Path(scratch) / "job.json", Path(scratch) / "log"
            job.write(path)
            with Watch(cell.device) if mode == "speed" else nullcontext() as watch:
                ended = run_module(
                    "harness.cell", path, log, timeout=TIMEOUT, threads=job.threads, keep_memory=mode != "speed"
                )
        if ended.code == USER_FAULT and ended.log:
            raise CellFailed(ended.log[-1], ())
        if ended.reason:
            raise CellFailed(f"{said}: {ended.reason}", ended.log)
        found: dict[str, Any] = json.loads(job.out.read_text())
        if watch:
            watch.complete(found)
            found["run_id"] = run.run_id
            job.out.with_suffix(".part").write_text(json.dumps(found))
            job.out.with_suffix(".part").replace(job.out)
    except OSError as error:
        raise _full(error, folder) from None
    return found


def _job(cell: Cell, run: Run, mode: str, name: str, number: int) -> Job:
    folder = kept_in(cell, run)
    return Job(
        mode=mode,
        cell=cell,
        checkpoint=folder_of(cell.checkpoint, run.cache),
        cache=run.cache,
        out=folder / f"{name}.json",
        scores=folder / "scores.npz",
        samples=folder / "samples.npz",
        started=time.time(),
        threads=cell.measure.threads,
        number=number,
    )


def _read_kept(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):  # not there, or cut short by a crash of the machine
        return None
    return found


def _name(cell: Cell) -> str:
    return f"{cell.model} / {cell.task} / {cell.label} / seed {cell.seed}"
