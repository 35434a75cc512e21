"""What a labelled file and a model's configuration say about each other: the kind of task, the columns, the classes.

Nothing is guessed from a few rows: all of them are looked at. Whatever a user names is taken as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import QuantboardError, did_you_mean

Rows = Sequence[Mapping[str, Any]]

PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
    ("question", "passage"), ("query", "passage"), ("query", "document"), ("text1", "text2"), ("texta", "textb"),
    ("text", "textpair"), ("sentencea", "sentenceb"),
)  # fmt: skip
"""Names of columns, without separators, that hold the two texts of a pair."""
TEXTS = (
    "text", "sentence", "message", "body", "content", "review", "comment", "utterance", "question", "query", "tweet",
    "document", "description", "title", "headline", "input",
)  # fmt: skip
LABELS = (
    "label", "labels", "class", "category", "topic", "intent", "sentiment", "target", "gold", "emotion", "y", "tag",
)  # fmt: skip
SCORES = (
    "score",
    "label",
    "labels",
    "similarity",
    "similarityscore",
    "rating",
    "stars",
    "target",
    "gold",
    "value",
    "y",
)
TOKENS = ("tokens", "words")
TAGS = ("nertags", "tags", "labels", "label", "postags", "ner")
NUMBERS_OF_ROWS = re.compile(r"(id|idx|index|no|nr|number|row|guid|.*_id|unnamed.*|)", re.IGNORECASE)
"""Names of columns that say which row it is."""


@dataclass(frozen=True)
class Head:
    """What a model's configuration says it was trained for. kind: as a suite declares it; None where no head is named. classes:
    its names of the outputs in their order; `named`: they are names, not LABEL_0, LABEL_1 ..."""

    kind: str | None
    classes: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        return bool(self.classes) and not all(re.fullmatch(r"LABEL_\d+", name) for name in self.classes)


@dataclass(frozen=True)
class Columns:
    """How a file is read: the keys of a suite's `[task.NAME]`. Guessed, or as given."""

    kind: str | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    labels: tuple[str, ...] = ()
    unanswerable: bool = False


def head_of(config: Mapping[str, Any]) -> Head:
    """The head that a config.json names."""
    names = config.get("architectures")
    architecture = str(names[0]) if isinstance(names, list) and names else ""
    id2label = config.get("id2label")
    count = len(id2label) if isinstance(id2label, dict) else config.get("num_labels", 2)
    classes = tuple(str(name) for name in id2label.values()) if isinstance(id2label, dict) else ()
    classes = classes or tuple(f"LABEL_{number}" for number in range(count))
    if architecture.endswith("ForTokenClassification"):
        return Head("token_classification", classes)
    if architecture.endswith("ForQuestionAnswering"):
        return Head("question_answering")
    if not architecture.endswith("ForSequenceClassification"):
        return Head(None)
    if config.get("problem_type") == "multi_label_classification":
        return Head("multi_label", classes)
    if config.get("problem_type") == "regression" or count == 1:
        return Head("regression")
    return Head("classification", classes)


def guess(rows: Rows, head: Head, given: Columns, file: str, kinds: Sequence[str]) -> Columns:
    """The columns and the kind, as given where they are. kinds: those that a suite can declare. Raises QuantboardError with the
    option that helps. `{command}` in its text stands for the command that was given."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    for option, column in (("text", given.text), ("text-pair", given.text_pair), ("label", given.label)):
        if column is not None and column not in names:
            raise QuantboardError(f"--{option}: {file} has no column '{column}'; its columns are {_listed(names)}")
    if given.kind and given.kind not in kinds:
        raise QuantboardError(f"--task-kind: unknown kind '{given.kind}'{did_you_mean(given.kind, kinds)}")
    kind = given.kind or head.kind
    if given.labels and head.classes and len(given.labels) != len(head.classes):
        raise QuantboardError(
            f"--labels: {len(given.labels)} names, and the model has {len(head.classes)} outputs ({_listed(head.classes)}); give one"
            " for each, in their order"
        )
    if kind is None and "similarity" in kinds and _scored_pair(rows, names, given):
        kind = "similarity"
    if kind == "question_answering":
        return _questions(given, file)
    if kind == "token_classification" and kind in kinds:
        return _tagged(rows, names, head, given, file)
    if kind is None:
        raise QuantboardError(
            f"the model's config.json names no head; say what it answers: {{command}} --task-kind {'|'.join(kinds)}"
        )
    if kind not in kinds:
        raise QuantboardError(f"the model's head is for {kind}, which pick cannot run; known: {', '.join(kinds)}")
    numeric = kind in ("regression", "similarity")
    free = [name for name in names if name not in (given.text, given.text_pair)]
    flags = _flag_columns(free, given.labels or head.classes) if kind == "multi_label" and not given.label else ()
    label = given.label or (
        _score_column(rows, free) if numeric else _class_column(rows, free, head, several=kind == "multi_label")
    )
    label = None if flags else label
    text, text_pair = _texts(rows, names, given, kind, label)
    numbers = [name for name in free if not NUMBERS_OF_ROWS.fullmatch(name) and _is_numeric(rows, name, some=True)]
    if numeric and not (_is_numeric(rows, label, some=True) if label else numbers):
        column = f"column '{label}' of {file} holds no numbers" if label else f"{file} has no column of numbers"
        raise QuantboardError(
            f"{column}, and the model answers with a number ({kind}); its columns are {_listed(names)}; give the file that the"
            " model was made for, or another model"
        )
    if label is None and not flags:
        what = "scores" if numeric else "labels"
        left = [name for name in free if name not in (text, text_pair) and (not numeric or name in numbers)]
        candidate = _likely_label(rows, left) or "COLUMN"
        raise QuantboardError(
            f"{file} has no column of {what} that can be told. Its columns are {_listed(names)}. Name one:"
            f" {{command}} --label {candidate}"
        )
    if text is None:
        raise QuantboardError(
            f"{file} has no column of texts. Its columns are {_listed(names)}. Name one: {{command}} --text COLUMN"
        )
    if kind == "pair" and text_pair is None:
        raise QuantboardError(
            f"{file}: a pair has two texts. Its columns are {_listed(names)}. Name the second: {{command}} --text-pair COLUMN"
        )
    if kind == "classification" and text_pair:
        kind = "pair"
    labels = flags or given.labels
    if kind in ("classification", "pair") and label and not labels:
        labels = _labels(rows, label, head, file)
    if kind == "multi_label" and head.named and not labels:
        labels = head.classes
    return Columns(kind, text, text_pair, label, labels)


def _scored_pair(rows: Rows, names: Sequence[str], given: Columns) -> bool:
    """Whether two columns of texts and one of scores are there, which an encoder without a head can be compared with."""
    plain = {_plain(name) for name in names}
    pair = bool(given.text and given.text_pair) or any(set(texts) <= plain for texts in PAIRS)
    return pair and (given.label or _score_column(rows, names)) is not None


def _tagged(rows: Rows, names: Sequence[str], head: Head, given: Columns, file: str) -> Columns:
    """The columns of words and of their tags. Tags that are numbers are places in the model's classes."""
    by_name = {_plain(name): name for name in reversed(names)}
    text = given.text or next((by_name[name] for name in TOKENS if name in by_name), None)
    label = given.label or next((by_name[name] for name in TAGS if name in by_name), None)
    if label is None and head.named:
        known = set(head.classes)
        holding = [name for name in names if all(known >= set(_words(row.get(name))) for row in rows)]
        if not holding:
            raise QuantboardError(
                f"{file} has no column of tags, and the model gives each word one ({_listed(head.classes)}); its columns are"
                f" {_listed(names)}; give rows with a list of words and a list of tags, or a file in CoNLL's form"
            )
        label = holding[0]
    for option, what, column in (("text", "lists of words", text), ("label", "lists of tags", label)):
        if column is None:
            raise QuantboardError(
                f"{file} has no column of {what}. Its columns are {_listed(names)}. Name one: {{command}} --{option} COLUMN"
            )
    return Columns("token_classification", text, None, label, given.labels or (head.classes if head.named else ()))


def _words(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else str(value or "").split()


def _questions(given: Columns, file: str) -> Columns:
    """Questions have columns of their own, which SQuAD's form names."""
    for option, value in (("text", given.text), ("text-pair", given.text_pair), ("label", given.label)):
        if value is not None:
            raise QuantboardError(
                f"--{option}: the columns of questions are called context, question and answers; leave it out, and rename them"
                f" in {file} if they are not"
            )
    return Columns("question_answering")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names))[:200]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _texts(
    rows: Rows, names: Sequence[str], given: Columns, kind: str, label: str | None
) -> tuple[str | None, str | None]:
    """The columns of the text and of a second one."""
    by_name = {_plain(name): name for name in reversed(names)}
    if (
        given.text is None
        and given.text_pair is None
        and kind in ("classification", "pair", "regression", "similarity")
    ):
        for first, second in PAIRS:
            if first in by_name and second in by_name and label not in (by_name[first], by_name[second]):
                return by_name[first], by_name[second]
    texts = [name for name in names if _is_text(rows, name) and name not in (given.text_pair, label)]
    if given.text is not None or not texts:
        return given.text, given.text_pair
    best = next((by_name[name] for name in TEXTS if by_name.get(name) in texts), None)
    return best or max(texts, key=lambda name: _mean_length(rows, name)), given.text_pair


def _is_text(rows: Rows, name: str) -> bool:
    values = [row.get(name) for row in rows]
    found = [value for value in values if isinstance(value, str) and value]
    return 2 * len(found) > len(values) and not all(_number(value) is not None for value in found)


def _mean_length(rows: Rows, name: str) -> float:
    return sum(len(value) for row in rows if isinstance(value := row.get(name), str)) / len(rows)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def label_text(value: Any) -> str:
    """A label as text, as a declared task knows it: `1`, `1.0` and `"1"` are one class."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _values(rows: Rows, name: str) -> list[str]:
    """The different labels of a column, in the order in which they come."""
    return list(dict.fromkeys(label for row in rows if (label := label_text(row.get(name)))))


def _several_values(rows: Rows, name: str) -> list[str]:
    """The same of a column whose cells hold several labels each, as a list or as text with a mark between them."""
    cells = [row.get(name) for row in rows]
    lists = [cell if isinstance(cell, list) else re.split(r"[|;,]", label_text(cell)) for cell in cells]
    return list(dict.fromkeys(label for items in lists for item in items if (label := label_text(item))))


def _class_column(rows: Rows, names: Sequence[str], head: Head, *, several: bool) -> str | None:
    """By what it holds: the model's classes. By its name, where the classes have none or are numbered. several: in a cell."""
    values_of = _several_values if several else _values
    by_name = [name for wanted in LABELS for name in names if _plain(name) == wanted]
    known = {_plain(name) for name in head.classes} if head.named else set()
    holding = [
        name for name in names if (values := values_of(rows, name)) and {_plain(value) for value in values} <= known
    ]
    for name in by_name:
        if name in holding:
            return name
    if len(holding) == 1:
        return holding[0]
    return by_name[0] if by_name else None


def _flag_columns(names: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """The columns of 0 and 1, one for each class; empty where one is missing."""
    by_name = {_plain(name): name for name in names}
    found = [by_name[_plain(name)] for name in classes if _plain(name) in by_name]
    return tuple(found) if classes and len(found) == len(classes) else ()


def _score_column(rows: Rows, names: Sequence[str]) -> str | None:
    numeric = [name for name in names if _is_numeric(rows, name)]
    by_name = [name for wanted in SCORES for name in numeric if _plain(name) == wanted]
    others = [name for name in numeric if not NUMBERS_OF_ROWS.fullmatch(name)]
    return by_name[0] if by_name else others[0] if len(others) == 1 else None


def _is_numeric(rows: Rows, name: str, *, some: bool = False) -> bool:
    """Whether every value that a column has is a number; with `some`, one of them."""
    found = [value for row in rows if (value := row.get(name)) not in (None, "")]
    return bool(found) and (any if some else all)(_number(value) is not None for value in found)


def _likely_label(rows: Rows, names: Sequence[str]) -> str | None:
    """The column with the fewest different values, at least two."""
    counts = {name: len(_values(rows, name)) for name in names if not NUMBERS_OF_ROWS.fullmatch(name)}
    return min((name for name in counts if counts[name] > 1), key=lambda name: counts[name], default=None)


def _labels(rows: Rows, label: str, head: Head, file: str) -> tuple[str, ...]:
    """The classes in the order of the model's outputs, spelt as in the file. Numbers are places in that order."""
    values = _values(rows, label)
    in_file = {_plain(value): value for value in values}
    if set(in_file) <= {_plain(name) for name in head.classes}:
        return tuple(in_file.get(_plain(name), name) for name in head.classes)
    if all(value.isdigit() and int(value) < len(head.classes) for value in values):
        return head.classes
    shown = ", ".join(sorted(values)[:12])
    if len(values) == len(head.classes):
        raise QuantboardError(
            f"the model calls its classes {_listed(head.classes)}, and {file} {shown}; give the file's names in the order of the"
            f" model's: {{command}} --labels {','.join(sorted(values))}"
        )
    unknown = next(value for value in values if _plain(value) not in {_plain(name) for name in head.classes})
    raise QuantboardError(
        f"{file}: column '{label}' holds '{unknown[:40]}', and the model's classes are {_listed(head.classes)}; name another"
        " column with --label, or correct the file"
    )
