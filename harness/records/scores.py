"""The per-example scores that records point to: compressed NPZ files beside the results file, without pickled objects.

Columns are called `SPLIT/NAME`, groups `SPLIT/group`. Only this module reads and writes these files.
"""

from __future__ import annotations

import hashlib
import io
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from backends import artefacts
from harness.errors import RecordError, Tell, disk_fault, refuse
from harness.records.schema import Accuracy, Record
from tasks import Scores, Statistic
from tasks.metrics.labels import COEFFICIENTS, statistic_percent
from tasks.token_classification import STATISTICS

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")

BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise for files that are no scores: incomplete ones, bare arrays, pickled objects, damaged or
encrypted archives. Their messages say how to load such a file all the same, which is bad advice here."""


class Wrong(ValueError):
    """A scores file that is well-formed and cannot be that of its record."""


FIX = "restore it from git or delete it"
SHARED = ("id", "label", "group")
"""Columns that are the same for all cells of a task."""
LARGEST = (1 << 20, 1 << 16)
"""Bytes that the columns of a split may have: so many, and for each example so many more. Long answers in Unicode take a few KiB
an example."""
HEADER = 1 << 12
"""Characters that the header of a column may have."""
AGREE = 1e-6
"""How far a metric in percent may be from that of its columns: sums in another order differ by less."""


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
        artefacts.sync(part)
        part.replace(path)
        artefacts.sync(path.parent)
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
    """Copy a scores file to its place beside the results, whole or not at all, and return when it is on the disk: the record that
    names it comes after it. Raises RecordError."""
    try:
        artefacts.make_folder(target.parent)
        artefacts.write_whole(target, source.read_bytes())
    except OSError as error:
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


Known = dict[bytes, Array]
"""Columns by the hash of their compressed bytes: cells of one task have their ids, labels and groups in common."""


def _load(
    path: Path,
    split: str,
    *,
    skip: Sequence[str] | None = (),
    examples: int | None = None,
    known: Known | None = None,
    sha256: str | None = None,
    metrics: Iterable[str] | None = None,
) -> dict[str, Array]:
    """The columns of one split by name, without those in `skip`; where it is None, predictions alone. examples: how many there
    should be; files are not bounded where it is None. known: columns that other files had, which are not read again; new ones
    are added. sha256: of the file; it is not compared where it is None. metrics: columns of others are not read. Raises Wrong for a file that takes more memory than its
    examples can, or whose columns are not of them."""
    file, prefix = io.BytesIO(path.read_bytes()) if sha256 else path, f"{split}/"
    if isinstance(file, io.BytesIO) and sha256 != hashlib.sha256(file.getbuffer()).hexdigest():
        raise Wrong("its hash is not the record's")
    with zipfile.ZipFile(file) as archive:
        members = {
            member.filename.removeprefix(prefix).removesuffix(".npy"): member
            for member in archive.infolist()
            if member.filename.startswith(prefix)
        }
        size = sum(member.file_size for member in members.values())
        if examples is not None and size > LARGEST[0] + LARGEST[1] * examples:
            raise Wrong(f"{size:,} bytes for {examples} examples")
        wanted = [name for name in members if (name == "prediction" if skip is None else name not in skip)]
        if metrics is not None:
            needed = {name for one in statistics_of(metrics, members).values() for name in one.columns}
            wanted = [name for name in wanted if name in SHARED or name in needed]
        columns = {name: _column(archive, members[name], known if name in SHARED else None) for name in wanted}
    for name, values in columns.items():
        if examples is not None and (not values.ndim or len(values) != examples):
            raise Wrong(f"{len(values) if values.ndim else 'no'} values in '{name}' for {examples} examples")
        if values.dtype.kind == "f" and name != "prediction" and not np.isfinite(values).all():
            raise Wrong(f"a value of '{name}' is not finite")
    return columns


def _column(archive: zipfile.ZipFile, member: zipfile.ZipInfo, known: Known | None) -> Array:
    """A column of an open NPZ file. known: None where other files do not have the same one."""
    if known is None:
        return _array(archive.read(member))
    raw = _compressed(archive, member)
    if raw not in known:
        known[raw] = _array(archive.read(member))
        known[raw].flags.writeable = False
    return known[raw]


def _compressed(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """SHA-256 of a member's compressed bytes, with what they are read by."""
    assert archive.fp is not None
    archive.fp.seek(member.header_offset + 26)
    lengths = archive.fp.read(4)  # of the name and of the extra field, in the local header
    archive.fp.seek(sum(int.from_bytes(lengths[at : at + 2], "little") for at in (0, 2)), 1)
    content = archive.fp.read(member.compress_size)
    return hashlib.sha256(f"{member.compress_type} {member.CRC} {member.file_size} ".encode() + content).digest()


def _array(content: bytes) -> Array:
    """What an NPY file holds. Raises ValueError for one that is damaged, or holds pickled objects."""
    return np.asarray(np.lib.format.read_array(io.BytesIO(content), allow_pickle=False, max_header_size=HEADER))


class ScoreStore:
    """The scores of records. Made from what `store.read` yields, since scores lie beside the file that holds a record."""

    def __init__(self, records: Iterable[tuple[Path, Record]] = (), tell: Tell = refuse) -> None:
        """tell: called where the scores of a record are damaged; unless it raises, they count as missing."""
        self._tell = tell
        self._folders = {record.record_id: path.parent for path, record in records}
        self._loaded: dict[tuple[str, str, tuple[str, ...]], Scores | None] = {}
        self._known: Known = {}
        self._whole: set[Path] = set()
        self.damaged: set[str] = set()
        """Ids of records of which `tell` was called."""

    def add(self, path: Path, record: Record) -> None:
        """A record that was just appended to a file."""
        self._folders[record.record_id] = path.parent

    def once(
        self, what: str, records: Sequence[Record], split: str, make: Callable[[], Result], form: TypeAdapter[Result]
    ) -> Result:
        """The result of comparing the scores of these records, which follows from them and from `what` alone. A store that remembers
        comparisons need not make it. form: for keeping it as JSON."""
        return make()

    def _tell_of(self, record: Record, problem: str) -> None:
        self.damaged.add(record.record_id)
        self._tell(problem)

    def scores(self, record: Record, split: str, metrics: Iterable[str] = ()) -> Scores | None:
        """What comparisons need of a split: ids, the columns of these metrics (all where empty), groups. None where nothing is
        stored, or what is stored is damaged and `tell` did not raise RecordError."""
        place = (record.record_id, split, tuple(metrics))
        if place not in self._loaded:
            self._loaded[place] = self._scores(record, split, place[2])
        return self._loaded[place]

    def _scores(self, record: Record, split: str, wanted: tuple[str, ...]) -> Scores | None:
        accuracy = _accuracy(record, split)
        only = (
            wanted if accuracy and accuracy.scores_sha256 else ()
        )  # else its columns alone show whether a file is whole
        columns = self._columns(record, split, ("prediction",), only or None)
        if accuracy is None or columns is None or "id" not in columns:
            return None
        groups = columns.pop("group", None)
        metrics = {name: figure.value for name, figure in accuracy.metrics.items()}
        scores = Scores(metrics, columns, statistics_of(only or metrics, columns), groups, accuracy.missing)
        if other := _disagreement(scores):
            self._tell_of(record, f"{self.path(record, accuracy.scores_file or '')}: {other}; {FIX}")
            return None
        return scores

    def columns(self, record: Record, split: str, *, predictions: bool = False) -> dict[str, Array] | None:
        """The stored columns of a split by name; None where nothing is stored. Predictions, which are large, only where
        they are asked for. `tell` gets the damaged ones."""
        return self._columns(record, split, () if predictions else ("prediction",))

    def predictions(self, record: Record, split: str) -> Array | None:
        """That column alone; None where it is not stored."""
        columns = self._columns(record, split, None)
        return columns.get("prediction") if columns else None

    def _columns(
        self, record: Record, split: str, skipped: Sequence[str] | None, metrics: Iterable[str] | None = None
    ) -> dict[str, Array] | None:
        """skipped: columns that are not read; all but predictions where it is None. metrics: as `_load` takes them."""
        accuracy = _accuracy(record, split)
        path = self.path(record, accuracy.scores_file) if accuracy and accuracy.scores_file else None
        if accuracy is None or path is None or not path.exists():
            return None
        try:
            return _load(
                path,
                split,
                skip=skipped,
                examples=accuracy.examples,
                known=self._known,
                sha256=None if path in self._whole else accuracy.scores_sha256,
                metrics=metrics,
            )
        except BROKEN as error:
            reason = "not a scores file"
            if isinstance(error, OSError) and error.strerror:
                reason = f"cannot be read: {error.strerror}"
            elif isinstance(error, Wrong):
                reason = f"not the scores of its record: {error}"
            self._tell_of(record, f"{path}: {reason}; {FIX}")
            return None

    def fault(self, record: Record, part: Accuracy, memory: Path) -> str:
        """What is wrong with the scores file of a part of a record; empty where nothing is. memory: of hashes; it spares reading
        the file again."""
        path = self.path(record, part.scores_file or "")
        if path is None or not path.is_file():
            return "is missing"
        if part.scores_sha256:
            try:
                if artefacts.sha256_of(path, memory) != part.scores_sha256:
                    return "its hash is not the record's"
            except OSError as error:
                return f"cannot be read: {error.strerror}"
            self._whole.add(path)
            return ""
        faults: list[str] = []
        one = ScoreStore([(self._folders[record.record_id] / path.name, record)], faults.append)
        if one.scores(record, part.split) is not None:
            return ""
        return faults[0].removeprefix(f"{path}: ").partition(";")[0] if faults else "has no scores"

    def path(self, record: Record, name: str) -> Path | None:
        """Where a scores file of a record lies; None for a name that leads out of the record's folder."""
        folder = self._folders.get(record.record_id)
        if folder is None or name.startswith("/") or ".." in name.split("/"):
            return None
        return folder / name


def _disagreement(scores: Scores) -> str:
    """Which metric is not that of the columns; empty where all are."""
    for name, statistic in scores.statistics.items():
        try:
            value = statistic_percent(statistic, dict(scores.per_example))
        except BROKEN as error:
            return f"not the scores of its record: {name} cannot be computed ({error})"
        if not abs(value - scores.metrics[name]) <= AGREE:
            return f"not the scores of its record: they give {name} {value:.4f}, the record says {scores.metrics[name]:.4f}"
    return ""


def _accuracy(record: Record, split: str) -> Accuracy | None:
    return next((accuracy for accuracy in record.accuracy if accuracy.split == split), None)


def statistics_of(metrics: Iterable[str], columns: Collection[str]) -> dict[str, Statistic]:
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
