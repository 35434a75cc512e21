"""The form of each data set's rows (Hugging Face's flat one), and what its official splits hold.

Row counts are those that Hugging Face publishes for `rajpurkar/squad` and `nyu-mll/glue`. `content` is `content_key` of
the official rows where a copy was at hand whose bytes were proven: for SQuAD dev by the file's own SHA-256, for GLUE by the
total size of its text, which equals the published size of the split to the byte.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.base import TaskError

Row = dict[str, Any]


@dataclass(frozen=True)
class Official:
    """One official split: its rows, and hashes where they are known. file: SHA-256 of the classic file's bytes."""

    rows: int
    content: str | None = None
    file: str | None = None


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
                "validation": Official(10_570, file="95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9"),
            },
            ("rajpurkar/squad", None),
        ),
        _glue("cola", "sentence", "unacceptable acceptable", train=Official(8_551), validation=Official(1_043)),
        _glue("sst2", "sentence", "negative positive", train=Official(67_349), validation=Official(872)),
        _glue(
            "mrpc", "sentence1 sentence2", "not_equivalent equivalent", train=Official(3_668), validation=Official(408)
        ),
        _glue("stsb", "sentence1 sentence2", "", train=Official(5_749), validation=Official(1_500)),
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
            validation=Official(5_463),
        ),
        _glue(
            "rte", "sentence1 sentence2", "entailment not_entailment", train=Official(2_490), validation=Official(277)
        ),
    )
}


def form_of(name: str) -> Form:
    """Raises TaskError for a name without a form."""
    if name not in FORMS:
        raise TaskError(f"no data is known for task '{name}'; known: {', '.join(FORMS)}")
    return FORMS[name]


def check_question(row: Row, where: str) -> None:
    """A SQuAD row in its flat form, or TaskError: every answer must stand at its offset (in characters) of the context."""
    for column in ("id", "title", "context", "question"):
        if not isinstance(row.get(column), str):
            raise TaskError(f"{where}: '{column}' is missing or no text")
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
    """SHA-256 over the rows in any order and with any white space: what copies of one official split have in common.

    SQuAD's contexts are taken as they are, since answers count characters.
    """
    keep = form.name == "squad_v1"
    texts = (
        json.dumps([value if keep or not isinstance(value, str) else " ".join(value.split()) for value in map(row.get, form.columns)])
        for row in rows
    )  # fmt: skip
    hashes = sorted(hashlib.sha256(text.encode()).digest() for text in texts)
    return hashlib.sha256(b"".join(hashes)).hexdigest()
