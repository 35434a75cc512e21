"""From what a cell's processes found to its record."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends import get_backend
from harness import record
from harness.cells import Cell, folder_of
from harness.errors import RecordError
from harness.machine import code_digest
from harness.origin import describe
from harness.record import Record
from tasks import DataIdentity

if TYPE_CHECKING:
    from harness.executor import Measured, Run, Until

OTHER_SEED = "speed is measured of the suite's first seed: weights that differ by their seed alone take the same time"
PADDED = "padding takes part in what the scheme computes, so sequences of real lengths are padded for speed, too: to"


def kept_in(cell: Cell, run: Run) -> Path:
    """Where the cache keeps what a cell has measured so far."""
    return run.cache / "cells" / cell.key


def measured_record(measured: Measured, run: Run, until: Until | None) -> Record:
    """The record of a cell that has run to its end."""
    from harness.measure.assemble import accuracies, cold_start, cold_start_seconds, flops_of, speeds, turns_of
    from harness.measure.validity import unanswered

    cell, scored, rounds = measured.cell, measured.scored, measured.rounds
    kept, scores = kept_in(cell, run) / "scores.npz", run.file(cell).parent / "scores" / f"{run.run_id}-{cell.key}.npz"
    if until is None:
        try:
            scores.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept, scores.with_suffix(".part"))
            scores.with_suffix(".part").replace(scores)
        except OSError as error:
            scores.with_suffix(".part").unlink(missing_ok=True)
            raise RecordError(
                f"{scores}: cannot write the scores: {error.strerror}; free some space or make the folder writable"
            ) from None
    checkpoint = describe(folder_of(cell.checkpoint, run.cache))
    speed, of_speed = speeds(cell, rounds, scored["placement"])
    findings = [*unanswered(scored["splits"]), *of_speed]
    dirty, told = state_of(run)
    simulated = get_backend(cell.backend).simulated
    return make_record(
        cell,
        run,
        dirty=dirty,
        status="invalid" if findings else "ok",
        reason="; ".join(finding.what for finding in findings),
        checkpoint=checkpoint,
        accuracy=accuracies(scored, kept, f"scores/{scores.name}" if until is None else None, cell),
        flops=flops_of(cell, checkpoint, scored),
        speed=speed,
        turns=turns_of(measured.turns),
        memory=_memory(rounds),
        placement=record.PlacementRecord(**scored["placement"]),
        artifact_bytes=scored["artifact_bytes"],
        build_seconds=scored["build_seconds"],
        cold_start_seconds=cold_start_seconds(rounds),
        cold_start=cold_start(rounds),
        findings=findings,
        notes=[
            *measured.notes,
            *told,
            *([f"{PADDED} {cell.shape.max_length}"] if cell.pads and speed else []),
            *([] if cell.measure.rounds or simulated else [OTHER_SEED]),
        ],
    )


def state_of(run: Run) -> tuple[bool | None, list[str]]:
    """Whether what ran is anything but the run's commit, and what is to be told of it: its processes start with the source
    files as they are then."""
    if code_digest() == run.code:
        return run.dirty, []
    return True, ["the program was changed while this ran"]


def _memory(rounds: list[dict[str, Any]]) -> record.Memory | None:
    """Of speed rounds, whose processes hold the engine and the samples alone; a simulation has none."""
    if not rounds:
        return None
    device = [found["peak_device_bytes"] for found in rounds if found["peak_device_bytes"] is not None]
    return record.Memory(
        peak_rss_bytes=max(found["peak_rss_bytes"] for found in rounds),
        import_rss_bytes=max(found["import_rss_bytes"] for found in rounds),
        peak_device_bytes=max(device) if device else None,
        device_source=rounds[0].get("device_memory_source", "") if device else "",
    )


def make_record(cell: Cell, run: Run, **parts: Any) -> Record:
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
        **{"dirty": run.dirty} | parts,
        machine=run.machine,
        software=software(backend.distributions),
        data=_data(run.identities.get(cell.task)),
    )


def _data(identity: DataIdentity | None) -> record.Data | None:
    if identity is None:
        return None
    splits = {name: record.SplitData(**vars(split)) for name, split in identity.splits.items()}
    return record.Data(
        kind=identity.kind,
        label=identity.label,
        splits=splits,
        origin=identity.origin,
        missing=list(identity.missing),
    )


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
