"""Score what a cell predicted once more, from its stored predictions, without running a model: `quantboard rescore`.

For a change of the metrics or of how intervals are made: neither asks an engine for anything new.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from harness import record
from harness.errors import QuantboardError, RecordError
from harness.measure.intervals import intervals
from harness.measure.subset import evaluated
from harness.record import Accuracy, Figure, Record
from harness.report.stored import Stored, write_scores
from tasks import DataRef, Scores, Task, TaskError, open_task


@dataclass(frozen=True)
class Rescored:
    """old: as recorded. parts: the same accuracies with metrics and intervals made anew, a Scores for each."""

    old: Record
    parts: tuple[tuple[Accuracy, Scores], ...]

    def changes(self) -> Iterator[tuple[str, str, Figure, Figure]]:
        """(split, metric, as recorded, now) of every metric."""
        for before, (after, _) in zip(self.old.accuracy, self.parts, strict=True):
            for name, figure in after.metrics.items():
                yield before.split, name, before.metrics.get(name, figure), figure

    @property
    def differs(self) -> bool:
        return any(abs(before.value - now.value) > 1e-9 for _, _, before, now in self.changes())


def rescore(entries: Sequence[Record], stored: Stored, option: str | None) -> Iterator[Rescored]:
    """Every record that stored predictions. option: the data, as `run` takes it; a record of the sample takes the sample.

    Raises TaskError where the data cannot be had, and QuantboardError where it is not what the record was scored on.
    """
    opened: dict[tuple[str, str | None], Task] = {}
    for entry in entries:
        wanted = "sample" if entry.data and entry.data.kind == "sample" else option
        place = (entry.task, wanted)
        if place not in opened:
            opened[place] = open_task(entry.task, find_data(entry.task, wanted))
        yield Rescored(entry, tuple(_part(entry, part, opened[place], stored) for part in entry.accuracy))


def find_data(task: str, option: str | None) -> DataRef:
    """Raises TaskError where there is none."""
    from tasks.sources import hub_reachable, resolve

    found = resolve(task, option, hub_reachable() if option in (None, "real") else False)
    if not isinstance(found, DataRef):
        raise TaskError(f"{task}: {found[0]}; {found[1]}")
    return found


def _part(entry: Record, part: Accuracy, task: Task, stored: Stored) -> tuple[Accuracy, Scores]:
    columns = stored.columns(entry, part.split, ("prediction",))
    if columns is None or "prediction" not in columns:
        raise QuantboardError(f"{entry.record_id}: its predictions are not beside it; restore scores/ from git")
    check_data(entry, part.split, task)
    examples = evaluated(task.examples(part.split), entry.settings.get("limit"))
    if len(examples) != len(columns["prediction"]):
        raise RecordError(
            f"{entry.record_id}: {len(columns['prediction'])} predictions for {len(examples)} examples; run it again"
        )
    scores = task.score(examples, [_prediction(task, value) for value in columns["prediction"].tolist()])
    if not np.array_equal(scores.per_example["id"], columns["id"]):
        raise RecordError(f"{entry.record_id}: its predictions are of other examples than the data's; run it again")
    return part.model_copy(update={"metrics": intervals(scores), "missing": scores.missing}), scores


def check_data(entry: Record, split: str, task: Task) -> None:
    """Raises QuantboardError where a split is not the one of the record."""
    here, then = task.identity.splits.get(split), entry.data.splits.get(split) if entry.data else None
    if here is None or then is None or here.sha256 != then.sha256:
        what = f"{here.label}, {here.rows} rows" if here else "not there"
        was = f"{then.label}, {then.rows} rows" if then else "unknown"
        raise QuantboardError(
            f"{entry.record_id}: {split} of {entry.task} is {what}, the record's was {was}: other rows; give --data DIR"
        )


def _prediction(task: Task, value: Any) -> Any:
    """As it was before it was stored: classes and scores keep a missing one as an empty name, or as NaN."""
    missing = value == "" if task.kind == "classification" else task.kind == "regression" and value != value
    return None if missing else value


def write(found: Sequence[Rescored], stored: Stored) -> list[Path]:
    """Append records with the new figures in the place of the old, which stay where they are; returns the files. A copy is as
    old as its measurement: it stands for the record it was made from, and for none that was measured since."""
    from harness import machine

    now = datetime.now(UTC)
    stamp = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    commit, dirty = machine.commit()
    by = f"commit {commit[:12]}{', with changes' if dirty else ''}" if commit else "no checkout"
    files = []
    for one in found:
        place = stored.path(one.old, f"scores/{stamp}-{one.old.key}.npz")
        assert place is not None, "it was read from there"
        write_scores(place, {part.split: scores for part, scores in one.parts})
        parts = [part.model_copy(update={"scores_file": f"scores/{place.name}"}) for part, _ in one.parts]
        note = f"accuracy scored again from the predictions of {one.old.record_id}, by {by}"
        changes = {
            "record_id": f"{stamp}-{one.old.key}",
            "rescored": now.isoformat(timespec="seconds"),
            "accuracy": parts,
            "notes": [*one.old.notes, note],
        }
        file = place.parent.parent / f"{stamp}.jsonl"
        record.append(file, one.old.model_copy(update=changes))
        files.append(file)
    return list(dict.fromkeys(files))
