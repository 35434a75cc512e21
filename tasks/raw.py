"""The classic raw layout: `squad/{train,dev}-v1.1.json` and `glue/TASK/*.tsv`, read without any library.

The TSV files have no quoting: a quote is a character. Columns are found by the names in the header (CoLA has none). Two
marks of the official sources are followed as everybody does: MultiNLI's `-` (no majority label) and the few broken rows of
QQP are left out. Anything else that is wrong ends in a TaskError that names file and line.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.base import TaskError
from tasks.forms import Form, Row, check_question, check_score

FILES = {
    "train": "train.tsv",
    "validation": "dev.tsv",
    "validation_matched": "dev_matched.tsv",
    "validation_mismatched": "dev_mismatched.tsv",
}
SQUAD_FILES = {"train": "train-v1.1.json", "validation": "dev-v1.1.json"}
BROKEN_PER_ROWS = 10_000
"""QQP may have one short row in so many (official train: some twenty in 363,870)."""


@dataclass(frozen=True)
class Columns:
    """Where a task's file holds its columns: by header name (the first that is there), or by position without a header.
    digits: labels are written as class numbers."""

    texts: tuple[tuple[str, ...], ...]
    label: tuple[str, ...]
    digits: bool = True
    positions: tuple[int, ...] = ()
    """Of texts, then label, in a file without a header."""
    width: int = 0
    """Of a file without a header."""


_PAIR = (("sentence1",), ("sentence2",))
COLUMNS: Mapping[str, Columns] = {
    "glue/cola": Columns((("sentence",),), ("label",), positions=(3, 1), width=4),
    "glue/sst2": Columns((("sentence",),), ("label",)),
    "glue/mrpc": Columns((("#1 String", "sentence1"), ("#2 String", "sentence2")), ("Quality", "label")),
    "glue/stsb": Columns(_PAIR, ("score", "label")),
    "glue/qqp": Columns((("question1",), ("question2",)), ("is_duplicate", "label")),
    "glue/mnli": Columns(
        (("sentence1", "premise"), ("sentence2", "hypothesis")), ("gold_label", "label"), digits=False
    ),
    "glue/qnli": Columns((("question",), ("sentence",)), ("label",), digits=False),
    "glue/rte": Columns(_PAIR, ("label",), digits=False),
}


def raw_files(form: Form, root: Path) -> dict[str, Path]:
    """The files of each split found below `root`, which may hold `glue/TASK`, `TASK` or the files themselves. Folder names
    are compared without case and dashes (`SST-2`, `sst2`)."""
    names = SQUAD_FILES if form.name == "squad_v1" else {split: FILES[split] for split in form.splits}
    for folder in _folders(form, root):
        found = {split: folder / file for split, file in names.items() if (folder / file).is_file()}
        if found:
            return found
    return {}


def looked_for(form: Form) -> str:
    """What `raw_files` looks for, for an error's text."""
    if form.name == "squad_v1":
        return "squad/{train,dev}-v1.1.json"
    files = ",".join(FILES[split].removesuffix(".tsv") for split in form.splits)
    return f"{FOLDERS[form.name]}/{{{files}}}.tsv"


FOLDERS = {
    f"glue/{name.lower().replace('-', '')}": f"glue/{name}"
    for name in ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")
}


def _folders(form: Form, root: Path) -> Iterator[Path]:
    own = {"squad", "squadv1", "squadv1.1"} if form.name == "squad_v1" else {form.name.removeprefix("glue/")}
    parents = [root] if form.name == "squad_v1" else [*named(root, {"glue"}), root]
    for parent in parents:
        yield from named(parent, own)
    # the folder itself only where it cannot be another task's: every GLUE task calls its files alike
    if form.name == "squad_v1" or plain(root.name) in own:
        yield root


def named(folder: Path, names: set[str]) -> list[Path]:
    """Sub-folders whose plain name is one of `names`, sorted."""
    if not folder.is_dir():
        return []
    return sorted(child for child in folder.iterdir() if plain(child.name) in names and child.is_dir())


def plain(name: str) -> str:
    return re.sub(r"[-_]", "", name.lower())


def read_raw(form: Form, path: Path) -> list[Row]:
    """The rows of one file, in file order. Raises TaskError."""
    rows = list(_squad(path)) if form.name == "squad_v1" else list(_glue(form, path))
    if not rows:
        raise TaskError(f"{path}: holds no rows; put the whole file there")
    return rows


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from error
    if not data.removeprefix(codecs.BOM_UTF8).strip():
        raise TaskError(f"{path}: empty file; put the whole file there")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TaskError(
            f"{path}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8; convert the file to UTF-8"
        ) from error


def _glue(form: Form, path: Path) -> Iterator[Row]:
    columns = COLUMNS[form.name]
    lines = [line.removesuffix("\r") for line in _text(path).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    header = lines[0].split("\t")
    if columns.width and not {"sentence", "label"} <= set(header):
        places, width, first = columns.positions, columns.width, 0
    else:
        places, width, first = _places(columns, header, path), len(header), 1
    *texts, label = places
    classes = {text: number for number, text in enumerate(form.classes)}
    if columns.digits:
        classes = {str(number): number for number in range(len(form.classes))}
    spare = (len(lines) - first) // BROKEN_PER_ROWS if form.name == "glue/qqp" else 0
    index = 0
    for number, line in enumerate(lines[first:], first + 1):
        fields = line.split("\t")
        where = f"{path}: line {number}"
        if len(fields) < width and spare and number < len(lines):
            spare -= 1
            continue
        if len(fields) != width:
            raise TaskError(
                f"{where}: {len(fields)} columns, expected {width}; is the file cut off or written with quotes?"
            )
        answer = fields[label]
        if form.name == "glue/mnli" and answer == "-":
            continue
        row: Row = {name: fields[place] for name, place in zip(form.texts, texts, strict=True)}
        row["label"] = _class(classes, answer, where) if form.classes else _score(answer, where)
        row["idx"] = index
        index += 1
        yield row


def _places(columns: Columns, header: Sequence[str], path: Path) -> tuple[int, ...]:
    places = []
    for names in (*columns.texts, columns.label):
        name = next((name for name in names if name in header), None)
        if name is None:
            found = ", ".join(field[:30] for field in header[:12])
            raise TaskError(f"{path}: line 1: no column '{names[0]}'; found: {found}; is it the file of another task?")
        places.append(header.index(name))
    return tuple(places)


def _class(classes: Mapping[str, int], text: str, where: str) -> int:
    if text not in classes:
        raise TaskError(f"{where}: unknown label {text[:40]!r}; expected one of {', '.join(classes)}")
    return classes[text]


def _score(text: str, where: str) -> float:
    try:
        return check_score(float(text), where)
    except ValueError:
        raise TaskError(f"{where}: the score must be a number from 0 to 5, found {text[:40]!r}") from None


def _squad(path: Path) -> Iterator[Row]:
    text = _text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        cut = "; the file is cut off" if not text[error.pos :].strip() or "Unterminated" in error.msg else ""
        raise TaskError(f"{path}: line {error.lineno} column {error.colno}: not JSON: {error.msg}{cut}") from error
    except RecursionError:
        raise TaskError(f"{path}: not SQuAD: nested too deeply") from None
    seen: set[str] = set()
    for a, article in enumerate(_list(content, "data", f"{path}")):
        place = f"{path}: data[{a}]"
        title = article.get("title", f"data[{a}]") if isinstance(article, dict) else ""  # an article of its own
        for p, paragraph in enumerate(_list(article, "paragraphs", place)):
            at = f"{place}.paragraphs[{p}]"
            for q, question in enumerate(_list(paragraph, "qas", at)):
                where = f"{at}.qas[{q}]"
                answers = _list(question, "answers", where)
                if not all(isinstance(answer, dict) for answer in answers):
                    raise TaskError(f"{where}: an answer needs a text and an integer 'answer_start'")
                row: Row = {
                    "id": question.get("id"), "title": title, "context": paragraph.get("context"),
                    "question": question.get("question"),
                    "answers": {
                        "text": [answer.get("text") for answer in answers],
                        "answer_start": [answer.get("answer_start") for answer in answers],
                    },
                }  # fmt: skip
                if isinstance(row["id"], str):
                    where = f"{where} (id {row['id'][:40]})"
                check_question(row, where)
                if row["id"] in seen:
                    raise TaskError(f"{where}: this id occurs twice")
                seen.add(row["id"])
                yield row


def _list(value: Any, key: str, where: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise TaskError(f"{where}: no list '{key}'; this is not SQuAD's format")
    return found
