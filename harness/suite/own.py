"""The suite file that `pick` writes and runs, and the files of a slice that is set aside for calibration."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends import artefacts
from backends.onnx_file import folder_of_onnx
from harness.errors import QuantboardError, disk_fault
from harness.suite.guess import Columns
from harness.suite.measure import Measure
from tasks import Shape

MARK = "# Written by `quantboard pick`, which overwrites it: copy it before you change it."
SEARCH = "-search"
"""Ends the name of a suite file that `search` reads, whose rows are split otherwise than a pick's."""
SEARCHED_NAME = 64 - len("-searched")
"""Characters of a name that leave room for the file that `search` writes."""
SLICE, LEAST = 128, 8
"""Rows that are set aside for calibration: this many, but at most a fifth of the file, and at least LEAST."""

BATCH_SIZE = 16
MEASURE: Mapping[str, Any] = {
    "scenarios": ["interleaved"],
    "loads": ["real"],
}
"""Interleaved rounds alone: a few minutes for a model of MiniLM's size."""
ROUNDS, FEWEST_ROUNDS = Measure.rounds, 5
"""Of each method, and where the time is short."""


@dataclass(frozen=True)
class Own:
    """What a suite of a user's own model and data holds. source: as suites have it, with absolute folders. files: ONNX files that
    are compared with it, by model name. backends: the keys of each entry; the first is the baseline. labels: the user's names of
    the model's outputs. left_out: those of backends and files that take longer than `minutes`. limit: rows that are scored,
    where not all are."""

    name: str
    title: str
    task: str
    model: str
    source: str
    max_length: int
    columns: Columns
    validation: Path
    train: Path | None
    backends: Sequence[Mapping[str, Any]]
    skip_bad_rows: bool = False
    labels: Sequence[str] = ()
    rounds: int = ROUNDS
    files: Mapping[str, Path] = field(default_factory=dict)
    left_out: Collection[str] = ()
    minutes: float = 0
    limit: int | None = None


def slug(text: str) -> str:
    """A name that suites, tasks and models may have: small letters, digits, `.`, `_`, `-`."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")[:28] or "mine"


def set_aside(rows: Sequence[Any], most: int = SLICE, share: int = 5) -> tuple[list[int], list[int]]:
    """(calibration, evaluation): the places of rows, in file order: `most` of them, but at most one of `share`. The draw depends on
    their number alone. Raises QuantboardError for a file that is too short."""
    count = min(most, max(LEAST, len(rows) // share))
    if len(rows) < 2 * LEAST:
        raise QuantboardError(
            f"{len(rows)} rows are too few to set {LEAST} aside for calibration; give --train FILE, or more rows"
        )
    drawn = set(random.Random(0).sample(range(len(rows)), count))
    return sorted(drawn), [place for place in range(len(rows)) if place not in drawn]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Columns) -> None:
    """The rows' columns that the task reads, as JSONL. Raises QuantboardError."""
    flags = columns.labels if columns.label is None else ()
    names = [name for name in (columns.text, columns.text_pair, columns.label, *flags) if name is not None]
    if columns.kind == "question_answering":
        names = ["id", "title", "context", "question", "answers"]
    lines = [json.dumps({name: row.get(name) for name in names}, ensure_ascii=False, default=str) for row in rows]
    _write(path, "".join(f"{line}\n" for line in lines))


def write_suite(own: Own, file: Path) -> None:
    """Write the suite file, whole or not at all. It holds what `pick` runs; what is left out for time stands in it as a comment. A
    model in a folder, or an ONNX file, is reached by a link beside the split files, since a source must lie below the suite
    file. Raises QuantboardError where a file of that name was not written by `pick`."""
    if file.exists() and not file.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        raise QuantboardError(f"{file}: was not written by `quantboard pick`; move it, or give another --name")
    columns, labels = own.columns, list(own.labels) or None
    model = {"source": _linked(own.source, file), "recipe": "load", "labels": labels}
    made_from = {"recipe": "load", "made_from": f"model:{own.model}", "labels": labels}
    files = {name: {"source": _linked(f"onnx:{path}", file), **made_from} for name, path in own.files.items()}
    data = {"train": own.train, "validation": own.validation}
    task = {
        "kind": columns.kind,
        "data": {split: _relative(path, file.parent) for split, path in data.items() if path},
        "text": columns.text,
        "text_pair": columns.text_pair,
        "label": columns.label,
        "labels": list(columns.labels) or None,
        "unanswerable": columns.unanswerable or None,
        "skip_bad_rows": own.skip_bad_rows or None,
    }
    named = [(name, _table(f"[models.{_value(name)}]", table)) for name, table in files.items()]
    entries = [(backend["name"], _table("[[backends]]", backend)) for backend in own.backends]
    blocks = [
        f"{MARK}\n# Repeat the run: quantboard run {file}{f' --limit {own.limit}' if own.limit else ''}",
        _table("", {"title": own.title, "tasks": [own.task], "baseline": own.backends[0]["name"]}),
        _table(f"[models.{_value(own.model)}]", model),
        *(text for name, text in named if name not in own.left_out),
        _table("[shape]", {"max_length": own.max_length, **_windows(own), "batch_sizes": [BATCH_SIZE]}),
        _table("[measure]", {**MEASURE, "rounds": own.rounds}),
        _table(f"[task.{_value(own.task)}]", task),
        *(text for name, text in entries if name not in own.left_out),
    ]
    if out := [text for name, text in (*named, *entries) if name in own.left_out]:
        why = f"These did not fit {own.minutes:g} minutes. To run one as well, delete its '# ', or give pick more --minutes."
        blocks += [f"# {why}", *(f"# {text}".replace("\n", "\n# ") for text in out)]
    _write(file, "\n\n".join(blocks) + "\n")


def _table(head: str, table: Mapping[str, Any]) -> str:
    """As TOML, without the keys that have no value."""
    lines = [f"{key} = {_value(value)}" for key, value in table.items() if value is not None]
    return "\n".join([head, *lines] if head else lines)


def _windows(own: Own) -> dict[str, int]:
    """The overlap of windows and the longest question, where a model is too short for the defaults."""
    third = own.max_length // 3
    too_short = own.columns.kind == "question_answering" and third < Shape(0).doc_stride
    return {"doc_stride": third, "max_query_length": min(third, Shape(0).max_query_length)} if too_short else {}


def _linked(source: str, file: Path) -> str:
    """A source as the suite file has it: of a folder or an ONNX file by a link."""
    kind, path = ("onnx:", Path(source.removeprefix("onnx:"))) if source.startswith("onnx:") else ("", Path(source))
    if not path.is_absolute():
        return source
    link, target, inner = file.with_suffix("") / "model", path, ""
    if kind:
        link, target = link.with_name("onnx"), folder_of_onnx(path) or path.parent
        inner = f"/{path.relative_to(target)}"
    _link(link, str(target))
    return f"{kind}{file.stem}/{link.name}{inner}"


def _value(value: Any) -> str:
    """A TOML value. JSON's strings are TOML's basic strings, but for a delete character."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _relative(path: Path, folder: Path) -> str:
    """Relative where the file lies below the folder's parent, so that both can be moved together."""
    path, parent = path.resolve(), folder.resolve().parent
    return os.path.relpath(path, folder.resolve()) if path.is_relative_to(parent) else str(path)


def _link(link: Path, target: str) -> None:
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(target, target_is_directory=True)
    except OSError as error:
        raise QuantboardError(disk_fault(error, link, "change to a folder that can be written to")) from None


def _write(path: Path, text: str) -> None:
    try:
        artefacts.make_folder(path.parent)
        artefacts.write_whole(path, text.encode())
    except OSError as error:
        raise QuantboardError(disk_fault(error, path, "change to a folder that can be written to")) from None
