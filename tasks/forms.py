"""The form of each data set's rows (Hugging Face's flat one), and what its official splits hold.

Row counts, and the SHA-256 of SQuAD's two files, are those that Hugging Face publishes (`dataset_infos.json` of `squad` and
`glue`). `content` is `content_key` of a copy that was checked: SQuAD dev by the SHA-256 of its file; GLUE by the size of the
split as Arrow, which equals the published `num_bytes` to the byte, and by its classes' known shares. Splits without a hash
were not at hand.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.base import TaskError

Row = dict[str, Any]


@dataclass(frozen=True)
class Official:
    """One official split: its rows, and hashes where they are known. file: SHA-256 of the classic file's bytes. members: the
    file beside this one that holds the beginning of every row's key."""

    rows: int
    content: str | None = None
    file: str | None = None
    members: str | None = None


@dataclass(frozen=True)
class Form:
    """texts: the columns of text, in the order of a pair. classes: names in GLUE's own numbering; empty for regression and
    question answering. hub: the repository and its configuration."""

    name: str
    texts: tuple[str, ...]
    classes: tuple[str, ...]
    splits: Mapping[str, Official]
    hub: tuple[str, str | None]

    @property
    def columns(self) -> tuple[str, ...]:
        return ("id", "title", *self.texts, "answers") if self.name == "squad_v1" else (*self.texts, "label")


def _glue(name: str, texts: str, classes: str, **splits: Official) -> Form:
    return Form(f"glue/{name}", tuple(texts.split()), tuple(classes.split()), splits, ("nyu-mll/glue", name))


FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Form(
            "squad_v1",
            ("context", "question"),
            (),
            {
                "train": Official(87_599, file="3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"),
                "validation": Official(
                    10_570,
                    "bfe8074a73a0de5c918691968fbf961677f421ca08a10a57ffde576f2cb723c9",
                    members="squad_validation.keys",
                ),
            },
            ("rajpurkar/squad", None),
        ),
        _glue(
            "cola",
            "sentence",
            "unacceptable acceptable",
            train=Official(8_551, "4ab183e0b0bfa29f066216bc911d7135f0a73ca033a5a8289ed4f46a48c251b8"),
            validation=Official(1_043, "cc1c5b1425a8fdcd8476cf637ddaad394aac53bc79e8a2b3d5ace35db55c5cfd"),
        ),
        _glue(
            "sst2",
            "sentence",
            "negative positive",
            train=Official(67_349, "091adc944297e2da4fcd4287985ad5336a00394253538cf7ec10a4c594168224"),
            validation=Official(872, "528f8ecd90ebdc0d6f7d8ce8648feb7dcb9be7732c7173bb5ebfad0e1cf1a68d"),
        ),
        _glue(
            "mrpc",
            "sentence1 sentence2",
            "not_equivalent equivalent",
            train=Official(3_668, "e49fbb8817687b488697927335fc6ec9cd38b04a2a7959856381413e28ab8211"),
            validation=Official(408, "624e875e701af534f352f7e3b13104e55867e368d5f2485e438877695ceb2a57"),
        ),
        _glue(
            "stsb",
            "sentence1 sentence2",
            "",
            train=Official(5_749, "06c47f3e4bf38d9f8fb6b4b5e84dbd3b268b327bd1cf6cfe6ab2711c35ebe4d1"),
            validation=Official(1_500, "5d8fd9d0fb7add9ec6c42f06573cf0e5fa23441f3938b63a8af6e8405d124e67"),
        ),
        _glue(
            "qqp",
            "question1 question2",
            "not_duplicate duplicate",
            train=Official(363_846),
            validation=Official(40_430),
        ),
        _glue(
            "mnli",
            "premise hypothesis",
            "entailment neutral contradiction",
            train=Official(392_702),
            validation_matched=Official(9_815),
            validation_mismatched=Official(9_832),
        ),
        _glue(
            "qnli",
            "question sentence",
            "entailment not_entailment",
            train=Official(104_743),
            validation=Official(5_463, "f3ecb3423cc21301691c50ec18a77c2a20ac4f8482b545b7b0a8f0d0ae37f491"),
        ),
        _glue(
            "rte",
            "sentence1 sentence2",
            "entailment not_entailment",
            train=Official(2_490, "01db6dbb3c79fabbedf4b0b47f074bda04ff46b52b60cde8d9f93b44358dc3db"),
            validation=Official(277, "2ba1a672425bca44394426034d82b3468638f9e8d748083d8ab44f24faa51be2"),
        ),
    )
}


def form_of(name: str) -> Form:
    """Raises TaskError for a name without a form."""
    if name not in FORMS:
        raise TaskError(f"no data is known for task '{name}'; known: {', '.join(FORMS)}")
    return FORMS[name]


def check_text(text: str, where: str) -> None:
    """Half of a surrogate pair, which JSON can write and no tokenizer takes, is one line."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TaskError(
            f"{where}: character {error.start} is half of a pair (U+{ord(text[error.start]):04X}); mend the text"
        ) from None


def check_question(row: Row, where: str) -> None:
    """A SQuAD row in its flat form, or TaskError: every answer must stand at its offset (in characters) of the context."""
    for column in ("id", "title", "context", "question"):
        if not isinstance(row.get(column), str):
            raise TaskError(f"{where}: '{column}' is missing or no text")
        check_text(row[column], f"{where}: '{column}'")
    answers = row.get("answers")
    if not isinstance(answers, dict) or not isinstance(answers.get("text"), list) or not answers["text"]:
        raise TaskError(
            f"{where}: no answer; SQuAD v1.1 has at least one for every question (is this a v2.0 or test file?)"
        )
    starts = answers.get("answer_start")
    if not isinstance(starts, list) or len(starts) != len(answers["text"]):
        raise TaskError(f"{where}: 'answer_start' does not go with the answers")
    context = row["context"]
    for text, start in zip(answers["text"], starts, strict=True):
        if not isinstance(text, str) or not isinstance(start, int) or not text:
            raise TaskError(f"{where}: an answer needs a text and an integer 'answer_start'")
        if start < 0 or context[start : start + len(text)] != text:
            found = context[max(start, 0) : max(start, 0) + len(text)]
            raise TaskError(
                f"{where}: answer {text[:60]!r} is not at its offset {start} of the context, where {found[:60]!r} stands"
            )


def check_score(value: Any, where: str) -> float:
    """An STS-B score, 0 to 5."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 5:
        raise TaskError(f"{where}: the score must be a number from 0 to 5, found {value!r}")
    return float(value)


def row_digest(form: Form, rows: Iterable[Row]) -> str:
    """SHA-256 over the rows' texts and labels in order: equal when and only when those are, wherever they came from."""
    state = hashlib.sha256()
    for row in rows:
        state.update(json.dumps([row[column] for column in form.columns], separators=(",", ":")).encode())
        state.update(b"\n")
    return state.hexdigest()


def content_key(form: Form, rows: Iterable[Row]) -> str:
    """SHA-256 over the rows in any order and with any white space: what copies of one official split have in common (the
    hub's SQuAD has its questions stripped). Contexts are taken as they are, since answers count their characters.
    """
    return hashlib.sha256(b"".join(sorted(row_key(form, row) for row in rows))).hexdigest()


KEY_BYTES = 4
"""Bytes of a row's key that a file of members keeps: of 10,000 rows a foreign one is taken for one in 400,000 times."""


def are_members(form: Form, split: str, rows: Iterable[Row]) -> bool | None:
    """Whether all rows are of the official split, in any order and with any white space; None where its rows are not known."""
    name = form.splits[split].members
    if name is None:
        return None
    content = (Path(__file__).parent / name).read_bytes()
    known = {content[at : at + KEY_BYTES] for at in range(0, len(content), KEY_BYTES)}
    return all(row_key(form, row)[:KEY_BYTES] in known for row in rows)


def row_key(form: Form, row: Row) -> bytes:
    return hashlib.sha256(json.dumps([_loose(name, row[name]) for name in form.columns]).encode()).digest()


def _loose(column: str, value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) and column != "context" else value
