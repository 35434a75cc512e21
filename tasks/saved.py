"""Folders written by `datasets.save_to_disk`: read with pyarrow alone (no `datasets`, no torch), written with `datasets`.

A task's folder holds one folder a split (a saved DatasetDict, or Datasets saved side by side): `squad_v1`, `squad`,
`squad_offline` for SQuAD; `glue/TASK` or `TASK` for GLUE.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base import TaskError
from tasks.forms import Form, Row, check_question, check_score
from tasks.identity import DECLARATION
from tasks.raw import named, plain

if TYPE_CHECKING:
    import pyarrow as pa

STATE = "state.json"
INFO = "dataset_info.json"


def saved_folders(form: Form, root: Path) -> dict[str, Path]:
    """The folder of each split found below `root`, or none. Raises TaskError for a task's folder without its columns."""
    own = form.name.removeprefix("glue/")
    if form.name == "squad_v1":
        candidates = named(root, {"squad", "squadv1", "squadv1.1", "squadoffline"})
    else:
        candidates = [folder for parent in (*named(root, {"glue"}), root) for folder in named(parent, {own})]
    for folder in (*candidates, root):
        found = {split: folder / split for split in form.splits if (folder / split / STATE).is_file()}
        if found and (folder != root or _is_own(form, own, root, found)):
            for path in found.values():
                _check_columns(form, path)
            return found
    return {}


def _is_own(form: Form, own: str, root: Path, found: Mapping[str, Path]) -> bool:
    """Whether the folder that the user named is this very task's: GLUE's tasks share their columns."""
    split = next(iter(found.values()))
    if form.name == "squad_v1":
        return {"question", "context", "answers"} <= set(_features(split))
    return plain(root.name) == own or _json(split / INFO).get("config_name") == own


def saved_files(folder: Path) -> list[Path]:
    """The files that a split's rows depend on. Raises TaskError."""
    state = _json(folder / STATE)
    parts = state.get("_data_files")
    names = [str(part.get("filename")) for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    if not names or any(Path(name).name != name for name in names):
        raise TaskError(f"{folder / STATE}: names no data files of this folder; save the data set again")
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise TaskError(
            f"{folder}: saved with an index by an old version of datasets; save it again with a current one"
        )
    files = [folder / name for name in names]
    for path in files:
        if not path.is_file():
            raise TaskError(f"{path}: missing; the folder was copied in part or the data set saved in part")
    return [folder / STATE, folder / INFO, *files]


def read_saved(form: Form, folder: Path) -> list[Row]:
    """The rows of one split's folder, in order. Raises TaskError."""
    _check_columns(form, folder)
    rows = list(_rows(form, folder))
    if not rows:
        raise TaskError(f"{folder}: holds no rows; save the whole split again")
    return rows


def _rows(form: Form, folder: Path) -> Iterator[Row]:
    feature = _features(folder).get("label")
    numbers = _numbers(form, feature.get("names") if isinstance(feature, dict) else None, folder)
    seen: set[str] = set()
    index = 0
    for path in saved_files(folder)[2:]:
        for batch in _batches(path, form):
            for values in zip(*(_values(batch, name) for name in form.columns), strict=True):
                row = dict(zip(form.columns, values, strict=True))
                where = f"{folder}: row {index}"
                if form.name == "squad_v1":
                    _flatten(row)
                    check_question(row, where)
                    if row["id"] in seen:
                        raise TaskError(f"{where}: id {row['id'][:40]} occurs twice")
                    seen.add(row["id"])
                else:
                    _check_pair(form, row, numbers, where)
                    row["idx"] = index
                index += 1
                yield row


def _batches(path: Path, form: Form) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            missing = [name for name in form.columns if name not in reader.schema.names]
            if missing:
                raise TaskError(f"{path}: no column '{missing[0]}'; found: {', '.join(reader.schema.names)}")
            yield from reader
    except (pa.ArrowException, OSError) as error:
        raise TaskError(f"{path}: not readable as an Arrow stream (cut off?): {str(error).splitlines()[0]}") from error


def _values(batch: pa.RecordBatch, name: str) -> list[Any]:
    import pyarrow as pa

    column = batch.column(name)
    if pa.types.is_float32(column.type):
        # the decimal that was written: 3.8, not 3.799999952316284
        return [None if value is None else float(str(value)) for value in column.to_numpy(zero_copy_only=False)]
    values: list[Any] = column.to_pylist()
    return values


def _flatten(row: Row) -> None:
    answers = row["answers"]
    if isinstance(answers, list) and all(isinstance(answer, dict) for answer in answers):
        row["answers"] = {key: [answer.get(key) for answer in answers] for key in ("text", "answer_start")}


def _check_pair(form: Form, row: Row, numbers: Mapping[Any, int], where: str) -> None:
    for name in form.texts:
        if not isinstance(row[name], str):
            raise TaskError(f"{where}: '{name}' is no text")
    if not form.classes:
        row["label"] = check_score(row["label"], where)
    elif isinstance(row["label"], str | int | float) and row["label"] in numbers:
        row["label"] = numbers[row["label"]]
    else:
        raise TaskError(f"{where}: unknown label {row['label']!r}; expected one of {', '.join(map(str, numbers))}")


def _numbers(form: Form, names: Any, folder: Path) -> dict[Any, int]:
    """From what a label column may hold to GLUE's own number: by the names that the data set gives its classes."""
    ours = {name: number for number, name in enumerate(form.classes)}
    if not isinstance(names, list):
        return {**{number: number for number in ours.values()}, **ours}
    if {str(name) for name in names} != set(ours) and names != [str(number) for number in ours.values()]:
        raise TaskError(f"{folder}: classes {', '.join(map(str, names))}; {form.name} has {', '.join(ours)}")
    return {number: ours.get(name, number) for number, name in enumerate(names)}


def _check_columns(form: Form, folder: Path) -> None:
    features = _features(folder)
    missing = [name for name in form.columns if name not in features]
    if features and missing:
        raise TaskError(f"{folder}: no column '{missing[0]}' for {form.name}; found: {', '.join(features)}")


def _features(folder: Path) -> dict[str, Any]:
    """Columns by name; empty where the information does not say. Raises TaskError."""
    features = _json(folder / INFO).get("features") or {}
    if not isinstance(features, dict):
        raise TaskError(f"{folder / INFO}: features are no table of columns; save the data set again")
    return features


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TaskError(f"{path}: missing; is this a folder of datasets.save_to_disk?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TaskError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise TaskError(f"{path}: not a JSON object")
    return content


def write_split_folders(form: Form, splits: Mapping[str, list[Row]], labels: Mapping[str, str], target: Path) -> None:
    """Write a DatasetDict to `target`, whole or not at all, with a declaration of what is not official. What stands there
    already, an older one too, is an error. Raises TaskError, also when the disk is full."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise TaskError(f"{target}: exists and is not empty; name another folder, or delete it")
    work: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
        new = work / "new"
        _save(form, splits, new)
        if labels:
            text = json.dumps({form.name: dict(labels)}, indent=2)
            (new / DECLARATION).write_text(text + "\n", encoding="utf-8")
        new.replace(target)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise TaskError(f"{target}: cannot be written: {reason}; free some space or name another folder") from error
    finally:
        if work:
            shutil.rmtree(work, ignore_errors=True)


def _save(form: Form, splits: Mapping[str, list[Row]], target: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    text, integer = datasets.Value("string"), datasets.Value("int32")
    features: dict[str, Any] = dict.fromkeys(form.columns, text)
    if form.name == "squad_v1":
        features["answers"] = {"text": datasets.List(text), "answer_start": datasets.List(integer)}
    else:
        features["label"] = datasets.ClassLabel(names=list(form.classes)) if form.classes else datasets.Value("float32")
        features["idx"] = integer
    made = {
        split: datasets.Dataset.from_dict(
            {name: [row.get(name, number) for number, row in enumerate(rows)] for name in features},
            features=datasets.Features(features),
        )
        for split, rows in splits.items()
    }
    datasets.DatasetDict(made).save_to_disk(str(target))
