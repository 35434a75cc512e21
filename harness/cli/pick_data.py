"""The labelled rows of a pick: where they lie, what is read of them, and which files a suite takes."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import QuantboardError, nearest_path
from harness.suite.guess import Columns
from harness.suite.own import LEAST, SLICE, set_aside, write_rows

FOLDER = Path("picks")
"""Where suite files of picks are written, below the working folder."""
CHARACTERS = 4
"""Of a token of running text, roughly; only the estimate of time reads it."""
SPLITS = ("train", "dev", "valid", "validation", "test", "eval", "data")
"""Names of files that do not tell data sets apart."""
EVALUATED = ("validation", "validation_matched", "dev", "valid", "eval", "test", "train")
"""Of a data set with several splits, the first that is there is scored; `test` often has no labels."""
HUB = "hub:"
Rows = list[Mapping[str, Any]]


@dataclass(frozen=True)
class Places:
    """Where rows lie: a file, or a folder of save_to_disk. shown: what messages call them. name: of the data set."""

    evaluated: Path
    train: Path | None
    shown: str
    name: str


@dataclass(frozen=True)
class Table:
    """rows: of one file, of questions in Hugging Face's flat form. plain: a TSV with lone quotes that was read as it stands.
    unanswerable: whether some questions have no answer. left_out: questions that cannot be used and were left out."""

    rows: Rows
    plain: bool = False
    unanswerable: bool = False
    left_out: int = 0


@dataclass(frozen=True)
class Files:
    """The files that a suite names. rows: that are scored. notes: what was decided."""

    train: Path | None
    validation: Path
    rows: int
    notes: Sequence[str]


def find_places(data: str, train: str | None) -> Places:
    """The rows of --data and --train. A data set of the hub is downloaded once; of a data set with several splits, one is scored
    and `train` gives INT8 ranges. Raises QuantboardError, TaskError."""
    if data.startswith(HUB):
        folder = _fetched(data.removeprefix(HUB))
        shown, name = data, re.sub(r"^[^/]*/", "", data.removeprefix(HUB))
    else:
        folder, shown = _there("--data", data), Path(data).resolve().name
        name = _data_name(folder)
    own_train = _split_of(_there("--train", train), ("train",)) if train else None
    if not (folder / "dataset_dict.json").is_file():
        return Places(folder, own_train, shown, name)
    evaluated = _split_of(folder, EVALUATED)
    rest = folder / "train"
    has_train = rest != evaluated and rest.is_dir()
    return Places(evaluated, own_train or (rest if has_train else None), f"{shown} {evaluated.name}", name)


def _there(option: str, data: str) -> Path:
    """A file or folder that exists. Raises QuantboardError."""
    from tasks.tables import FORMS

    path = Path(data)
    if path.is_dir() and not (path / "state.json").is_file() and not (path / "dataset_dict.json").is_file():
        inside = sorted(one.name for one in path.iterdir() if one.suffix.lower() in FORMS)
        found = f"; name one of its files: {', '.join(inside)[:200]}" if inside else ""
        raise QuantboardError(
            f"{option}: {data} is a folder, and not one of datasets.save_to_disk{found or '; name a file'}"
        )
    if path.exists():
        return path
    if "://" in data:
        raise QuantboardError(f"{option}: {data}: addresses are not read; download the file and name it")
    hint = nearest_path(path)
    if not hint and option == "--data" and re.fullmatch(r"[\w-]+(/[\w.-]+)?", data):
        hint = f"; a data set of the hub is written hub:{data}"
    raise QuantboardError(f"{option}: {data}: no such file{hint or '; check the path'}")


def _split_of(path: Path, names: Sequence[str]) -> Path:
    """The split of a saved DatasetDict that has the first of the names that one has; any other path as it is."""
    if not (path / "dataset_dict.json").is_file():
        return path
    for name in names:
        if (path / name / "state.json").is_file():
            return path / name
    found = ", ".join(sorted(folder.parent.name for folder in path.glob("*/state.json")))
    raise QuantboardError(f"{path}: has no split {' or '.join(names)}; name the folder of one: {found}")


def _fetched(name: str) -> Path:
    from tasks.hub import fetch_dataset

    parts = name.split("/")
    if not 1 <= len(parts) <= 3 or not all(re.fullmatch(r"[\w.-]+", part) and ".." not in part for part in parts):
        raise QuantboardError(f"--data: 'hub:{name}' is not a data set; write hub:OWNER/NAME or hub:OWNER/NAME/CONFIG")
    return fetch_dataset("/".join(parts[:2]), parts[2] if len(parts) == 3 else None)


def _data_name(file: Path) -> str:
    """The file's name, with that of its folder where it says only which split it is."""
    folder = file.resolve().parent.name
    return f"{folder}-{file.stem}" if folder and file.stem.lower() in SPLITS else file.stem


def read(file: Path, kind: str | None, *, skip: bool = False) -> Table:
    """The rows of a file. skip: leave out questions that cannot be used. Raises TaskError."""
    from tasks import TaskError
    from tasks.tables import read_table

    if kind == "question_answering":
        return _read_questions(file, skip=skip)
    try:
        return Table([values for _, values in read_table(file)])
    except TaskError:
        if file.suffix.lower() == ".tsv" and (rows := _plain_tabs(file)):
            return Table(rows, plain=True)
        raise


def _read_questions(file: Path, *, skip: bool) -> Table:
    from tasks import TaskError
    from tasks.base import BadRow, with_skip
    from tasks.questions import has_unanswerable, read_questions
    from tasks.tables import read_table

    unanswerable = has_unanswerable(file, read_table)
    try:
        rows, left_out = read_questions(file, unanswerable=unanswerable, skip=skip, read_table=read_table)
    except BadRow as error:
        text = str(error)
        if ": no answer;" in text:
            text = text.partition(": no answer;")[0] + ": no answer; mark it with is_impossible = true"
        raise with_skip(text) from None
    if not rows:
        raise TaskError(f"{file}: holds no questions that can be used ({left_out:,} left out); check the file")
    return Table(list(rows), unanswerable=unanswerable, left_out=left_out)


def _plain_tabs(file: Path) -> Rows:
    """The rows of a file of tabs without quoting, as GLUE's are; none where a line has not as many fields as the first."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    names, *rows = [line.split("\t") for line in lines if line]
    return [dict(zip(names, row, strict=True)) for row in rows] if all(len(row) == len(names) for row in rows) else []


def split_files(
    options: argparse.Namespace,
    places: Places,
    table: Table,
    columns: Columns,
    name: str,
    *,
    calibrates: bool,
    searches: int = 0,
) -> Files:
    """The files of calibration and evaluation. A file is used where it lies unless a slice of it is set aside, or it
    was read as plain tabs. calibrates: whether a method needs rows for INT8 ranges. searches: rows that a search needs besides, for
    which up to half of the file is set aside."""
    file, folder, notes = places.evaluated, FOLDER / name, list[str]()
    train = places.train if calibrates or options.train else None
    if table.plain:
        notes.append(f"{file.name} has lone quotes: it is read as plain tabs, with quotes as text.")
    if table.left_out:
        notes.append(f"{table.left_out:,} rows cannot be used and are left out.")
    if train:
        given = read(train, columns.kind, skip=options.skip_bad_rows)
        if given.plain:
            train = folder / "train.jsonl"
            write_rows(train, given.rows, columns)
    if train or not calibrates:
        if table.plain:
            write_rows(folder / "validation.jsonl", table.rows, columns)
        return Files(train, folder / "validation.jsonl" if table.plain else file, len(table.rows), notes)
    rows = table.rows
    if not table.plain:
        _check_rows(file, columns, skip=options.skip_bad_rows)
    if len(rows) < 2 * LEAST:
        raise QuantboardError(
            f"{places.shown}: {len(rows)} rows are too few, since {LEAST} of them are set aside for INT8 ranges; give more rows, or"
            " the rows for ranges with --train FILE"
        )
    aside, evaluated = set_aside(rows, SLICE + searches, 2) if searches else set_aside(rows)
    write_rows(folder / "train.jsonl", [rows[place] for place in aside], columns)
    write_rows(folder / "validation.jsonl", [rows[place] for place in evaluated], columns)
    notes.append(
        f"{len(aside):,} of {len(rows):,} rows are set aside for INT8 ranges{' and the search' if searches else ''} and not scored;"
        " --train FILE takes another file."
    )
    return Files(folder / "train.jsonl", folder / "validation.jsonl", len(evaluated), notes)


def _check_rows(file: Path, columns: Columns, *, skip: bool) -> None:
    """Raises TaskError with the file and line of a row that cannot be used, before rows are split into files of ours."""
    from tasks.declared import Declaration, DeclaredRows

    if columns.kind != "question_answering":  # those were checked as they were read
        kind: Any = columns.kind
        declared = Declaration(
            "rows",
            kind,
            {"rows": str(file)},
            text=columns.text or "",
            label=columns.label or "",
            text_pair=columns.text_pair,
            labels=columns.labels,
            skip_bad_rows=skip,
        )
        DeclaredRows(declared).rows("rows")


def typical_tokens(rows: Rows, columns: Columns, longest: int) -> int:
    """Of a sequence, roughly."""
    names = ("question", "context") if columns.kind == "question_answering" else (columns.text, columns.text_pair)
    characters = sum(len(str(row.get(name) or "")) for row in rows for name in names if name is not None)
    return max(8, min(longest, characters // len(rows) // CHARACTERS + 3))


def columns_note(places: Places, count: int, columns: Columns) -> str:
    """What is read of the file, as a note."""
    if columns.kind == "question_answering":
        which = ", of which some have no answer" if columns.unanswerable else ""
        return f"{places.shown}: {count:,} questions{which}."
    texts = " and ".join(f"'{name}'" for name in (columns.text, columns.text_pair) if name)
    classes = f", {len(columns.labels)} classes" if columns.labels else ""
    label = f"label '{columns.label}'" if columns.label else "a column for each label"
    return f"{places.shown}: {count:,} rows, {columns.kind}: text {texts}, {label}{classes}."


def with_unanswerable(columns: Columns, table: Table) -> Columns:
    return replace(columns, unanswerable=table.unanswerable)


def content(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
