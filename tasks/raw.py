"""The published files: `squad/{train,dev}-v1.1.json` and `glue/TASK/*.tsv`, read without any library.

`RawFiles` in a task's definition says how they are laid out. The TSV files have no quoting: a quote is a character. Two
peculiarities of the official files are treated as everybody treats them: MultiNLI's `-` (no majority label) and the few
broken rows of QQP are left out. Any other fault ends in a TaskError that names file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.base import BadRow, TaskError
from tasks.definitions import Definition
from tasks.questions import read_questions, read_text
from tasks.rows import Row, check_score


def raw_files(definition: Definition, root: Path) -> dict[str, Path]:
    """The file of each split that is present below `root`, which may hold `glue/TASK`, `TASK` or the files themselves."""
    folders = task_folders(definition, root)
    # not every folder may be taken as it is: GLUE's tasks all name their files alike
    if definition.raw.distinctive or is_named(root, definition):
        folders.append(root)
    for folder in folders:
        for names in (definition.raw.names, definition.raw.other_names):
            files = {split: folder / file for split, file in names.items() if (folder / file).is_file()}
            if files:
                return files
    return {}


def expected_files(definition: Definition) -> str:
    """What `raw_files` looks for, for an error's text."""
    return f"{definition.raw.folder}/{{{','.join(definition.raw.names.values())}}}"


def task_folders(definition: Definition, root: Path) -> list[Path]:
    """The folders below `root` that have the task's name, best first."""
    *parent, _ = definition.raw.folder.split("/")
    parents = [*(child for name in parent for child in _children(root, {plain(name)})), root]
    return [folder for place in parents for folder in _children(place, folder_names(definition))]


def folder_names(definition: Definition) -> set[str]:
    """What the task's own folder may be called, as `plain` gives it."""
    return {plain(folder.rpartition("/")[2]) for folder in (definition.raw.folder, *definition.raw.other_folders)}


def is_named(folder: Path, definition: Definition) -> bool:
    """Whether the folder has the task's name."""
    return plain(folder.name) in folder_names(definition)


def plain(name: str) -> str:
    """Without case, dashes and underscores: `SST-2` and `sst2` are the same."""
    return re.sub(r"[-_]", "", name.lower())


def _children(folder: Path, names: set[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(child for child in folder.iterdir() if plain(child.name) in names and child.is_dir())


def read_raw(definition: Definition, path: Path, *, skip: bool = False) -> tuple[list[Row], int]:
    """The rows of one file, in file order, and how many that cannot be used were left out, where `skip` says so. Raises TaskError:
    BadRow for a row that can be left out."""
    if definition.raw.format == "squad_json":
        rows, left_out = read_questions(path, unanswerable=definition.unanswerable, skip=skip)
    else:
        faults: list[str] | None = [] if skip else None
        rows = list(_table(definition, path, faults))
        left_out = len(faults or ())
    if not rows and left_out:
        raise TaskError(f"{path}: none of its {left_out:,} rows can be used; leave --skip-bad-rows out to see why")
    if not rows:
        raise TaskError(f"{path}: holds no rows; replace it with the complete file")
    return rows, left_out


def _table(definition: Definition, path: Path, faults: list[str] | None) -> Iterator[Row]:
    """faults: takes the rows that cannot be used; None: the first of them is raised."""
    raw = definition.raw
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    header = lines[0].split("\t")
    if raw.positions and not set(definition.columns) <= set(header):
        positions, width, first = raw.positions, raw.width, 0
    else:
        positions, width, first = _positions(definition, header, path), len(header), 1
    classes = {str(number) if raw.class_numbers else name: number for number, name in enumerate(definition.classes)}
    may_break = (len(lines) - first) // raw.rows_for_each_broken if raw.rows_for_each_broken else 0
    index = 0
    for number, line in enumerate(lines[first:], first + 1):
        fields = line.split("\t")
        where = f"{path}: line {number}"
        if len(fields) < width and may_break and number < len(lines):
            may_break -= 1
            continue
        try:
            if len(fields) != width:
                raise TaskError(
                    f"{where}: {len(fields)} columns, expected {width}; is the file cut off or written with quotes?"
                )
            label = fields[positions["label"]]
            if label in raw.ignored_labels:
                continue
            row: Row = {column: fields[positions[column]] for column in definition.texts}
            row["label"] = _class(classes, label, where) if classes else _score(definition, label, where)
        except TaskError as error:
            if faults is None:
                raise BadRow(str(error)) from None
            faults.append(str(error))
            continue
        row["idx"] = index
        index += 1
        yield row


def _positions(definition: Definition, header: Sequence[str], path: Path) -> dict[str, int]:
    """Where each column is, by the header's names. Raises TaskError."""
    positions = {}
    for column in definition.columns:
        names = (definition.raw.headers.get(column, column), column)
        name = next((name for name in names if name in header), None)
        if name is None:
            present = ", ".join(field[:30] for field in header[:12])
            raise TaskError(
                f"{path}: line 1: no column '{names[0]}'; found: {present}; is this the file of another task?"
            )
        positions[column] = header.index(name)
    return positions


def _class(classes: Mapping[str, int], text: str, where: str) -> int:
    if text not in classes:
        raise TaskError(f"{where}: unknown label {text[:40]!r}; expected one of {', '.join(classes)}")
    return classes[text]


def _score(definition: Definition, text: str, where: str) -> float:
    try:
        value: Any = float(text)
    except ValueError:
        value = text
    return check_score(definition, value, where)
