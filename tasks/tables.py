"""Rows of a user's own file: CSV, TSV, JSON, JSONL, Parquet, or a folder written by `datasets.save_to_disk`.

Sentences may be in CoNLL's form: one word a line with its tag last, a blank line after each sentence. CSV and TSV are read by the rules of Python's csv module: a field in double quotes may hold separators and line breaks, and a
doubled quote is a quote. The first line names the columns. JSON is a list of objects, or `{"data": [...]}`; JSONL has one object
a line.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.arrow import BROKEN, not_arrow, parquet_rows, stream_batches
from tasks.base import TaskError

Values = Mapping[str, Any]
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def read_table(path: Path) -> list[tuple[str, Values]]:
    """(place, values by column) of each row in file order; `place` says where the row is, for messages: `line 12`, `row 3`.

    Raises TaskError for a file that is missing, has another form or holds no rows.
    """
    if path.is_dir():
        rows = list(_saved(path))
    elif read := _READERS.get(path.suffix.lower()):
        rows = list(read(path))
    else:
        if not path.exists():
            raise TaskError(f"{path}: no such file; check the path")
        fix = (
            "save the sheet as CSV"
            if path.suffix.lower() in (".xls", ".xlsx", ".ods")
            else f"give a file that ends in {', '.join(FORMS)}, or a save_to_disk folder"
        )
        raise TaskError(f"{path}: unknown form; {fix}")
    if not rows:
        raise TaskError(f"{path}: holds no rows; replace it with the complete file")
    return rows


def column_names(rows: list[tuple[str, Values]]) -> list[str]:
    """The names of all columns, in the order in which rows first have them."""
    return list(dict.fromkeys(name for _, values in rows for name in values))


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TaskError(
            f"{path}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8; convert the file to UTF-8"
        ) from error


def _separator(text: str) -> str:
    """The separator that splits the header line into most columns; a comma where none does."""
    header = text.split("\n", 1)[0]
    counts = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in SEPARATORS}
    return max(counts, key=lambda mark: counts[mark])  # of equals the first: a comma


def _csv(path: Path) -> Iterator[tuple[str, Values]]:
    text = _text(path)
    separator = "\t" if path.suffix.lower() == ".tsv" else _separator(text)
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = next(reader, [])
        doubled = [name for name in header if header.count(name) > 1]
        if doubled:
            raise TaskError(f"{path}: line 1: two columns are called '{doubled[0]}'; rename one")
        start = reader.line_num + 1
        for fields in reader:
            if fields:
                if len(fields) != len(header):
                    raise TaskError(
                        f"{path}: line {start}: {len(fields)} columns, the header has {len(header)} (separated by"
                        f" {SEPARATORS[separator]}); put quotes around fields with separators or line breaks"
                    )
                yield f"line {start}", dict(zip(header, fields, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise TaskError(f"{path}: line {reader.line_num}: {error}; double the quotes inside a quoted field") from None


def _jsonl(path: Path) -> Iterator[tuple[str, Values]]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            yield f"line {number}", _object(_parsed(line, f"{path}: line {number}"), f"{path}: line {number}")


def _json(path: Path) -> Iterator[tuple[str, Values]]:
    content = _parsed(_text(path), str(path))
    rows = content.get("data") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise TaskError(f'{path}: expected a list of objects, or {{"data": [...]}}')
    for number, row in enumerate(rows, 1):
        yield f"row {number}", _object(row, f"{path}: row {number}")


def _conll(path: Path) -> Iterator[tuple[str, Values]]:
    """Sentences as `tokens` and `ner_tags`, the first and the last column; columns between are `column_2` and so on."""
    columns: list[list[str]] = []
    start = width = 0
    for number, line in enumerate([*_text(path).split("\n"), ""], 1):
        fields = line.split("\t") if "\t" in line.strip() else line.split()
        if not line.strip() or fields[0] == "-DOCSTART-":
            if columns:
                names = ["tokens", *(f"column_{place}" for place in range(2, width)), "ner_tags"]
                yield f"line {start}", dict(zip(names, columns, strict=True))
            columns = []
            continue
        if line.startswith("# ") and " = " in line:  # a comment of CoNLL-U
            continue
        if len(fields) < 2 or (width and len(fields) != width):
            expected = f"{width} columns as above" if width else "a word and its tag"
            raise TaskError(f"{path}: line {number}: {len(fields)} columns, expected {expected}; correct the line")
        if not columns:
            start, width, columns = number, len(fields), [[] for _ in fields]
        for column, field in zip(columns, fields, strict=True):
            column.append(field.strip())


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TaskError(f"{where}: not JSON: {error}; correct it") from None


def _object(value: Any, where: str) -> Values:
    if not isinstance(value, dict):
        raise TaskError(f"{where}: expected an object with the columns as keys, not {type(value).__name__}")
    return value


def _parquet(path: Path) -> Iterator[tuple[str, Values]]:
    for number, row in enumerate(parquet_rows(path), 1):
        yield f"row {number}", row


def _saved(folder: Path) -> Iterator[tuple[str, Values]]:
    from tasks.saved import class_names, saved_files

    if not (folder / "state.json").is_file():
        raise TaskError(f"{folder}: not a folder of datasets.save_to_disk; name the folder of one split")
    names = class_names(folder)
    number = 0
    for path in saved_files(folder)[2:]:
        try:
            rows = [row for batch in stream_batches(path) for row in batch.to_pylist()]
        except BROKEN as error:  # text that is not UTF-8, for example
            raise not_arrow(path, error) from None
        for row in rows:
            number += 1
            yield f"row {number}", {column: _named(names.get(column), value) for column, value in row.items()}


def _named(names: list[str] | None, value: Any) -> Any:
    """A class, or each of a list, by its name, where the column is one of class numbers with names."""
    if isinstance(value, list):
        return [_named(names, item) for item in value]
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Values]]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
    **dict.fromkeys((".conll", ".bio", ".iob", ".iob2", ".txt"), _conll),
}
FORMS = tuple(_READERS)
"""How names of files end that can be read."""
