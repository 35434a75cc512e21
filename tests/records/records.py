"""Records made up for tests of what reads them; no figure here was measured."""

from __future__ import annotations

from typing import Any, Literal

from harness.records.figure import Figure
from harness.records.schema import Accuracy, Data, Flops, Memory, PlacementRecord, Record, SplitData
from harness.records.speed_schema import Speed, SpeedRound

OFFERED: tuple[tuple[Literal["single_stream", "offline"], int], ...] = (("single_stream", 1), ("offline", 16))
LOADS: tuple[Literal["fixed", "real"], ...] = ("fixed", "real")


def of_a_part(limit: int, **changes: Any) -> Record:
    """What `--limit` leaves: fewer examples than there are."""
    whole = make_record(**changes)
    parts = [part.model_copy(update={"whole": False, "examples_of_split": 1000}) for part in whole.accuracy]
    return whole.model_copy(update={"accuracy": parts, "settings": {**whole.settings, "limit": limit}})


def make_record(*, key: str = "k", f1: float = 75.0, qps: float = 50.0, **changes: Any) -> Record:
    rounds = [SpeedRound(qps=qps, queries=64, duration_seconds=2.0, warmup_seconds=1.0, warmup_ended="steady")]
    fields: dict[str, Any] = {
        "record_id": f"run-{key}",
        "key": key,
        "run_id": "run",
        "finished": "2026-01-01T00:00:00+00:00",
        "status": "ok",
        "suite": "squad",
        "suite_title": "SQuAD",
        "model": "tiny",
        "seed": 1,
        "task": "squad_v1",
        "backend": "torch_fp32",
        "label": "torch_fp32",
        "device": "cpu",
        "settings": {"limit": None},
        "command": "quantboard run squad",
        "machine": {"cpu": "made up", "cores": 2, "gpus": []},
        "software": {"torch": "2.13.0"},
        "data": Data(
            kind="raw",
            label="official",
            splits={"validation": SplitData(rows=10, official_rows=10, sha256="0", label="official")},
        ),
        "accuracy": [
            Accuracy(
                split="validation",
                metrics={
                    "f1": Figure(value=f1, low=f1 - 1, high=f1 + 1, method="made up"),
                    "exact_match": Figure(value=f1 - 10),
                },
                primary="f1",
                examples=10,
                examples_of_split=10,
                whole=True,
                padding="longest",
                batch_formation="sorted by length",
                forward_seconds=1.0,
                tokens=100,
            )
        ],
        "flops": Flops(sequence_length=384, total=10, encoder=9, head=1, int8_share=0.5, cross_check="equal"),
        "speed": [
            Speed(
                scenario=scenario,
                load=load,
                batch_size=size,
                sequence_length=384,
                mean_tokens=170.0,
                qps=Figure(value=qps, low=qps - 1, high=qps + 1),
                p50_ms=Figure(value=10.0),
                p90_ms=Figure(value=12.0),
                p99_ms=Figure(value=15.0),
                rounds=rounds,
                timed="run",
            )
            for scenario, size in OFFERED
            for load in LOADS
        ],
        "memory": Memory(peak_rss_bytes=2**28, import_rss_bytes=2**27),
        "placement": PlacementRecord(claimed="CPU", nodes={"CPU": 10}, int8_macs=5, total_macs=10),
        "artifact_bytes": 2**20,
        "cold_start_seconds": 1.5,
    }
    return Record(**(fields | changes))
