"""From what a cell's processes found to its record."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends import get_backend
from harness.checkpoints.origin import describe
from harness.machine.software import code_digest
from harness.plan.spec import Cell, folder_of
from harness.records import schema
from harness.records.schema import Record
from tasks import DataIdentity

if TYPE_CHECKING:
    from harness.run.context import Measured, Run, Until
import statistics
from collections.abc import Mapping, Sequence

from harness.checkpoints.origin import root
from harness.measure.flops import encoder_flops
from harness.measure.intervals import intervals
from harness.measure.scenarios import TIMED, over_rounds, summarise
from harness.measure.validity import findings
from harness.plan.spec import CheckpointSpec
from harness.records.schema import Accuracy, Checkpoint, Finding, Flops
from harness.records.scores import copy_scores, read_scores
from harness.records.speed_schema import ColdStart, Speed, SpeedRound, TurnRound, Turns
from harness.run.context import work_folder

OTHER_SEED = "speed is measured of the suite's first seed: weights that differ by their seed alone take the same time"


PADDED = "padding takes part in what the scheme computes, so sequences of real lengths are padded for speed, too: to"


def measured_record(measured: Measured, run: Run, until: Until | None) -> Record:
    """The record of a cell that has run to its end."""
    from harness.measure.validity import unanswered

    cell, scored, rounds = measured.cell, measured.scored, measured.rounds
    kept, scores = (
        work_folder(cell, run) / "scores.npz",
        run.file(cell).parent / "scores" / f"{run.run_id}-{cell.key}.npz",
    )
    if until is None:
        copy_scores(kept, scores)
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
        placement=schema.PlacementRecord(**scored["placement"]),
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


def _memory(rounds: list[dict[str, Any]]) -> schema.Memory | None:
    """Of speed rounds, whose processes hold the engine and the samples alone; a simulation has none."""
    if not rounds:
        return None
    device = [found["peak_device_bytes"] for found in rounds if found["peak_device_bytes"] is not None]
    return schema.Memory(
        peak_rss_bytes=max(found["peak_rss_bytes"] for found in rounds),
        import_rss_bytes=max(found["import_rss_bytes"] for found in rounds),
        peak_device_bytes=max(device) if device else None,
        device_source=rounds[0].get("device_memory_source", "") if device else "",
    )


def make_record(cell: Cell, run: Run, **parts: Any) -> Record:
    from harness.machine.software import software

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
        machine=run.machine.as_dict(),
        software=software(backend.distributions),
        data=_data(run.identities.get(cell.task)),
    )


def _data(identity: DataIdentity | None) -> schema.Data | None:
    if identity is None:
        return None
    splits = {name: schema.SplitData(**vars(split)) for name, split in identity.splits.items()}
    return schema.Data(
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


def accuracies(scored: Mapping[str, Any], scores: Path, kept_as: str | None, cell: Cell) -> list[Accuracy]:
    """One a split, with intervals. `kept_as`: where the NPZ lies beside the record."""
    chosen = selected_on(cell.checkpoint)
    parts = []
    for found in scored["splits"]:
        fields = {name: value for name, value in found.items() if name not in ("statistics", "metrics")}
        figures = intervals(read_scores(scores, found["split"], found["statistics"], found["metrics"]))
        parts.append(Accuracy(**fields, metrics=figures, selected_on=chosen, scores_file=kept_as))
    return parts


def selected_on(spec: CheckpointSpec) -> str:
    """What the choices behind the weights and ranges of a checkpoint were made on, as far as it is known here."""
    weights = "unknown: weights as published" if root(spec).recipe == "load" else "nothing"
    if spec.recipe == "load":
        return weights
    return f"{weights}; {'ranges calibrated on training examples' if spec.recipe == 'ptq' else 'last step of training'}"


def flops_of(cell: Cell, checkpoint: Checkpoint, scored: Mapping[str, Any]) -> Flops:
    """FLOPs of one sequence of max_length by DESIGN's rule, beside the engine's own count of MACs."""
    sizes, placement = checkpoint.architecture, scored["placement"]
    count = encoder_flops(
        layers=sizes["num_hidden_layers"],
        hidden=sizes["hidden_size"],
        intermediate=sizes["intermediate_size"],
        sequence_length=cell.shape.max_length,
        head_outputs=sizes.get("num_labels", 2),
        head="token" if scored["kind"] == "question_answering" else "pooled",
    )
    macs = placement["total_macs"]
    agreement = "equal" if 2 * macs == count.total else f"{200 * macs / count.total - 100:+.3f}% against the formula"
    return Flops(
        sequence_length=cell.shape.max_length,
        total=count.total,
        encoder=count.encoder,
        head=count.head,
        int8_share=placement["int8_macs"] / macs if macs else 0.0,
        cross_check=f"matrix products counted in the loaded model: {agreement}",
    )


def speeds(
    cell: Cell, processes: Sequence[Mapping[str, Any]], placement: Mapping[str, Any]
) -> tuple[list[Speed], list[Finding]]:
    """Rounds of each scenario, load and batch size brought together, and the validity rules that fail."""
    grouped: dict[tuple[str, str, int], list[tuple[Mapping[str, Any], SpeedRound]]] = {}
    for process in processes:
        for entry in process["rounds"]:
            name = (entry["scenario"], entry["load"], entry["batch_size"])
            of_process = {"started": process["started"], "run_id": process.get("run_id", "")}
            grouped.setdefault(name, []).append((entry, SpeedRound(**entry["round"] | of_process)))
    parts: list[Speed] = []
    for (_, _, size), entries in grouped.items():
        rounds = [found for _, found in entries]
        figures: dict[str, Any] = {**summarise(rounds)}
        parts.append(
            Speed(
                scenario=entries[0][0]["scenario"],
                load=entries[0][0]["load"],
                batch_size=size,
                sequence_length=entries[0][0]["sequence_length"],
                mean_tokens=statistics.fmean(one.mean_tokens or 0.0 for one in rounds),
                rounds=rounds,
                timed=TIMED[entries[0][0]["scenario"]],
                energy_source=rounds[0].conditions.energy_source if rounds[0].conditions else "",
                profile=cell.measure.profile,
                latency_bound_ms=cell.measure.server_latency_ms if entries[0][0]["scenario"] == "server" else None,
                **figures,
            )
        )
    return parts, findings(parts, placement, cell.measure)


def turns_of(found: Sequence[Mapping[str, Any]]) -> list[Turns]:
    """Rounds of turns brought together by load and batch size."""
    grouped: dict[tuple[str, int, int], list[TurnRound]] = {}
    for entry in found:
        fields = {name: value for name, value in entry.items() if name in TurnRound.model_fields}
        grouped.setdefault((entry["load"], entry["batch_size"], entry["sequence_length"]), []).append(
            TurnRound(**fields)
        )
    return [
        Turns(load=load, batch_size=size, sequence_length=length, rounds=rounds)  # type: ignore[arg-type]
        for (load, size, length), rounds in grouped.items()
    ]


def cold_start_seconds(processes: Sequence[Mapping[str, Any]]) -> float | None:
    """Median of a cell's speed rounds; None where it had none."""
    return statistics.median(one["cold_start_seconds"] for one in processes) if processes else None


def cold_start(processes: Sequence[Mapping[str, Any]]) -> ColdStart | None:
    """Of a cell's speed rounds; None where it had none, or had them before these figures were kept apart."""
    found = [one["cold_start"] for one in processes if "cold_start" in one]
    figures = {name: over_rounds([one[name] for one in found]) for name in ColdStart.model_fields}
    return ColdStart(**figures) if found else None  # type: ignore[arg-type]
