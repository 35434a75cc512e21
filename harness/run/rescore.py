"""Scores a cell's stored predictions again, without running a model: `quantboard rescore`.

It is for changes of the metrics or of how intervals are made, which need nothing new from an engine.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from backends import artefacts
from harness.errors import QuantboardError, RecordError, disk_fault
from harness.machine import software
from harness.measure.inference import limited
from harness.measure.intervals import intervals
from harness.plan.data import find_task_data
from harness.records.figure import Figure
from harness.records.schema import Accuracy, Record
from harness.records.scores import ScoreStore, write_scores
from tasks import Scores, Task, open_task


@dataclass(frozen=True)
class Rescored:
    """record: as stored. parts: its accuracies with new metrics and intervals, and the scores that they are made from."""

    record: Record
    parts: tuple[tuple[Accuracy, Scores], ...]

    def changes(self) -> Iterator[tuple[str, str, Figure | None, Figure | None]]:
        """(split, metric, recorded figure, new figure) of every metric; None where only the other one has the metric."""
        for recorded, (new, _) in zip(self.record.accuracy, self.parts, strict=True):
            for name in dict.fromkeys([*recorded.metrics, *new.metrics]):
                yield recorded.split, name, recorded.metrics.get(name), new.metrics.get(name)

    @property
    def differs(self) -> bool:
        return any(figures_differ(recorded, new) for _, _, recorded, new in self.changes())


def figures_differ(recorded: Figure | None, new: Figure | None) -> bool:
    """Whether value or interval differ by more than rounding."""
    if recorded is None or new is None:
        return recorded is not new
    pairs = [(recorded.value, new.value), (recorded.low, new.low), (recorded.high, new.high)]
    return any(a != b if a is None or b is None else abs(a - b) > 1e-9 for a, b in pairs)


def rescore(records: Sequence[Record], stored: ScoreStore, option: str | None) -> Iterator[Rescored]:
    """Score each record again. option: the data, as `run --data` takes it; records of the sample always take the sample.

    Raises TaskError where the data cannot be had, and QuantboardError where it is not what the record was scored on.
    """
    opened: dict[tuple[str, str | None], Task] = {}
    for record in records:
        on_sample = record.data is not None and record.data.kind == "sample"
        key = (record.task, "sample" if on_sample else option)
        refuse_declared(record)
        if key not in opened:
            opened[key] = open_task(record.task, find_task_data(*key))
        yield Rescored(record, tuple(_rescore_part(record, part, opened[key], stored) for part in record.accuracy))


def _rescore_part(record: Record, part: Accuracy, task: Task, stored: ScoreStore) -> tuple[Accuracy, Scores]:
    columns = stored.columns(record, part.split, predictions=True)
    if columns is None or "prediction" not in columns:
        raise QuantboardError(f"{record.record_id}: its file of predictions is missing; restore scores/ from git")
    check_data(record, part.split, task)
    examples = limited(task.examples(part.split), record.settings.get("limit"))
    if len(examples) != len(columns["prediction"]):
        raise RecordError(
            f"{record.record_id}: {len(columns['prediction'])} predictions for {len(examples)} examples; run it again"
        )
    stored_predictions = getattr(task, "stored_predictions", None)
    predictions = (
        stored_predictions(columns)
        if stored_predictions
        else [_prediction(task, value) for value in columns["prediction"].tolist()]
    )
    scores = task.score(examples, predictions)
    if not np.array_equal(scores.per_example["id"], columns["id"]):
        raise RecordError(f"{record.record_id}: its predictions are not of this data's examples; run it again")
    return part.model_copy(update={"metrics": intervals(scores), "missing": scores.missing}), scores


def refuse_declared(record: Record) -> None:
    """Raises QuantboardError for a record of a task that only its suite file declares."""
    if record.data is not None and record.data.kind == "declared":
        raise QuantboardError(
            f"{record.record_id}: task '{record.task}' is declared in the suite file {record.suite}.toml, and no suite file is read"
            " here; measure it again with `quantboard run` on that file and --fresh"
        )


def check_data(record: Record, split: str, task: Task) -> None:
    """Raises QuantboardError where a split is not the one that the record was made with."""
    current = task.identity.splits.get(split)
    recorded = record.data.splits.get(split) if record.data else None
    if current is not None and recorded is not None and current.sha256 == recorded.sha256:
        return
    if record.data and record.data.kind == "sample":  # the code generates it, so no folder of data can hold it
        fix = f"check out commit {record.commit[:12]}" if record.commit else "run it again, since its commit is unknown"
        raise QuantboardError(
            f"{record.record_id}: the generated sample has changed since ({split} of {record.task}); {fix}"
        )
    has = f"{current.label}, {current.rows} rows" if current else "missing"
    had = f"{recorded.label}, {recorded.rows} rows" if recorded else "unknown"
    raise QuantboardError(
        f"{record.record_id}: {split} of {record.task} is other data ({has}) than the record's ({had});"
        " give the record's data with --data DIR"
    )


def _prediction(task: Task, value: Any) -> Any:
    """As it was before it was stored: a missing prediction is stored as an empty name or answer, or as NaN, several names as a
    JSON list."""
    missing = value != value if task.kind in ("regression", "similarity") else value == ""
    if missing:
        return None
    return json.loads(value) if task.kind in ("multi_label", "token_classification") else value


def append_rescored(rescored: Sequence[Rescored], stored: ScoreStore) -> list[Path]:
    """Append copies of the records with the new figures, and return the files. The old records stay in theirs.

    A copy is as old as its measurement: it replaces the record that it was made from, and no record measured later.
    """
    now = datetime.now(UTC)
    commit, dirty = software.commit()
    by = f"commit {commit[:12]}{', with changes' if dirty else ''}" if commit else "no checkout"
    # Each copy has an id and a file of scores of its own, also where two records have the same key.
    stamps = [f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}" for _ in rescored]
    lines: dict[Path, list[str]] = {}
    for stamp, result in zip(stamps, rescored, strict=True):
        old = result.record
        path = stored.path(old, f"scores/{stamp}-{old.key}.npz")
        assert path is not None, "its predictions were read from this folder"
        write_scores(path, {part.split: scores for part, scores in result.parts})
        kept = {"scores_file": f"scores/{path.name}", "scores_sha256": artefacts.sha256_of(path)}
        parts = [part.model_copy(update=kept) for part, _ in result.parts]
        note = f"accuracy scored again from the predictions of {old.record_id}, by {by}"
        changes = {
            "record_id": f"{stamp}-{old.key}",
            "rescored": now.isoformat(timespec="seconds"),
            "accuracy": parts,
            "notes": [*old.notes, note],
        }
        file = path.parent.parent / f"{stamps[0]}.jsonl"
        lines.setdefault(file, []).append(old.model_copy(update=changes).model_dump_json() + "\n")
    for file, of_file in lines.items():  # once all scores are there: all copies or none
        try:
            artefacts.write_whole(file, "".join(of_file).encode())
        except OSError as error:
            raise RecordError(disk_fault(error, file, "make the folder writable", "cannot write the records")) from None
    return list(lines)
