"""A task of a user's own: what a suite file says of it, its definition, and its rows.

The rows have the columns `text`, `text_pair` (of a pair) and `label`, whatever the files call them. A class is known by its
name. Labels that are numbers (0, 1, ...) are the places of the names in `labels`. Several labels of a row are a list in one
column, or text with a separator, or one column of 0 and 1 for each label. Sentences with a tag for each word have the columns
`tokens` and `label`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tasks.base import DataIdentity, Kind, SplitIdentity, TaskError, TaskFacts, with_skip
from tasks.definitions import TRAIN, Definition, OfficialSplit, RawFiles
from tasks.rows import Row, check_text, row_digest
from tasks.tables import Values, column_names, read_table

DeclaredKind = Literal[
    "classification", "pair", "regression", "multi_label", "token_classification", "question_answering", "similarity"
]
KINDS: dict[str, Kind] = {
    "classification": "classification",
    "pair": "classification",
    "regression": "regression",
    "multi_label": "multi_label",
    "token_classification": "token_classification",
    "question_answering": "question_answering",
    "similarity": "similarity",
}
"""What a suite may call a task, and the kind of head that it needs. A `pair` is a classification of two texts."""
METRICS: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1", "matthews_correlation", "f1"),
    "regression": ("pearson", "spearman"),
    "multi_label": ("micro_f1", "macro_f1", "subset_accuracy"),
    "token_classification": ("f1", "precision", "recall", "word_accuracy"),
    "question_answering": ("f1", "exact_match"),
    "similarity": ("spearman", "pearson"),
}
"""What may be asked of each kind; `f1` is that of the second of two classes. The first three, or all, are the default."""
SCORED = ("regression", "similarity")
"""The kinds whose labels are numbers, and that have no classes."""
POOLINGS = ("mean", "cls")
COLUMNS: dict[str, tuple[str, str]] = {
    "token_classification": ("tokens", "ner_tags"),
    "question_answering": ("question", "answers"),
}
"""Names of the columns `text` and `label` that a declaration may leave out, by kind."""
UNANSWERABLE = ("f1", "exact", "best_f1", "best_exact")
"""The metrics of questions of which some have no answer, as SQuAD v2 calls them."""
SEPARATORS = ("|", ";", ",")
"""What may stand between the labels of a row; the first that the column has is taken where the declaration names none."""
LABEL = "own data"
"""What pages say of such data: there is no official version that it could be compared with."""


@dataclass(frozen=True)
class Declaration:
    """A task as declared. data: the file of each split (`train`, `validation`), as an absolute path. text, text_pair, label:
    names of columns. labels: the names of the classes in the order of their numbers; empty: the values that the label column
    has, sorted. Without `label`, each of `labels` is a column of 0 and 1. separator: between the labels of a row. pooling: how an
    encoder's states become one vector, of a similarity; empty: as the model's folder says. unanswerable: whether some questions
    have no answer. metrics: the first one ranks; empty: the kind's default. skip_bad_rows: leave out rows that cannot be used, and
    count them, instead of refusing the file."""

    name: str
    kind: DeclaredKind
    data: Mapping[str, str]
    text: str = ""
    label: str = ""
    text_pair: str | None = None
    labels: tuple[str, ...] = ()
    separator: str = ""
    pooling: str = ""
    unanswerable: bool = False
    metrics: tuple[str, ...] = ()
    skip_bad_rows: bool = False

    def __post_init__(self) -> None:
        text, label = COLUMNS.get(self.kind, ("", ""))
        object.__setattr__(self, "text", self.text or text)
        object.__setattr__(self, "label", self.label or label)

    @property
    def facts(self) -> TaskFacts:
        """What a suite is checked against; reads no file."""
        facts = facts_of_kind(self.kind, self.metrics, unanswerable=self.unanswerable)
        assert facts is not None, "the kind is one of KINDS"
        return replace(facts, short=self.name, eval_splits=self.eval_splits)

    @property
    def eval_splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.data if split != TRAIN)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Declaration:
        values = json.loads(text)
        return Declaration(**values | {name: tuple(values[name]) for name in ("labels", "metrics")})


def metrics_of_kind(kind: str, *, unanswerable: bool = False) -> tuple[str, ...]:
    """What may be asked of a declared kind."""
    return UNANSWERABLE if unanswerable and kind == "question_answering" else METRICS[KINDS[kind]]


def facts_of_kind(kind: Any, metrics: Sequence[str] = (), *, unanswerable: bool = False) -> TaskFacts | None:
    """What is known of a task from its declared kind and metrics; None for a kind that is none."""
    if not isinstance(kind, str) or kind not in KINDS:
        return None
    head = KINDS[kind]
    known = metrics_of_kind(kind, unanswerable=unanswerable)
    return TaskFacts(head, tuple(metrics) or (known if unanswerable else known[:3]))


class DeclaredRows:
    """The rows of a declared task. Every method raises TaskError, with file and row, for what cannot be used."""

    def __init__(self, declaration: Declaration) -> None:
        self._declaration = declaration
        self._read: dict[str, list[Row]] = {}
        self.skipped: dict[str, int] = {}
        """How many rows of each split that was read were left out."""

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._declaration.data)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; none for regression."""
        declared = self._declaration
        if declared.kind in SCORED:
            return ()
        if declared.labels:
            return declared.labels
        values = {
            name for split in self.splits for _, row in self._table(split) for name in self._names(row[declared.label])
        } - {""}
        if len(values) < 2:
            raise TaskError(
                f"{self._path(self.splits[0])}: column '{declared.label}' has {len(values)} different labels, and a"
                " classification needs two; name the right column"
            )
        return tuple(
            sorted(values, key=lambda value: (not value.isdigit(), int(value) if value.isdigit() else 0, value))
        )

    @cached_property
    def definition(self) -> Definition:
        """What the code of the task's kind works by."""
        declared = self._declaration
        kind = KINDS[declared.kind]
        return Definition(
            name=declared.name,
            kind=kind,
            metrics=declared.facts.metrics,
            primary_metric=declared.facts.metrics[0],
            texts=("tokens",) if kind == "token_classification" else self._texts,
            splits={split: OfficialSplit(0) for split in self.splits},
            raw=RawFiles(folder="", names={}),
            hub=("", None),
            classes=dict.fromkeys(self.classes, ()),
            score_range=self._score_range if kind in SCORED else (0.0, 1.0),
        )

    @cached_property
    def identity(self) -> DataIdentity:
        """Hashes hold what the declaration makes of the files, not where they are: an equal copy elsewhere is equal data."""
        declared = self._declaration
        settings = json.dumps([declared.kind, declared.facts.metrics, self.classes])
        splits = {}
        for split in self.splits:
            rows = self.rows(split)
            content = hashlib.sha256(f"{settings}\n{row_digest(self.definition, rows)}".encode()).hexdigest()
            skipped = f", {self.skipped[split]:,} rows left out" if self.skipped.get(split) else ""
            splits[split] = SplitIdentity(len(rows), None, content, f"{LABEL}{skipped}")
        return DataIdentity("declared", LABEL, splits)

    def rows(self, split: str) -> list[Row]:
        """The rows of a split in file order: `text`, `text_pair` (of a pair), `label` (class number or score) and `idx`."""
        if split not in self._declaration.data:
            raise TaskError(
                f"{self._declaration.name}: no split '{split}' is declared; found: {', '.join(self.splits)}"
            )
        if split not in self._read:
            self._read[split] = list(self._usable(split))
        return self._read[split]

    @cached_property
    def _score_range(self) -> tuple[float, float]:
        """The lowest and the highest score of all splits; a missing prediction is scored as the farther end."""
        scores = [row["label"] for split in self.splits for row in self.rows(split)]
        return min(scores), max(scores)

    @property
    def _texts(self) -> tuple[str, ...]:
        return ("text", "text_pair") if self._declaration.text_pair else ("text",)

    def _path(self, split: str) -> Path:
        return Path(self._declaration.data[split])

    def _table(self, split: str) -> list[tuple[str, Values]]:
        declared, path = self._declaration, self._path(split)
        table = read_table(path)
        columns = column_names(table)
        labels = [("label", declared.label)] if declared.label else [("labels", name) for name in declared.labels]
        for key, column in (("text", declared.text), ("text_pair", declared.text_pair), *labels):
            if column is not None and column not in columns:
                raise TaskError(f"{path}: has no column '{column}' ({key}); its columns are {', '.join(columns)[:300]}")
        return table

    def _names(self, value: Any) -> list[str]:
        """The classes in a cell of the label column, as text. A cell that is a list, or has a separator, may have several."""
        if self._declaration.kind == "token_classification":
            return [_label(item) for item in _items(value) or []]
        if self._declaration.kind != "multi_label":
            return [_label(value)]
        if isinstance(value, str):
            return [name for part in value.split(self._separator) if (name := part.strip())]
        return [_label(item) for item in value] if isinstance(value, list) else [_label(value)]

    @cached_property
    def _separator(self) -> str:
        declared = self._declaration
        if declared.separator:
            return declared.separator
        cells = [row.get(declared.label) for split in self.splits for _, row in self._table(split)]
        texts = [cell for cell in cells if isinstance(cell, str)]
        return next((mark for mark in SEPARATORS if any(mark in text for text in texts)), SEPARATORS[0])

    def _usable(self, split: str) -> list[Row]:
        path = self._path(split)
        rows: list[Row] = []
        self.skipped[split] = 0
        for place, values in self._table(split):
            try:
                rows.append(self._row(values, f"{path}: {place}") | {"idx": len(rows)})
            except TaskError as error:
                if not self._declaration.skip_bad_rows:
                    raise with_skip(error) from None
                self.skipped[split] += 1
        if not rows:
            raise TaskError(f"{path}: none of its {self.skipped[split]:,} rows can be used; check the columns")
        return rows

    def _row(self, values: Values, where: str) -> Row:
        declared = self._declaration
        if declared.kind == "token_classification":
            return self._sentence(values, where)
        row: Row = {}
        for name, column in (("text", declared.text), ("text_pair", declared.text_pair)):
            if column is None:
                continue
            value = values.get(column)
            if not isinstance(value, str):
                raise TaskError(f"{where}: '{column}' is {_shown(value)}, not text; correct the row")
            check_text(value, f"{where}: '{column}'")
            row[name] = value
        if declared.kind in SCORED:
            row["label"] = self._score(values.get(declared.label), where)
        elif declared.kind == "multi_label":
            row["label"] = self._classes(values, where)
        else:
            row["label"] = self._class(values.get(declared.label), where)
        return row

    def _sentence(self, values: Values, where: str) -> Row:
        """`tokens` and the number of the tag of each."""
        declared = self._declaration
        tokens, tags = _items(values.get(declared.text)), _items(values.get(declared.label))
        for column, items in ((declared.text, tokens), (declared.label, tags)):
            if items is None:
                raise TaskError(f"{where}: '{column}' is {_shown(values.get(column))}, not a list; correct the row")
        assert tokens is not None and tags is not None
        if not tokens or not all(isinstance(token, str) and token for token in tokens):
            raise TaskError(f"{where}: '{declared.text}' must list at least one word, and words only; correct the row")
        if len(tokens) != len(tags):
            raise TaskError(f"{where}: {len(tags)} tags for {len(tokens)} words; give one for each word")
        check_text("".join(tokens), f"{where}: '{declared.text}'")
        return {"tokens": list(tokens), "label": [self._class(tag, where) for tag in tags]}

    def _classes(self, values: Values, where: str) -> list[int]:
        """The numbers of a row's classes, in order."""
        declared = self._declaration
        if declared.label:
            value = values.get(declared.label)
            if value is None:
                raise TaskError(f"{where}: '{declared.label}' is missing; write an empty list where no label fits")
            return sorted({self._class(name, where) for name in self._names(value)})
        numbers = []
        for number, name in enumerate(declared.labels):
            flag = _label(values.get(name)).lower()
            if flag not in ("0", "1", "true", "false"):
                raise TaskError(f"{where}: '{name}' is {_shown(values.get(name))}, not 0 or 1; correct it")
            numbers += [number] if flag in ("1", "true") else []
        return numbers

    def _class(self, value: Any, where: str) -> int:
        label = _label(value)
        if label in self.classes:
            return self.classes.index(label)
        if label.isdigit() and int(label) < len(self.classes) and not any(name.isdigit() for name in self.classes):
            return int(label)
        raise TaskError(
            f"{where}: unknown label {_shown(value)}; it is none of {', '.join(self.classes)[:200]}; correct it"
        )

    def _score(self, value: Any, where: str) -> float:
        try:
            score = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise TaskError(f"{where}: '{self._declaration.label}' is {_shown(value)}, not a number; correct it")
        return score


def _label(value: Any) -> str:
    """A label as text, as a class is known by: `1`, `1.0` and `"1"` are one class."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _items(value: Any) -> list[Any] | None:
    """A cell with a list, or with words between spaces; None for any other."""
    if isinstance(value, str):
        return value.split()
    return value if isinstance(value, list) else None


def _shown(value: Any) -> str:
    return "missing" if value is None or value == "" else repr(value)[:40]
