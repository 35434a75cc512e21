"""Folders written by `datasets.save_to_disk`: read with pyarrow alone (no `datasets`, no torch), written with `datasets`.

A task's folder holds one folder for each split: a saved DatasetDict, or Datasets saved side by side. It has the name of the
task's raw folder (see `tasks.definitions.RawFiles`), such as `squad_v1`, `squad_offline`, `glue/sst2` or `sst2`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.arrow import BROKEN, not_arrow, stream_batches
from tasks.base import BadRow, TaskError
from tasks.definitions import Definition
from tasks.identity import DECLARATION
from tasks.raw import folder_names, is_named, plain, task_folders
from tasks.rows import Row, check_question, check_score

if TYPE_CHECKING:
    import pyarrow as pa

STATE = "state.json"
INFO = "dataset_info.json"


def saved_folders(definition: Definition, root: Path) -> dict[str, Path]:
    """The folder of each split that is present below `root`; empty if there is none. Raises TaskError where a task's folder
    lacks a column."""
    for folder in (*task_folders(definition, root), root):
        splits = {split: folder / split for split in definition.splits if (folder / split / STATE).is_file()}
        if splits and (folder != root or _is_of_task(definition, root, splits)):
            for path in splits.values():
                _check_columns(definition, path)
            return splits
    return {}


def _is_of_task(definition: Definition, root: Path, splits: Mapping[str, Path]) -> bool:
    """Whether the folder that the user named holds this task. Its columns decide if no other task has them, else its name."""
    split = next(iter(splits.values()))
    if definition.raw.distinctive:
        return set(definition.texts) <= set(_features(split))
    return is_named(root, definition) or plain(str(_json(split / INFO).get("config_name"))) in folder_names(definition)


def saved_files(folder: Path) -> list[Path]:
    """The files that a split's rows depend on: its state, its information, then its data. Raises TaskError."""
    state = _json(folder / STATE)
    parts = state.get("_data_files")
    names = [str(part.get("filename")) for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    if not names or any(Path(name).name != name for name in names):
        raise TaskError(f"{folder / STATE}: lists no data files of this folder; save the data set again")
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise TaskError(
            f"{folder}: saved with an index by an old version of datasets; save it again with a current version"
        )
    files = [folder / name for name in names]
    for path in files:
        if not path.is_file():
            raise TaskError(f"{path}: missing; the folder is incomplete: copy it or save the data set again")
    return [folder / STATE, folder / INFO, *files]


def read_saved(definition: Definition, folder: Path, *, skip: bool = False) -> tuple[list[Row], int]:
    """The rows of one split's folder, in order, and how many that cannot be used were left out, where `skip` says so. Raises
    TaskError: BadRow for a row that can be left out."""
    _check_columns(definition, folder)
    faults: list[str] | None = [] if skip else None
    rows = list(_rows(definition, folder, faults))
    if not rows:
        raise TaskError(f"{folder}: holds no rows; save the complete split again")
    return rows, len(faults or ())


def _rows(definition: Definition, folder: Path, faults: list[str] | None) -> Iterator[Row]:
    feature = _features(folder).get("label")
    classes = _class_numbers(definition, feature.get("names") if isinstance(feature, dict) else None, folder)
    seen: set[str] = set()
    index = 0
    for path in saved_files(folder)[2:]:
        for batch in _batches(path, definition):
            for values in zip(*_columns(path, batch, definition), strict=True):
                row = dict(zip(definition.columns, values, strict=True))
                where = f"{folder}: row {index + len(faults or ())}"
                try:
                    if definition.kind == "question_answering":
                        _flatten(row)
                        check_question(row, where, unanswerable=definition.unanswerable)
                        if row["id"] in seen:
                            raise TaskError(f"{where}: id {row['id'][:40]} occurs twice; keep one of the two rows")
                        seen.add(row["id"])
                    else:
                        _check_texts_and_label(definition, row, classes, where)
                        row["idx"] = index
                except TaskError as error:
                    if faults is None:
                        raise BadRow(str(error)) from None
                    faults.append(str(error))
                    continue
                index += 1
                yield row


def _batches(path: Path, definition: Definition) -> Iterator[pa.RecordBatch]:
    for batch in stream_batches(path):
        if missing := [name for name in definition.columns if name not in batch.schema.names]:
            raise TaskError(f"{path}: no column '{missing[0]}'; found: {', '.join(batch.schema.names)}")
        yield batch


def _columns(path: Path, batch: pa.RecordBatch, definition: Definition) -> list[list[Any]]:
    """The values of the task's columns. Raises TaskError."""
    try:
        return [_values(batch, column) for column in definition.columns]
    except BROKEN as error:  # text that is not UTF-8, for example
        raise not_arrow(path, error) from error


def _values(batch: pa.RecordBatch, name: str) -> list[Any]:
    import pyarrow as pa

    column = batch.column(name)
    if pa.types.is_float32(column.type):
        # the decimal that was written: 3.8, not 3.799999952316284
        return [None if value is None else float(str(value)) for value in column.to_numpy(zero_copy_only=False)]
    values: list[Any] = column.to_pylist()
    return values


def _flatten(row: Row) -> None:
    """From a list of answers to one answer with a list of texts and a list of offsets."""
    answers = row["answers"]
    if isinstance(answers, list) and all(isinstance(answer, dict) for answer in answers):
        row["answers"] = {key: [answer.get(key) for answer in answers] for key in ("text", "answer_start")}


def _check_texts_and_label(definition: Definition, row: Row, classes: Mapping[Any, int], where: str) -> None:
    for column in definition.texts:
        if not isinstance(row[column], str):
            raise TaskError(f"{where}: '{column}' is not text; correct the row and save the data set again")
    label = row["label"]
    if not definition.classes:
        row["label"] = check_score(definition, label, where)
    elif isinstance(label, str | int | float) and label in classes:
        row["label"] = classes[label]
    else:
        raise TaskError(f"{where}: unknown label {label!r}; expected one of {', '.join(map(str, classes))}")


def _class_numbers(definition: Definition, names: Any, folder: Path) -> dict[Any, int]:
    """The task's class number of each value that the label column may hold. names: what the data set calls its classes, in
    the order of its own numbers; they are matched by name."""
    numbers = {name: number for number, name in enumerate(definition.classes)}
    if not isinstance(names, list):
        return {**{number: number for number in numbers.values()}, **numbers}
    if {str(name) for name in names} != set(numbers) and names != [str(number) for number in numbers.values()]:
        raise TaskError(
            f"{folder}: its classes are {', '.join(map(str, names))}, but {definition.name} has {', '.join(numbers)};"
            " rename them and save the data set again"
        )
    return {number: numbers.get(name, number) for number, name in enumerate(names)}


def _check_columns(definition: Definition, folder: Path) -> None:
    features = _features(folder)
    missing = [name for name in definition.columns if name not in features]
    if features and missing:
        raise TaskError(f"{folder}: no column '{missing[0]}' for {definition.name}; found: {', '.join(features)}")


def _features(folder: Path) -> dict[str, Any]:
    """The split's columns by name; empty where `dataset_info.json` does not list them. Raises TaskError."""
    features = _json(folder / INFO).get("features") or {}
    if not isinstance(features, dict):
        raise TaskError(f"{folder / INFO}: 'features' is not a table of columns; save the data set again")
    return features


def class_names(folder: Path) -> dict[str, list[str]]:
    """The names of the classes of every column of class numbers, or of lists of them, in the order of the numbers. Raises
    TaskError."""
    features = {name: feature for name, feature in _features(folder).items() if isinstance(feature, dict)}
    inner = {name: feature["feature"] for name, feature in features.items() if isinstance(feature.get("feature"), dict)}
    features |= inner
    return {name: feature["names"] for name, feature in features.items() if isinstance(feature.get("names"), list)}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TaskError(f"{path}: missing; is this a folder of datasets.save_to_disk?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TaskError(f"{path}: cannot be read: {error}; save the data set again") from error
    if not isinstance(content, dict):
        raise TaskError(f"{path}: not a JSON object; save the data set again")
    return content


def write_split_folders(
    definition: Definition, splits: Mapping[str, list[Row]], labels: Mapping[str, str], target: Path
) -> None:
    """Write a DatasetDict to `target`, completely or not at all, with a declaration of the splits in `labels`, which are not
    official. Raises TaskError where `target` already holds something, and where it cannot be written (a full disk)."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise TaskError(f"{target}: already exists and is not empty; name another folder, or delete it")
    work: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
        new = work / "new"
        _save(definition, splits, new)
        if labels:
            text = json.dumps({definition.name: dict(labels)}, indent=2)
            (new / DECLARATION).write_text(text + "\n", encoding="utf-8")
        new.replace(target)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise TaskError(f"{target}: cannot be written: {reason}; free some space or name another folder") from error
    finally:
        if work:
            shutil.rmtree(work, ignore_errors=True)


def _save(definition: Definition, splits: Mapping[str, list[Row]], target: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    text, integer = datasets.Value("string"), datasets.Value("int32")
    features: dict[str, Any] = dict.fromkeys(definition.columns, text)
    if definition.kind == "question_answering":
        features["answers"] = {"text": datasets.List(text), "answer_start": datasets.List(integer)}
    else:
        classes = list(definition.classes)
        features["label"] = datasets.ClassLabel(names=classes) if classes else datasets.Value("float32")
        features["idx"] = integer
    made = {
        split: datasets.Dataset.from_dict(
            {name: [row.get(name, number) for number, row in enumerate(rows)] for name in features},
            features=datasets.Features(features),
        )
        for split, rows in splits.items()
    }
    datasets.DatasetDict(made).save_to_disk(str(target))
