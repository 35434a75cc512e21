"""From the results of a cell's processes to its record."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from backends import get_backend
from backends.architecture import Head
from backends.artefacts import sha256_of
from harness.checkpoints.origin import describe_checkpoint
from harness.machine.software import code_digest, software
from harness.measure.flops import FlopCount, encoder_flops
from harness.measure.intervals import intervals
from harness.measure.scenarios import TIMED, mean_over_rounds, summarise
from harness.measure.validity import findings, loadgen_disagrees, no_answer, ran_float
from harness.plan.heads import HEADS
from harness.plan.spec import Cell, CheckpointSpec, folder_of
from harness.records.schema import Accuracy, Checkpoint, Data, Flops, Memory, PlacementRecord, Record, SplitData
from harness.records.scores import copy_scores, read_scores
from harness.records.speed_schema import ColdStart, Speed, SpeedRound, TurnRound, Turns
from harness.run.context import CellResults, Run, Until, work_folder
from harness.run.roofline import roofline
from tasks import DataIdentity

OTHER_SEED = "speed is measured with the suite's first seed only: weights of another seed take the same time"


NO_ACCURACY = "no accuracy: random weights"


PADDED = "padding changes what the scheme computes, so for speed, too, sequences of real lengths are padded to"


def measured_record(results: CellResults, run: Run, until: Until | None) -> Record:
    """The record of a cell whose steps all ended well. Its scores are copied beside it unless `until` ends the run early.
    Raises RecordError where that cannot be done."""
    cell, accuracy, rounds = results.cell, results.accuracy, results.rounds
    scores = work_folder(cell, run) / "scores.npz"
    scores_file = results.scores_file
    if until is None and scores_file is None and not cell.checkpoint.speed_only:
        scores_file = f"scores/{run.run_id}-{cell.key}.npz"
        copy_scores(scores, run.record_file(cell).parent / scores_file)
    checkpoint = describe_checkpoint(folder_of(cell.checkpoint, run.cache))
    speed = speeds(cell, rounds)
    backend = get_backend(cell.backend)
    failed = [*no_answer(accuracy["splits"]), *findings(speed, accuracy["placement"], cell.measure)]
    disagreements = list(loadgen_disagrees(speed)) if cell.measure.is_interleaved else []
    if backend.quantizes != "no" and not backend.simulated:
        failed = [*ran_float(accuracy["placement"]), *failed]
    flop_count = flops(cell, checkpoint, accuracy)
    interleaved = turns(results.turns)

    def operations(length: int) -> int:
        return count_flops(checkpoint, accuracy, length).total

    dirty, code_notes = code_state(run)
    has_speed = cell.measure.rounds or backend.simulated
    return make_record(
        cell,
        run,
        dirty=dirty,
        status="invalid" if failed else "ok",
        reason="; ".join(finding.what for finding in failed),
        checkpoint=checkpoint,
        accuracy=accuracies(accuracy, scores, scores_file, cell),
        flops=flop_count,
        speed=speed,
        turns=interleaved,
        roofline=None
        if checkpoint.generic
        else roofline(cell, run, speed, interleaved, operations, flop_count.int8_share),
        memory=_memory(rounds),
        placement=PlacementRecord(**accuracy["placement"]),
        artifact_bytes=accuracy["artifact_bytes"],
        build_seconds=accuracy["build_seconds"],
        cold_start_seconds=cold_start_seconds(rounds),
        cold_start=cold_start(rounds),
        findings=[*failed, *disagreements],
        notes=[
            *results.notes,
            *code_notes,
            *([f"{PADDED} {cell.shape.max_length}"] if cell.pads and speed else []),
            *([] if has_speed else [OTHER_SEED]),
            *([NO_ACCURACY] if cell.checkpoint.speed_only else []),
        ],
    )


FLOPS_HEADS: Mapping[Head, Literal["token", "pooled", "none"]] = {
    "question_answering": "token",
    "token_classification": "token",
    "classification": "pooled",
    "embedding": "none",
}
"""How the head of a model is counted."""


def make_record(cell: Cell, run: Run, **parts: Any) -> Record:
    """A record of the cell as it was planned, on this machine, with these parts."""
    backend = get_backend(cell.backend)
    now = datetime.now(UTC)
    for name in ("reason", "remedy"):
        parts[name] = without_folders(parts.get(name, ""), run)
    for name in ("log_tail", "notes"):
        parts[name] = [without_folders(line, run) for line in parts.get(name, ())]
    return Record(
        record_id=f"{run.run_id}-{cell.key}",
        key=cell.key,
        run_id=run.run_id,
        finished=now.isoformat(timespec="seconds"),
        suite=run.suite,
        suite_title=run.title,
        suite_folder=run.suite_folder,
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


def without_folders(text: str, run: Run) -> str:
    """Words of a record without the folders of this machine: they mean nothing on another, and name its user."""
    for folder, shown in ((run.cache, "CACHE"), (run.results, "results"), (Path(tempfile.gettempdir()), "TMP")):
        text = text.replace(f"{folder}/", f"{shown}/")
    return text


def portable(cell: Cell) -> dict[str, Any]:
    """The planned cell as a record keeps it: all settings, but no folder of this machine."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: "DIR" if key == "location" and item else clean(item) for key, item in value.items()}
        if isinstance(value, str) and value.startswith(("/", "onnx:/")):
            return f"{'onnx:' if value.startswith('onnx:') else ''}{Path(value).name}"
        return [clean(item) for item in value] if isinstance(value, list | tuple) else value

    settings: dict[str, Any] = clean(json.loads(json.dumps(cell.to_json())))
    return settings


def _data(identity: DataIdentity | None) -> Data | None:
    if identity is None:
        return None
    splits = {name: SplitData(**vars(split)) for name, split in identity.splits.items()}
    return Data(
        kind=identity.kind,
        label=identity.label,
        splits=splits,
        origin=identity.origin,
        missing=list(identity.missing),
    )


def code_state(run: Run) -> tuple[bool | None, list[str]]:
    """The record's `dirty`, and notes. Processes read the source files when they start, so files that changed during the run
    make what ran differ from the run's commit."""
    if code_digest() == run.code:
        return run.dirty, []
    return True, ["the source files changed during this run"]


def accuracies(accuracy: Mapping[str, Any], scores: Path, scores_file: str | None, cell: Cell) -> list[Accuracy]:
    """One for each split, with intervals. scores: the NPZ that the cell's process wrote. scores_file: where the record says
    that its scores are."""
    chosen_on = selected_on(cell.checkpoint)
    parts = []
    sha256 = sha256_of(scores) if scores_file else None
    for split in accuracy["splits"]:
        fields = {name: value for name, value in split.items() if name not in ("statistics", "metrics")}
        figures = intervals(read_scores(scores, split["split"], split["statistics"], split["metrics"]))
        parts.append(
            Accuracy(**fields, metrics=figures, selected_on=chosen_on, scores_file=scores_file, scores_sha256=sha256)
        )
    return parts


def selected_on(spec: CheckpointSpec) -> str:
    """What the weights and ranges of a checkpoint were selected on, as far as it is known here."""
    weights = "unknown: weights as published" if spec.root.recipe == "load" else "nothing"
    if spec.recipe == "load":
        return weights
    return f"{weights}; {'ranges calibrated on training examples' if spec.recipe == 'ptq' else 'last step of training'}"


def flops(cell: Cell, checkpoint: Checkpoint, accuracy: Mapping[str, Any]) -> Flops:
    """FLOPs of one sequence of max_length by formula (`harness.measure.flops`), compared with the engine's own count. There is no
    formula for a model whose family is not known here: its count stands for it, the head with the encoder."""
    placement = accuracy["placement"]
    macs = placement["total_macs"]
    int8_share = placement["int8_macs"] / macs if macs else 0.0
    if checkpoint.generic:
        return Flops(
            sequence_length=cell.shape.max_length,
            total=2 * macs,
            encoder=2 * macs,
            head=0,
            int8_share=int8_share,
            cross_check="none: matrix products counted in the loaded model, for whose family there is no formula here",
        )
    count = count_flops(checkpoint, accuracy, cell.shape.max_length)
    agreement = "equal" if 2 * macs == count.total else f"{200 * macs / count.total - 100:+.3f}% against the formula"
    return Flops(
        sequence_length=cell.shape.max_length,
        total=count.total,
        encoder=count.encoder,
        head=count.head,
        int8_share=int8_share,
        cross_check=f"matrix products counted in the loaded model: {agreement}",
    )


def count_flops(checkpoint: Checkpoint, accuracy: Mapping[str, Any], length: int) -> FlopCount:
    """FLOPs of one sequence of `length` tokens, by formula."""
    sizes = checkpoint.architecture
    return encoder_flops(
        layers=sizes["num_hidden_layers"],
        hidden=sizes["hidden_size"],
        intermediate=sizes["intermediate_size"],
        sequence_length=length,
        head_outputs=sizes.get("num_labels", 2),
        head=FLOPS_HEADS[HEADS[accuracy["kind"]]],
        embedding=sizes.get("embedding_size"),
        gated=bool(sizes.get("gated")),
        dense_heads=bool(sizes.get("dense_heads")),
        relative_rows=sizes.get("relative_rows", 0),
    )


def speeds(cell: Cell, rounds: Sequence[Mapping[str, Any]]) -> list[Speed]:
    """A Speed for each scenario, load and batch size, from the results of the speed rounds' processes."""
    grouped: dict[tuple[str, str, int, int], list[SpeedRound]] = {}
    for process in rounds:
        process_fields = {"started": process["started"], "run_id": process.get("run_id", "")}
        for test in process["rounds"]:
            conditions = (test["scenario"], test["load"], test["batch_size"], test["sequence_length"])
            grouped.setdefault(conditions, []).append(SpeedRound(**test["round"] | process_fields))
    return [
        Speed(
            scenario=scenario,  # type: ignore[arg-type]
            load=load,  # type: ignore[arg-type]
            batch_size=size,
            sequence_length=length,
            mean_tokens=statistics.fmean(speed_round.mean_tokens or 0.0 for speed_round in speed_rounds),
            rounds=speed_rounds,
            timed=TIMED[scenario],
            energy_source=speed_rounds[0].conditions.energy_source if speed_rounds[0].conditions else "",
            profile=cell.measure.profile,
            latency_bound_ms=cell.measure.server_latency_ms if scenario == "server" else None,
            **summarise(speed_rounds, cell.measure.planned_looks, interleaved=scenario == "interleaved"),  # type: ignore[arg-type]
        )
        for (scenario, load, size, length), speed_rounds in grouped.items()
    ]


def turns(times: Sequence[Mapping[str, Any]]) -> list[Turns]:
    """Interleaved rounds by load and batch size. times: the loads of all rounds, as `run.turns.TurnResults` has them."""
    grouped: dict[tuple[str, int, int], list[TurnRound]] = {}
    for item in times:
        fields = {name: value for name, value in item.items() if name in TurnRound.model_fields}
        conditions = (item["load"], item["batch_size"], item["sequence_length"])
        grouped.setdefault(conditions, []).append(TurnRound(**fields))
    return [
        Turns(load=load, batch_size=size, sequence_length=length, rounds=rounds)  # type: ignore[arg-type]
        for (load, size, length), rounds in grouped.items()
    ]


def _memory(rounds: Sequence[Mapping[str, Any]]) -> Memory | None:
    """From the speed rounds, whose processes hold the engine and the samples alone; None where there were none."""
    if not rounds:
        return None
    device = [process["peak_device_bytes"] for process in rounds if process["peak_device_bytes"] is not None]
    return Memory(
        peak_rss_bytes=max(process["peak_rss_bytes"] for process in rounds),
        import_rss_bytes=max(process["import_rss_bytes"] for process in rounds),
        peak_device_bytes=max(device) if device else None,
        device_source=rounds[0].get("device_memory_source", "") if device else "",
    )


def cold_start_seconds(rounds: Sequence[Mapping[str, Any]]) -> float | None:
    """Median over LoadGen's rounds, whose processes start alone; None where there were none."""
    known = [process["cold_start_seconds"] for process in rounds if "cold_start_seconds" in process]
    return statistics.median(known) if known else None


def cold_start(rounds: Sequence[Mapping[str, Any]]) -> ColdStart | None:
    """The parts of the cold start over the speed rounds; None where no round has them."""
    parts = [process["cold_start"] for process in rounds if "cold_start" in process]
    figures = {name: mean_over_rounds([part[name] for part in parts]) for name in ColdStart.model_fields}
    return ColdStart(**figures) if parts else None  # type: ignore[arg-type]
