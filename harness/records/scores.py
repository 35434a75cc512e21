"""The per-example scores that records point to: compressed NPZ files beside the results file, without pickled objects.

Columns are called `SPLIT/NAME`, groups `SPLIT/group`. Only this module reads and writes these files.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import RecordError, disk_fault
from harness.records.schema import Accuracy, Record
from tasks import Scores, Statistic
from tasks.metrics.labels import COEFFICIENTS
from tasks.token_classification import STATISTICS

Array = np.ndarray[Any, Any]

BROKEN = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile raise for files that are no scores: incomplete ones, bare arrays, pickled objects, damaged or
encrypted archives. Their messages say how to load such a file all the same, which is bad advice here."""


def save_scores(path: Path, scores_by_split: Mapping[str, Scores]) -> None:
    """Write a scores file, whole or not at all. Raises OSError."""
    columns: dict[str, Array] = {}
    for split, scores in scores_by_split.items():
        columns |= {f"{split}/{name}": values for name, values in scores.per_example.items()}
        if scores.groups is not None:
            columns[f"{split}/group"] = scores.groups
    part = path.with_suffix(".part.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(part, allow_pickle=False, **columns)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def write_scores(path: Path, scores_by_split: Mapping[str, Scores]) -> None:
    """Write the scores of a record, whole or not at all. Raises RecordError."""
    try:
        save_scores(path, scores_by_split)
    except OSError as error:
        raise _cannot_write(path, error) from None


def copy_scores(source: Path, target: Path) -> None:
    """Copy a scores file to its place beside the results, whole or not at all. Raises RecordError."""
    part = target.with_suffix(".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, part)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _cannot_write(target, error) from None


def _cannot_write(path: Path, error: OSError) -> RecordError:
    return RecordError(disk_fault(error, path, "make the folder writable", "cannot write the scores"))


def read_scores(
    path: Path, split: str, statistics: Mapping[str, Sequence[Any]], metrics: Mapping[str, float]
) -> Scores:
    """The scores of one split. statistics: (kind, column names) by metric, as the cell's process wrote them."""
    columns = _load(path, split)
    groups = columns.pop("group", None)
    by_metric = {metric: Statistic(kind, tuple(names)) for metric, (kind, names) in statistics.items()}
    return Scores(metrics, columns, by_metric, groups)


def _load(path: Path, split: str, *, skip: Sequence[str] = ()) -> dict[str, Array]:
    """The columns of one split by name, without those in `skip`."""
    prefix = f"{split}/"
    with np.load(path, allow_pickle=False) as file:
        names = [name.removeprefix(prefix) for name in file.files if name.startswith(prefix)]
        return {name: file[prefix + name] for name in names if name not in skip}


class ScoreStore:
    """The scores of records. Made from what `store.read` yields, since scores lie beside the file that holds a record."""

    def __init__(self, records: Iterable[tuple[Path, Record]] = ()) -> None:
        self._folders = {record.record_id: path.parent for path, record in records}
        self._loaded: dict[tuple[str, str], Scores | None] = {}

    def scores(self, record: Record, split: str) -> Scores | None:
        """What comparisons need of a split: ids, the columns of the metrics, groups. None where nothing is stored.

        Raises RecordError for a file that is no scores file.
        """
        place = (record.record_id, split)
        if place not in self._loaded:
            self._loaded[place] = self._scores(record, split)
        return self._loaded[place]

    def _scores(self, record: Record, split: str) -> Scores | None:
        accuracy = _accuracy(record, split)
        columns = self.columns(record, split)
        if accuracy is None or columns is None or "id" not in columns:
            return None
        groups = columns.pop("group", None)
        metrics = {name: figure.value for name, figure in accuracy.metrics.items()}
        return Scores(metrics, columns, statistics_of(metrics, columns), groups, accuracy.missing)

    def columns(self, record: Record, split: str, *, predictions: bool = False) -> dict[str, Array] | None:
        """The stored columns of a split by name; None where nothing is stored. Predictions, which are large, only where
        they are asked for. Raises RecordError for a file that is no scores file."""
        accuracy = _accuracy(record, split)
        path = self.path(record, accuracy.scores_file) if accuracy and accuracy.scores_file else None
        if path is None or not path.exists():
            return None
        try:
            return _load(path, split, skip=() if predictions else ("prediction",))
        except BROKEN as error:
            reason = "not a scores file"
            if isinstance(error, OSError) and error.strerror:
                reason = f"cannot be read: {error.strerror}"
            raise RecordError(f"{path}: {reason}; restore it from git or delete it") from None

    def path(self, record: Record, name: str) -> Path | None:
        """Where a scores file of a record lies; None for a name that leads out of the record's folder."""
        folder = self._folders.get(record.record_id)
        if folder is None or Path(name).is_absolute() or ".." in Path(name).parts:
            return None
        return folder / name


def _accuracy(record: Record, split: str) -> Accuracy | None:
    return next((accuracy for accuracy in record.accuracy if accuracy.split == split), None)


def statistics_of(metrics: Iterable[str], columns: Mapping[str, Array]) -> dict[str, Statistic]:
    """How each metric is computed from the columns that our tasks store. A metric that cannot be computed is left out."""
    statistics: dict[str, Statistic] = {}
    for name in metrics:
        if name in STATISTICS and set(STATISTICS[name].columns) <= set(columns):
            statistics[name] = STATISTICS[name]
        elif name in columns:
            statistics[name] = Statistic("mean", (name,))
        elif name in ("accuracy", "subset_accuracy") and "correct" in columns:
            statistics[name] = Statistic("mean", ("correct",))
        elif name in COEFFICIENTS and name != "accuracy" and {"predicted", "label"} <= set(columns):
            statistics[name] = Statistic(name, ("predicted", "label"))  # type: ignore[arg-type]
    return statistics
