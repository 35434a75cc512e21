from __future__ import annotations

import json
import shutil
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from backends import get_backend
from harness.checkpoints.origin import content, stale_parent
from harness.errors import MOVE_CACHE, disk_fault
from harness.machine.digests import digest
from harness.machine.processes import USER_FAULT, ProcessResult, run_module
from harness.plan.spec import Cell, CheckpointSpec, folder_of
from harness.records.schema import Record
from harness.run.assemble import make_record, measured_record
from harness.run.context import TIMEOUT, CellFailed, Measured, Outcome, Run, Until, _name, work_folder
from harness.run.job import Job


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
        _drop_stale_results(cell, run)
        if until == "build":
            _step(cell, run, "build", "build")
            return make_record(cell, run, status="ok")
        measured = Measured(cell, _step(cell, run, "accuracy", "accuracy"))
        _check_data_unchanged(measured, run)
    except CellFailed as failure:
        return _failed(cell, run, failure)
    if until == "score" or get_backend(cell.backend).simulated or not cell.measure.rounds:
        return measured_record(measured, run, until)
    return measured


def _check_data_unchanged(measured: Measured, run: Run) -> None:
    """Raises CellFailed where the examples are others than the record would name."""
    identity = run.identities.get(measured.cell.task)
    for split, found in measured.scored["data"].items():
        planned = identity.splits.get(split) if identity else None
        if planned and planned.sha256 != found:
            shutil.rmtree(work_folder(measured.cell, run), ignore_errors=True)
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
    if why := stale_parent(spec, folder.parent):
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
            "harness.checkpoints.make", job, log, timeout=10 * TIMEOUT, show=run.show_progress, keep_memory=True
        )
    if not ended.reason:
        return None
    outcome = _checkpoint_outcome(spec, ended)
    run.failed_checkpoints[spec.key] = outcome
    return outcome


def _checkpoint_outcome(spec: CheckpointSpec, ended: ProcessResult) -> Outcome:
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


def _drop_stale_results(cell: Cell, run: Run) -> None:
    """A record is of one state of the code, of one machine and of one checkpoint: what was measured of others is not kept, nor
    what uncommitted changes did."""
    weights = content(folder_of(cell.checkpoint, run.cache))
    folder = work_folder(cell, run)
    # Some virtual machines are given memory as they use it.
    machine = {name: value for name, value in run.machine.as_dict().items() if name != "memory_bytes"}
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
    return CellFailed(disk_fault(error, error.filename or folder, MOVE_CACHE), ())


def _step(cell: Cell, run: Run, mode: str, name: str, number: int = 0) -> dict[str, Any]:
    """What one process of the cell found, or found in a run that was killed later. Raises CellFailed."""
    from harness.measure.watch import Watch

    folder, job = work_folder(cell, run), _job(cell, run, mode, name, number)
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
                    "harness.run.cell", path, log, timeout=TIMEOUT, threads=job.threads, keep_memory=mode != "speed"
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
    folder = work_folder(cell, run)
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
