"""The per-example scores that records point to: compressed NPZ files beside the results file, without objects."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import RecordError
from harness.records.schema import (
    Record,
)
from tasks import Scores, Statistic
from tasks.metrics.labels import COEFFICIENTS

Array = np.ndarray[Any, Any]


BROKEN = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile raise for other files: cut ones, bare arrays, objects, damaged or encrypted archives. Their words are
about how to load it all the same, which is no advice here."""


class ScoreStore:
    """Opens scores by record. Made from what `record.read` yields, since scores lie beside the file that a record is in."""

    def __init__(self, found: Iterable[tuple[Path, Record]] = ()) -> None:
        self._folders = {entry.record_id: path.parent for path, entry in found}
        self._kept: dict[tuple[str, str], Scores | None] = {}

    def scores(self, entry: Record, split: str) -> Scores | None:
        """What comparisons need of a split: ids, the columns of the metrics, groups. None where nothing is stored.
        Raises RecordError for a file that is not what it should be."""
        place = (entry.record_id, split)
        if place not in self._kept:
            self._kept[place] = self._load(entry, split)
        return self._kept[place]

    def _load(self, entry: Record, split: str) -> Scores | None:
        part = next((one for one in entry.accuracy if one.split == split), None)
        columns = self.columns(entry, split, ())
        if part is None or columns is None or "id" not in columns:
            return None
        groups = columns.pop("group", None)
        metrics = {name: figure.value for name, figure in part.metrics.items()}
        return Scores(metrics, columns, statistics_of(part.metrics, columns), groups, part.missing)

    def columns(self, entry: Record, split: str, also: Sequence[str]) -> dict[str, Array] | None:
        """The stored columns of a split: all numbers, `id`, and what is named in `also` (predictions are large)."""
        part = next((one for one in entry.accuracy if one.split == split), None)
        path = self.path(entry, part.scores_file) if part and part.scores_file else None
        if path is None or not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                names = {name.removeprefix(f"{split}/"): name for name in stored.files if name.startswith(f"{split}/")}
                return {short: stored[name] for short, name in names.items() if short != "prediction" or short in also}
        except BROKEN as error:
            reason = (
                f"cannot be read: {error.strerror}"
                if isinstance(error, OSError) and error.strerror
                else "not a scores file"
            )
            raise RecordError(f"{path}: {reason}; restore it from git or delete it") from None

    def path(self, entry: Record, name: str) -> Path | None:
        """Where a record's scores lie; a name that leads out of the record's folder leads nowhere."""
        folder = self._folders.get(entry.record_id)
        if folder is None or Path(name).is_absolute() or ".." in Path(name).parts:
            return None
        return folder / name


def statistics_of(metrics: Iterable[str], columns: Mapping[str, Array]) -> dict[str, Statistic]:
    """How metrics follow from the columns that tasks of ours store; a metric that cannot be told is left out."""
    found: dict[str, Statistic] = {}
    for name in metrics:
        if name in columns:
            found[name] = Statistic("mean", (name,))
        elif name == "accuracy" and "correct" in columns:
            found[name] = Statistic("mean", ("correct",))
        elif name in COEFFICIENTS and name != "accuracy" and {"predicted", "label"} <= set(columns):
            found[name] = Statistic(name, ("predicted", "label"))  # type: ignore[arg-type]
    return found


def write_scores(path: Path, splits: Mapping[str, Scores]) -> None:
    """Columns as `SPLIT/NAME`, groups as `SPLIT/group`; whole or not at all. Raises RecordError."""
    columns = {
        f"{split}/{name}": values for split, scores in splits.items() for name, values in scores.per_example.items()
    }
    columns |= {f"{split}/group": scores.groups for split, scores in splits.items() if scores.groups is not None}
    part = path.with_suffix(".part.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(part, allow_pickle=False, **columns)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RecordError(
            f"{path}: cannot write the scores: {error.strerror}; free some space or make the folder writable"
        ) from None


def read_scores(path: Path, split: str, statistic: Mapping[str, Sequence[Any]], metrics: Mapping[str, float]) -> Scores:
    """The Scores of one split, from a cell's NPZ and the statistics its process named."""
    with np.load(path, allow_pickle=False) as stored:
        columns = {
            name.removeprefix(f"{split}/"): stored[name] for name in stored.files if name.startswith(f"{split}/")
        }
    groups = columns.pop("group", None)
    kinds = {name: Statistic(kind, tuple(names)) for name, (kind, names) in statistic.items()}
    return Scores(metrics, columns, kinds, groups)
