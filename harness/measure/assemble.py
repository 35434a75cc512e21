"""From what a cell's processes wrote to the parts of its record."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.cells import Cell, CheckpointSpec
from harness.measure.flops import encoder_flops
from harness.measure.intervals import intervals
from harness.measure.load import TIMED, over_rounds, summarise
from harness.measure.validity import findings
from harness.origin import root
from harness.record import Accuracy, Checkpoint, ColdStart, Finding, Flops, Speed, SpeedRound, TurnRound, Turns
from tasks import Scores, Statistic


def read_scores(path: Path, split: str, statistic: Mapping[str, Sequence[Any]], metrics: Mapping[str, float]) -> Scores:
    """The Scores of one split, from a cell's NPZ and the statistics its process named."""
    with np.load(path, allow_pickle=False) as stored:
        columns = {
            name.removeprefix(f"{split}/"): stored[name] for name in stored.files if name.startswith(f"{split}/")
        }
    groups = columns.pop("group", None)
    kinds = {name: Statistic(kind, tuple(names)) for name, (kind, names) in statistic.items()}
    return Scores(metrics, columns, kinds, groups)


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
