"""Rows of a data set in Hugging Face's flat form: what makes one valid, and the hashes that tell splits apart."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.base import TaskError
from tasks.definitions import Definition

Row = dict[str, Any]


def check_text(text: str, where: str) -> None:
    """Raises TaskError for half of a surrogate pair, which JSON can write and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TaskError(
            f"{where}: character {error.start} is half of a surrogate pair (U+{ord(text[error.start]):04X}); correct the text"
        ) from None


def check_question(row: Row, where: str, *, unanswerable: bool = False) -> None:
    """Raises TaskError unless this is a SQuAD row in flat form: every answer must be found at its offset (in characters) in
    the context. unanswerable: whether it may have no answer, as in SQuAD v2."""
    for column in ("id", "title", "context", "question"):
        if not isinstance(row.get(column), str):
            raise TaskError(f"{where}: '{column}' is missing or is not text; correct the row")
        check_text(row[column], f"{where}: '{column}'")
    answers = row.get("answers")
    texts = answers.get("text") if isinstance(answers, dict) else None
    if not isinstance(texts, list) or not (texts or unanswerable):
        raise TaskError(
            f"{where}: no answer; SQuAD v1.1 has at least one for every question (is this a v2.0 or test file? if so, take"
            " task squad_v2)"
        )
    assert isinstance(answers, dict)
    starts = answers.get("answer_start")
    if not isinstance(starts, list) or len(starts) != len(answers["text"]):
        raise TaskError(f"{where}: 'answer_start' must have one number for each answer")
    context = row["context"]
    for text, start in zip(answers["text"], starts, strict=True):
        if not isinstance(text, str) or not isinstance(start, int) or not text:
            raise TaskError(f"{where}: an answer needs a text and an integer 'answer_start'")
        if start < 0 or context[start : start + len(text)] != text:
            actual = context[max(start, 0) : max(start, 0) + len(text)]
            raise TaskError(
                f"{where}: answer {text[:60]!r} is not at its offset {start} in the context, which has {actual[:60]!r} there;"
                f" {_other_units(context, text, start)}correct 'answer_start'"
            )


def _other_units(context: str, text: str, start: int) -> str:
    """What an offset counts that does not count characters, as a part of a message; empty where it fits nothing."""
    units = {"utf-16-le": "UTF-16 units, as Java and JavaScript do", "utf-8": "bytes of UTF-8"}
    for encoding, what in units.items():
        width = 2 if encoding == "utf-16-le" else 1
        wanted = text.encode(encoding)
        if start > 0 and context.encode(encoding)[width * start :].startswith(wanted):
            return f"it counts {what}: count characters (code points), so that an emoji is 1, and "
    return ""


def check_score(definition: Definition, value: Any, where: str) -> float:
    """The score as a float. Raises TaskError for anything but a number in the task's range."""
    low, high = definition.score_range
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high:
        shown = repr(value)[:40]
        raise TaskError(f"{where}: the score must be a number from {low:g} to {high:g}, not {shown}")
    return float(value)


def row_digest(definition: Definition, rows: Iterable[Row]) -> str:
    """SHA-256 over the rows' texts and labels in order. It does not depend on which source the rows were read from."""
    state = hashlib.sha256()
    for row in rows:
        state.update(json.dumps([row[column] for column in definition.columns], separators=(",", ":")).encode())
        state.update(b"\n")
    return state.hexdigest()


def content_key(definition: Definition, rows: Iterable[Row]) -> str:
    """SHA-256 over the rows, whatever their order and white space: all copies of one official split have the same (the hub's
    SQuAD has its questions stripped). Contexts are taken as they are, since answers count their characters."""
    return hashlib.sha256(b"".join(sorted(row_key(definition, row) for row in rows))).hexdigest()


def arrow_size(definition: Definition, rows: Iterable[Row]) -> int:
    """The rows' size as Arrow in bytes, as `num_bytes` on the hub counts it: texts in UTF-8 with a 4-byte offset each, a label of
    8 bytes (a score has 4) and an index of 4."""
    fixed = 4 * len(definition.texts) + (4 if definition.kind == "regression" else 8) + 4
    return sum(fixed + sum(len(row[column].encode()) for column in definition.texts) for row in rows)


KEY_BYTES = 4
"""How many bytes of each row's key a `members` file holds: of 10,000 rows, 1 in 400,000 foreign rows passes as a member."""


def are_members(definition: Definition, split: str, rows: Iterable[Row]) -> bool | None:
    """Whether all rows are of the official split, whatever their order and white space; None where its rows are not known."""
    name = definition.splits[split].members
    if name is None:
        return None
    content = (Path(__file__).parent / name).read_bytes()
    known = {content[first : first + KEY_BYTES] for first in range(0, len(content), KEY_BYTES)}
    return all(row_key(definition, row)[:KEY_BYTES] in known for row in rows)


def row_key(definition: Definition, row: Row) -> bytes:
    """SHA-256 of one row, whatever the white space outside its context."""
    values = [_without_extra_space(column, row[column]) for column in definition.columns]
    return hashlib.sha256(json.dumps(values).encode()).digest()


def _without_extra_space(column: str, value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) and column != "context" else value
