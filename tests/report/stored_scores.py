"""Made-up records with stored per-example scores, for tests of comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.records import store
from harness.records.figure import Figure
from harness.records.schema import Accuracy, Record
from harness.records.scores import write_scores
from harness.records.speed_schema import TurnRound, Turns
from tasks import Scores, Statistic
from tests.records.records import make_record

Array = np.ndarray[Any, Any]


def add(
    folder: Path,
    key: str,
    correct: Array,
    *,
    ids: Array | None = None,
    groups: Array | None = None,
    qps: tuple[float, ...] = (),
    turns: tuple[float, ...] | Turns = (),
    total: int | None = None,
    **changes: Any,
) -> Record:
    """A record of a task whose only metric is the share of `correct`, with its NPZ, appended to `folder`/run.jsonl. turns:
    seconds of each round, of which those at equal places were measured together. total: examples of the split, where these are
    a part."""
    ids = np.arange(len(correct)).astype(str) if ids is None else ids
    scores = Scores(
        {}, {"id": ids, "correct": correct.astype(float)}, {"accuracy": Statistic("mean", ("correct",))}, groups
    )
    name = f"scores/run-{key}.npz"
    write_scores(folder / name, {"validation": scores})
    part = Accuracy(
        split="validation",
        metrics={"accuracy": Figure(value=100 * float(correct.mean()))},
        primary="accuracy",
        examples=len(correct),
        examples_of_split=total or len(correct),
        whole=total is None,
        padding="longest",
        batch_formation="sorted",
        forward_seconds=1.0,
        tokens=1,
        scores_file=name,
    )
    fields: dict[str, Any] = {"task": "glue/rte", "label": key, "accuracy": [part]}
    if qps:
        fields["speed"] = [with_rounds(part, qps) for part in make_record().speed if part.scenario == "offline"]
    if turns:
        fields["turns"] = [turns if isinstance(turns, Turns) else interleaved(turns)]
    record = make_record(key=key, **(fields | changes))
    store.append(folder / "run.jsonl", record)
    return record


def with_rounds(speed: Any, qps: tuple[float, ...], hour: int = 0) -> Any:
    """A round a minute, from the hour on: rounds of equal hours alternate."""
    starts = [f"2026-01-01T{hour:02}:{minute:02}:00.000+00:00" for minute in range(len(qps))]
    rounds = [
        speed.rounds[0].model_copy(update={"qps": value, "started": started})
        for value, started in zip(qps, starts, strict=True)
    ]
    return speed.model_copy(update={"rounds": rounds, "qps": Figure(value=float(np.mean(qps)))})


def interleaved(seconds: tuple[float, ...], **changes: Any) -> Turns:
    part: dict[str, Any] = {"load": "real", "batch_size": 16, "sequence_length": 384}
    rounds: dict[str, Any] = {
        "work": "one",
        "samples": 32,
        "tokens": 900,
        "batches": 2,
        "passes": 8,
        "affinity": [0, 1],
        "other_cpu_percent": 0.5,
        "steal_percent": 0.0,
    }
    part |= {name: value for name, value in changes.items() if name in part}
    rounds |= {name: value for name, value in changes.items() if name not in part}
    found = [TurnRound(together=f"turn {at}", seconds=value, **rounds) for at, value in enumerate(seconds)]
    return Turns(**part, rounds=found)


def answers(count: int, wrong: int, *, start: int = 0) -> Array:
    """`wrong` of `count` examples wrong, from `start` on."""
    found = np.ones(count)
    found[start : start + wrong] = 0
    return found
