"""Prediction files from users, read strictly: JSON, and the forms that common tools write."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from tasks.base import TaskError

HEADER = re.compile(rb"(\xef\xbb\xbf)?index\tprediction\r?\n", re.IGNORECASE)
"""The first line of the files that `run_glue.py` of transformers writes, and of GLUE's own submissions."""


def read_predictions(content: str | bytes, file: str) -> Any:
    """A JSON value, with these forms turned into the one that tasks take:

    - `run_glue.py`'s `predict_results_*.txt`, a table of index and prediction: the list of predictions by index;
    - pipelines of transformers, `{"label": ..., "score": ...}` a row, or all classes of a row: the label of highest score;
    - `evaluate`'s SQuAD list, `{"id": ..., "prediction_text": ...}` a question: an object {id: answer}.

    Raises TaskError, naming `file`.
    """
    raw = content.encode() if isinstance(content, str) else content
    if HEADER.match(raw):
        return _by_index(raw, file)
    value = parse_json(content, file)
    if not isinstance(value, list) or not value:
        return value
    if all(isinstance(item, dict) and {"id", "prediction_text"} <= item.keys() for item in value):
        return _by_id(value, file)
    return [_likeliest(item) for item in value]


def unknown_ids(content: str | bytes, file: str, known: Collection[str]) -> list[str]:
    """The ids of the file that are not among `known`, in the file's order; none for a file without ids."""
    value = read_predictions(content, file)
    return [id_ for id_ in value if id_ not in known] if isinstance(value, dict) else []


def _by_index(raw: bytes, file: str) -> list[Any]:
    rows: dict[int, Any] = {}
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise TaskError(f"{file}: byte {error.start}: not UTF-8; write the table in UTF-8") from None
    for number, line in enumerate(lines[1:], 2):
        index, tab, prediction = line.partition("\t")
        if not tab or not index.isdecimal() or int(index) in rows:
            raise TaskError(f"{file}: line {number}: expected a new index, a tab and a prediction, not {shown(line)}")
        rows[int(index)] = prediction.strip()
    if sorted(rows) != list(range(len(rows))):
        lacking = next(place for place in range(len(rows)) if place not in rows)
        raise TaskError(f"{file}: index {lacking} is missing; give each row from 0 on")
    return [rows[place] for place in range(len(rows))]


def _by_id(items: list[dict[str, Any]], file: str) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for item in items:
        if not isinstance(item["id"], str) or item["id"] in answers:
            raise TaskError(
                f"{file}: the id {shown(item['id'])} is not text or occurs twice; keep one answer a question"
            )
        answers[item["id"]] = item["prediction_text"]
    return answers


def _likeliest(item: Any) -> Any:
    """The label of a pipeline's answer to one text; anything else as it is."""
    classes = item if isinstance(item, list) else [item]
    if not classes or not all(isinstance(one, dict) and {"label", "score"} <= one.keys() for one in classes):
        return item
    if not all(isinstance(one["score"], (int, float)) for one in classes):
        return item
    return max(classes, key=lambda one: one["score"])["label"]


def parse_json(content: str | bytes, file: str) -> Any:
    """The value of a JSON text. Raises TaskError, naming `file`, for broken JSON and for a key that occurs twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, item in pairs:
            if key in value:
                raise TaskError(f"{file}: the key {key[:80]!r} occurs twice; keep one prediction an example")
            value[key] = item
        return value

    try:
        return json.loads(content, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise TaskError(
            f"{file}: line {error.lineno}: not JSON: {error.msg}; write the predictions as one JSON value in UTF-8"
        ) from None
    except UnicodeDecodeError as error:
        raise TaskError(
            f"{file}: byte {error.start}: not UTF-8; write the predictions as one JSON value in UTF-8"
        ) from None
    except RecursionError:
        raise TaskError(f"{file}: nested too deeply; predictions are one flat JSON object or list") from None
    except ValueError:  # an integer of thousands of digits
        raise TaskError(
            f"{file}: holds a number too long to read; predictions are one flat JSON object or list"
        ) from None


def shown(value: Any) -> str:
    """A JSON value as an error message shows it: at most 80 characters."""
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "an object"
    return json.dumps(value)[:80]


def as_number(value: Any) -> float | None:
    """The number in 1, 1.0, "1" or "1.0"; None for anything else."""
    if isinstance(value, str):
        return float(value) if re.fullmatch(r"-?\d{1,20}(\.\d{1,20})?", value) else None
    try:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    except OverflowError:
        return None
