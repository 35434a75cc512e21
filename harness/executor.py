"""Runs a plan's cells one after another, each in fresh processes, and appends a record for each before the next starts."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from backends import get_backend
from harness import record
from harness.cell import USER_FAULT, Job
from harness.cells import Cell, CheckpointSpec
from harness.checkpoint import describe, folder_of
from harness.children import Ended, run_module
from harness.record import Record
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
    file: Path
    """The JSONL file that records are appended to."""
    cache: Path
    command: str
    machine: dict[str, Any]
    commit: str | None
    dirty: bool | None
    identities: Mapping[str, DataIdentity]
    say: Callable[[str], None]
    show_progress: bool
    failed_checkpoints: dict[str, Outcome] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Why a checkpoint is not there."""

    status: Literal["failed", "skipped"]
    reason: str
    remedy: str = ""
    log: tuple[str, ...] = ()


class CellFailed(Exception):
    """A process of the cell ended badly."""

    def __init__(self, reason: str, log: tuple[str, ...]) -> None:
        super().__init__(reason)
        self.log = log


def done_before(folder: Path) -> dict[str, Record]:
    """The last good record of every cell key below a results folder, and the last of any kind where there is none."""
    found: dict[str, Record] = {}
    for _, entry in record.read(folder):
        if (
            entry.status in ("ok", "invalid")
            or found.get(entry.key) is None
            or found[entry.key].status in ("failed", "skipped")
        ):
            found[entry.key] = entry
    return found


def execute(
    cells: Iterable[Cell], run: Run, known: dict[str, Record], *, fresh: bool, until: Until | None
) -> Iterator[Record]:
    """One record a cell, in the plan's order: an old one where the cell was already done, else a new one, already on the disk.

    With `until`, cells stop at that step and no record is appended: what they yield is for the terminal alone.
    """
    for cell in cells:
        old = known.get(cell.key)
        if old and old.status in ("ok", "invalid") and not fresh and until is None:
            run.say(f"{_name(cell)}: done before ({old.run_id})")
            yield old
            continue
        if cell.blocked:
            new = _record(cell, run, status="skipped", reason=cell.blocked[0], remedy=cell.blocked[1])
        else:
            new = run_cell(cell, run, until)
        run.say(f"{_name(cell)}: {new.status}" + (f": {new.reason}" if new.reason else ""))
        repeated = (
            old is not None
            and new.status == old.status == "skipped"
            and (new.reason, new.remedy) == (old.reason, old.remedy)
        )
        if until is None and not repeated:
            record.append(run.file, new)
        yield new


def run_cell(cell: Cell, run: Run, until: Until | None) -> Record:
    """Checkpoint, then the cell's own processes; never raises for what goes wrong in them."""
    missing = ensure_checkpoint(base_of(cell.checkpoint) if until == "train" else cell.checkpoint, run)
    if missing:
        return _record(
            cell, run, status=missing.status, reason=missing.reason, remedy=missing.remedy, log_tail=list(missing.log)
        )
    if until in ("train", "quantize"):
        return _record(cell, run, status="ok")
    folder = Path(tempfile.mkdtemp(prefix="quantboard-"))
    try:
        return _measure(cell, run, folder, until)
    except CellFailed as failure:
        return _record(cell, run, status="failed", reason=str(failure), log_tail=list(failure.log))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def base_of(spec: CheckpointSpec) -> CheckpointSpec:
    """The trained or loaded checkpoint below a post-training quantized one."""
    return base_of(spec.parent) if spec.recipe == "ptq" and spec.parent else spec


def ensure_checkpoint(spec: CheckpointSpec, run: Run) -> Outcome | None:
    """Make the checkpoint in a process of its own unless it is in the cache; None when it is there afterwards.

    What failed once in a run is not tried again for the next cell that needs it."""
    if folder_of(spec, run.cache).is_dir():
        return None
    if spec.key in run.failed_checkpoints:
        return run.failed_checkpoints[spec.key]
    if spec.parent and (failed := ensure_checkpoint(spec.parent, run)):
        return failed
    words = {"load": "load", "finetune": "fine-tune", "ptq": f"calibrate {spec.scheme} for"}
    run.say(f"{words.get(spec.recipe, spec.recipe)} {spec.model} on {spec.task}, seed {spec.seed}")
    with tempfile.TemporaryDirectory(prefix="quantboard-") as name:
        job, log = Path(name) / "checkpoint.json", Path(name) / "checkpoint.log"
        job.write_text(json.dumps({"spec": _plain(spec), "cache": str(run.cache)}))
        ended = run_module("harness.checkpoint", job, log, timeout=10 * TIMEOUT, show=run.show_progress)
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
            return Outcome(status, told["error"], told.get("remedy", ""))
        except (json.JSONDecodeError, KeyError, TypeError):
            pass
    return Outcome("failed", f"checkpoint {spec.model} ({spec.recipe}): {ended.reason}", log=ended.log)


def _plain(spec: CheckpointSpec) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(spec)


def _measure(cell: Cell, run: Run, folder: Path, until: Until | None) -> Record:
    from harness.measure.assemble import accuracies, flops_of, speeds

    backend = get_backend(cell.backend)
    scores = run.file.parent / "scores" / f"{run.run_id}-{cell.key}.npz"
    scratch_scores = folder / "scores.npz"
    checkpoint = describe(folder_of(cell.checkpoint, run.cache))

    def step(mode: str, name: str) -> dict[str, Any]:
        job = Job(
            mode=mode,
            cell=cell,
            checkpoint=folder_of(cell.checkpoint, run.cache),
            cache=run.cache,
            out=folder / f"{name}.json",
            scores=scratch_scores,
            samples=folder / "samples.npz",
            started=time.time(),
            threads=cell.measure.threads,
        )
        path, log = folder / f"{name}.job.json", folder / f"{name}.log"
        job.write(path)
        ended = run_module("harness.cell", path, log, timeout=TIMEOUT, threads=job.threads)
        if ended.code == USER_FAULT and ended.log:
            raise CellFailed(ended.log[-1], ())
        if ended.reason:
            raise CellFailed(f"{name}: {ended.reason}", ended.log)
        found: dict[str, Any] = json.loads(job.out.read_text())
        return found

    if until == "build":
        step("build", "build")
        return _record(cell, run, status="ok")
    run.say(f"{_name(cell)}: accuracy")
    scored = step("accuracy", "accuracy")
    rounds: list[dict[str, Any]] = []
    if not backend.simulated and until is None:
        for number in range(1, cell.measure.rounds + 1):
            run.say(f"{_name(cell)}: speed, round {number} of {cell.measure.rounds}")
            rounds.append(step("speed", f"round {number}"))
    if until is None:
        scores.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(scratch_scores, scores.with_suffix(".part"))
        scores.with_suffix(".part").replace(scores)
    speed, findings = speeds(cell, rounds, scored["placement"])
    return _record(
        cell,
        run,
        status="invalid" if findings else "ok",
        reason="; ".join(finding.what for finding in findings),
        checkpoint=checkpoint,
        accuracy=accuracies(
            scored, scratch_scores, f"scores/{scores.name}" if until is None else None, checkpoint, cell
        ),
        flops=flops_of(cell, checkpoint, scored["placement"]),
        speed=speed,
        memory=_memory(rounds),
        placement=record.PlacementRecord(**scored["placement"]),
        artifact_bytes=scored["artifact_bytes"],
        build_seconds=scored["build_seconds"],
        cold_start_seconds=sorted(found["cold_start_seconds"] for found in rounds)[len(rounds) // 2]
        if rounds
        else None,
        findings=findings,
    )


def _memory(rounds: list[dict[str, Any]]) -> record.Memory | None:
    """Of speed rounds, whose processes hold the engine and the samples alone; a simulation has none."""
    if not rounds:
        return None
    device = [found["peak_device_bytes"] for found in rounds if found["peak_device_bytes"] is not None]
    return record.Memory(
        peak_rss_bytes=max(found["peak_rss_bytes"] for found in rounds),
        import_rss_bytes=max(found["import_rss_bytes"] for found in rounds),
        peak_device_bytes=max(device) if device else None,
    )


def _record(cell: Cell, run: Run, **parts: Any) -> Record:
    from harness.machine import software

    backend = get_backend(cell.backend)
    now = datetime.now(UTC)
    return Record(
        record_id=f"{run.run_id}-{cell.key}",
        key=cell.key,
        run_id=run.run_id,
        finished=now.isoformat(timespec="seconds"),
        suite=run.suite,
        suite_title=run.title,
        model=cell.model,
        seed=cell.seed,
        task=cell.task,
        backend=cell.backend,
        label=cell.label,
        scheme=cell.scheme,
        baseline=cell.baseline,
        device=cell.device,
        simulated=backend.simulated,
        settings=portable(cell),
        command=run.command,
        commit=run.commit,
        dirty=run.dirty,
        machine=run.machine,
        software=software(backend.distributions),
        data=_data(run.identities.get(cell.task)),
        **parts,
    )


def _data(identity: DataIdentity | None) -> record.Data | None:
    if identity is None:
        return None
    splits = {name: record.SplitData(**vars(split)) for name, split in identity.splits.items()}
    return record.Data(kind=identity.kind, label=identity.label, splits=splits, origin=identity.origin)


def portable(cell: Cell) -> dict[str, Any]:
    """The planned cell as a record keeps it: all settings, no folder of this machine."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ("DIR" if key == "location" and entry else clean(entry)) for key, entry in value.items()}
        if isinstance(value, str) and value.startswith("/"):
            return Path(value).name
        return [clean(entry) for entry in value] if isinstance(value, list | tuple) else value

    plain: dict[str, Any] = clean(json.loads(json.dumps(cell.to_json())))
    return plain


def _name(cell: Cell) -> str:
    return f"{cell.model} / {cell.task} / {cell.label} / seed {cell.seed}"
