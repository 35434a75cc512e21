"""The steps of one cell, each in a process of its own: its checkpoint, its accuracy, its speed rounds."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from backends import get_backend
from backends.torch_eager import TorchEager
from harness.checkpoints.intact import drop_broken
from harness.checkpoints.origin import content_digest, stale_parent
from harness.errors import MOVE_CACHE, CheckpointError, disk_fault
from harness.machine.digests import digest
from harness.machine.processes import USER_FAULT, ProcessResult, run_module
from harness.plan.spec import Cell, CheckpointSpec, folder_of
from harness.records.schema import Record
from harness.run.assemble import make_record, measured_record
from harness.run.context import (
    REFUSED,
    TIMEOUT,
    CellFailed,
    CellResults,
    MissingCheckpoint,
    Run,
    Until,
    broken_names,
    cell_name,
    longer,
    memory_limit,
    under_limit,
    work_folder,
)
from harness.run.events import Event, Step
from harness.run.job import Job
from harness.run.work import array_hashes, read_kept, tell_broken, write_kept

TORCH = ("torch", "transformers.models.bert.modeling_bert", "harness.checkpoints.make", "harness.run.cell")
"""What most processes that use PyTorch import: other families' models take little more."""


def start_cell(cell: Cell, run: Run, until: Until | None) -> Record | CellResults:
    """Make the checkpoint and measure accuracy. The result is a record where nothing is left to measure: after a failure, at
    the step `until`, or where the cell has no speed figures."""
    wanted = unquantized(cell.checkpoint) if until == "train" else cell.checkpoint
    missing = ensure_checkpoint(wanted, run, cell.measure.train_timeout)
    if missing:
        return make_record(
            cell, run, status=missing.status, reason=missing.reason, remedy=missing.remedy, log_tail=list(missing.log)
        )
    if until in ("train", "quantize"):
        return make_record(cell, run, status="ok")
    try:
        drop_stale_results(cell, run)
        if until == "build":
            run_step(cell, run, "build", "build")
            return make_record(cell, run, status="ok")
        results = CellResults(cell, run_step(cell, run, "accuracy", "accuracy"))
        check_data_unchanged(results, run)
    except CellFailed as failure:
        return failed_record(cell, run, failure)
    if until == "score" or get_backend(cell.backend).simulated or not cell.measure.rounds:
        return measured_record(results, run, until)
    return results


def failed_record(cell: Cell, run: Run, failure: CellFailed) -> Record:
    return make_record(cell, run, status="failed", reason=str(failure), log_tail=list(failure.log))


def unquantized(spec: CheckpointSpec) -> CheckpointSpec:
    """The trained or loaded checkpoint that post-training quantization started from."""
    return unquantized(spec.parent) if spec.recipe == "ptq" and spec.parent else spec


def ensure_checkpoint(spec: CheckpointSpec, run: Run, timeout: float | None = None) -> MissingCheckpoint | None:
    """Make the checkpoint, in a process of its own, unless it is in the cache. None where it is there afterwards. timeout: seconds
    after which the process counts as hung.

    A checkpoint that failed once is not tried again for the next cell of the run that needs it.
    """
    folder = folder_of(spec, run.cache)
    try:
        _check_kept(spec, run)
    except CheckpointError as error:
        return MissingCheckpoint("failed", str(error))
    if why := stale_parent(spec, folder.parent):
        return MissingCheckpoint("failed", *why)
    if folder.is_dir():
        return None
    if spec.key in run.failed_checkpoints:
        return run.failed_checkpoints[spec.key]
    for needed in spec.needs:
        if missing := ensure_checkpoint(needed, run, timeout):
            return missing
    run.say(f"{_recipe_words(spec)} on {spec.task}, seed {spec.seed}")
    run.watch(Event("checkpoint", words=_recipe_words(spec)))
    with tempfile.TemporaryDirectory(prefix="quantboard-") as scratch:
        job, log = Path(scratch) / "checkpoint.json", Path(scratch) / "checkpoint.log"
        job.write_text(json.dumps({"spec": asdict(spec), "cache": str(run.cache)}))
        ended = run_module(
            "harness.checkpoints.make",
            job,
            log,
            timeout=timeout or 10 * TIMEOUT,
            show=run.show_progress,
            keep_memory=True,
            imported=() if run.machine.gpus or spec.source.startswith("onnx:") else TORCH,
        )
    if not ended.reason:
        return None
    missing = why_missing(spec, ended)
    if ended.timed_out:
        missing = replace(missing, remedy=longer("train_timeout"))
    run.failed_checkpoints[spec.key] = missing
    return run.failed_checkpoints[spec.key]


def _check_kept(spec: CheckpointSpec, run: Run) -> None:
    """Compare the checkpoint and those that it needs with their hashes, once a run. Raises CheckpointError."""
    for needed in spec.needs:
        _check_kept(needed, run)
    if spec.key not in run.checked:
        run.checked.add(spec.key)
        if broken := drop_broken(spec, run.cache):
            run.say(broken)
            run.told.update(broken_names(run.cache))


def _recipe_words(spec: CheckpointSpec) -> str:
    words = {
        "finetune": f"fine-tune {spec.model}",
        "random": f"random weights for {spec.model}",
        "ptq": f"calibrate {spec.scheme} for {spec.model}",
        "qat": f"train {spec.model} with the quantizers of {spec.scheme}",
        "distill": f"distill {spec.model} ({(spec.distill or {}).get('stage')})",
        "pretrained": f"load pretrained {spec.model}",
        "masked_lm": f"train {spec.model} as a masked language model",
    }
    return words.get(spec.recipe, f"{spec.recipe} {spec.model}")


def why_missing(spec: CheckpointSpec, ended: ProcessResult) -> MissingCheckpoint:
    """Why a checkpoint's process ended badly: the fault that it reported on its last line, else how it ended."""
    if ended.code == USER_FAULT and ended.log:
        try:
            fault = json.loads(ended.log[-1])
            status: Literal["failed", "skipped"] = "skipped" if fault["kind"] == "unavailable" else "failed"
            log = tuple(fault.get("log") or ended.log[:-1])
            return MissingCheckpoint(status, fault["error"], fault.get("remedy", ""), log)
        except (json.JSONDecodeError, KeyError, TypeError):
            pass
    return MissingCheckpoint("failed", f"checkpoint {spec.model} ({spec.recipe}): {ended.reason}", log=ended.log)


def state_of(cell: Cell, run: Run) -> dict[str, Any]:
    """What results of the cell depend on beside its key: a record names one of each."""
    # Some virtual machines get memory as they use it.
    machine = {name: value for name, value in run.machine.as_dict().items() if name != "memory_bytes"}
    weights = content_digest(folder_of(cell.checkpoint, run.cache))
    return {"commit": run.commit, "code": run.code, "machine": digest(machine), "checkpoint": weights}


def write_state(cell: Cell, run: Run) -> None:
    """Write down what the results in the cell's work folder depend on. Raises CellFailed."""
    folder = work_folder(cell, run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_kept(folder / "code.json", state_of(cell, run))
    except OSError as error:
        raise _disk_failure(error, folder) from None


def drop_stale_results(cell: Cell, run: Run) -> None:
    """Delete what the cache holds of the cell unless it was measured with this code, machine and checkpoint. With uncommitted
    changes it is always deleted."""
    folder = work_folder(cell, run)
    if run.dirty or read_kept(folder / "code.json") != state_of(cell, run):
        shutil.rmtree(folder, ignore_errors=True)
        write_state(cell, run)


def check_data_unchanged(results: CellResults, run: Run) -> None:
    """Raises CellFailed where the examples are not those that the record would name."""
    cell = results.cell
    identity = run.identities.get(cell.task)
    for split, sha256 in results.accuracy["data"].items():
        planned = identity.splits.get(split) if identity else None
        if planned and planned.sha256 != sha256:
            shutil.rmtree(work_folder(cell, run), ignore_errors=True)
            raise CellFailed(f"{cell.task}: split {split} has changed since the run was planned; run it again")


def run_step(cell: Cell, run: Run, mode: Step, name: str, number: int = 0) -> dict[str, Any]:
    """The results of one process of the cell, or those that an interrupted run kept. Raises CellFailed."""
    run.watch(Event(mode, (cell.key,), number))
    results = _run_step(cell, run, mode, name, number)
    run.watch(Event(mode, (cell.key,), number, done=True, results={cell.key: results}))
    return results


def _run_step(cell: Cell, run: Run, mode: Step, name: str, number: int) -> dict[str, Any]:
    from harness.measure.watch import Watch

    job = make_job(cell, run, mode, name, number)
    words = f"speed, round {number} {of_rounds(cell)}" if mode == "speed" else name
    measure = cell.measure
    limit = (measure.speed_timeout if mode == "speed" else measure.accuracy_timeout) or TIMEOUT
    try:
        if mode != "build" and (kept := read_kept(job.out)) is not None:
            run.say(f"{cell_name(cell)}: {words}: kept from an earlier run")
            return kept
        run.say(f"{cell_name(cell)}: {words}")
        with tempfile.TemporaryDirectory(prefix="quantboard-") as scratch:
            path, log = Path(scratch) / "job.json", Path(scratch) / "log"
            replace(job, out=Path(scratch) / "out.json").write(path)
            with Watch(cell.device) if mode == "speed" else nullcontext() as watch:
                ended = run_module(
                    "harness.run.cell",
                    path,
                    log,
                    timeout=limit,
                    threads=job.threads,
                    keep_memory=mode != "speed",
                    memory=memory_limit(cell),
                    imported=() if mode == "speed" or run.machine.gpus else imports_of(cell),
                )
            tell_broken(run)
            if ended.timed_out:
                name = "speed_timeout" if mode == "speed" else "accuracy_timeout"
                raise CellFailed(f"{words}: {ended.reason}; {longer(name)}", ended.log)
            results = _results_of(ended, Path(scratch) / "out.json", words, cell)
        if watch:
            watch.add_to(results)
            results["run_id"] = run.run_id
        if mode == "accuracy":
            results["arrays"] = array_hashes(job.scores.parent)
        if mode != "build":
            write_kept(job.out, results)
    except OSError as error:
        raise _disk_failure(error, work_folder(cell, run)) from None
    return results


def imports_of(cell: Cell) -> tuple[str, ...]:
    """What a cell's process may find imported when it starts: nothing that another engine needs."""
    backend = get_backend(cell.backend)
    return TORCH if backend.simulated or isinstance(backend, TorchEager) else ()


def _results_of(ended: ProcessResult, out: Path, words: str, cell: Cell) -> dict[str, Any]:
    """What a process of the cell wrote to `out`. Raises CellFailed where it ended badly."""
    if ended.code == USER_FAULT and ended.log:
        fault = ended.log[-1]
        raise CellFailed(under_limit(fault, cell) if REFUSED.search(fault) else fault)
    if ended.reason:
        raise CellFailed(f"{words}: {under_limit(ended.reason, cell, ended.log)}", ended.log)
    try:
        results: dict[str, Any] = json.loads(out.read_text())
    except FileNotFoundError:
        raise CellFailed(f"{words}: its process ended with exit code 0 before it had results", ended.log) from None
    return results


def make_job(cell: Cell, run: Run, mode: str, name: str, number: int) -> Job:
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


def _disk_failure(error: OSError, folder: Path) -> CellFailed:
    return CellFailed(disk_fault(error, error.filename or folder, MOVE_CACHE))


def of_rounds(cell: Cell) -> str:
    """How many rounds there are, in words."""
    looks = cell.measure.looks
    return f"of {looks[0]}" if len(looks) == 1 else f"of {looks[0]} to {looks[-1]}"
