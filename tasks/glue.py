"""The eight GLUE tasks that have a published development set (Wang et al. 2018; WNLI left out, as BERT does).

Rows and class numbers as Hugging Face's `glue`. Sequences as transformers' `run_glue.py` makes them: [CLS] a [SEP], or
[CLS] a [SEP] b [SEP] with the longer text cut first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks import task_facts
from tasks.base import DataIdentity, DataRef, Features, Kind, Rows, Scores, Shape, Statistic, TaskError
from tasks.metrics.labels import statistic_percent
from tasks.predictions import parse_json, shown
from tasks.tokens import bare, sequences, special_ids, token_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Row = Mapping[str, Any]
Prediction = str | float


@dataclass(frozen=True)
class _Definition:
    """columns: of the one or two texts. classes: each with the other names that models give it (compared without case,
    spaces and dashes as underscores); none for regression. primary: the metric that ranks."""

    columns: tuple[str, ...]
    classes: Mapping[str, tuple[str, ...]]
    primary: str


_NLI = {"entailment": ("entail", "entails"), "not_entailment": ("non_entailment", "no_entailment", "not_entail")}
# the digits are what the raw files of these four tasks call their classes
_DEFINITIONS = {
    "glue/cola": _Definition(
        ("sentence",),
        {"unacceptable": ("0", "ungrammatical", "not_acceptable"), "acceptable": ("1", "grammatical")},
        "matthews_correlation",
    ),
    "glue/sst2": _Definition(("sentence",), {"negative": ("0", "neg"), "positive": ("1", "pos")}, "accuracy"),
    "glue/mrpc": _Definition(
        ("sentence1", "sentence2"),
        {"not_equivalent": ("0", "not_paraphrase", "no_paraphrase"), "equivalent": ("1", "paraphrase")},
        "f1",
    ),
    "glue/stsb": _Definition(("sentence1", "sentence2"), {}, "spearman"),
    "glue/qqp": _Definition(
        ("question1", "question2"),
        {"not_duplicate": ("0", "no_duplicate", "not_paraphrase"), "duplicate": ("1", "is_duplicate", "paraphrase")},
        "f1",
    ),
    "glue/mnli": _Definition(
        ("premise", "hypothesis"),
        {
            "entailment": ("entail", "entails"),
            "neutral": (),
            "contradiction": ("contradict", "contradicts", "contradictory"),
        },
        "accuracy",
    ),
    "glue/qnli": _Definition(("question", "sentence"), _NLI, "accuracy"),
    "glue/rte": _Definition(("sentence1", "sentence2"), _NLI, "accuracy"),
}
_LOWEST, _HIGHEST = 0.0, 5.0  # the ends of STS-B's scale


def open_task(name: str, data: DataRef) -> Glue:
    """`glue/cola` ... over the rows that `data` names. Raises TaskError."""
    from tasks.sources import open_rows

    return Glue(name, open_rows(name, data))


class Glue:
    """One GLUE task."""

    version: int = 1

    def __init__(self, name: str, rows: Rows) -> None:
        facts = task_facts(name)
        assert facts is not None, f"{name} is registered without its facts"
        self._rows = rows
        self._definition = _DEFINITIONS[name]
        self._metrics = facts.metrics
        self.name: str = name
        self.kind: Kind = facts.kind
        self.labels: tuple[str, ...] = tuple(self._definition.classes) or ("score",)
        self.primary_metric: str = self._definition.primary
        wanted = facts.eval_splits
        there = tuple(split for split in wanted if split in rows.splits)
        self.eval_splits: tuple[str, ...] = there or wanted[:1]  # of none the first: whoever reads it is told

    @property
    def identity(self) -> DataIdentity:
        return self._rows.identity

    def examples(self, split: str) -> Sequence[Row]:
        """The rows of a split, in file order. Raises TaskError on broken data."""
        return self._rows.rows(split)

    def features(
        self, examples: Sequence[Row], tokenizer: Tokenizer, shape: Shape, *, training: bool = False
    ) -> Features:
        """One sequence an example, of at most `shape.max_length` tokens. labels (training): `labels` (n,), int64
        classes or float32 scores. Raises TaskError when the shape has no room for text."""
        special = special_ids(tokenizer)
        plain = bare(tokenizer)
        texts = [token_ids(plain, [row[column] for row in examples]) for column in self._definition.columns]
        room = shape.max_length - len(texts) - 1
        if room < len(texts):
            raise TaskError(
                f"max_length {shape.max_length} leaves no room for text beside {len(texts) + 1} special tokens;"
                " raise max_length"
            )
        if len(texts) == 1:
            first, second = [ids[:room] for ids in texts[0]], None
        else:
            cuts = [longest_first(len(a), len(b), room) for a, b in zip(*texts, strict=True)]
            first = [ids[: cut[0]] for ids, cut in zip(texts[0], cuts, strict=True)]
            second = [ids[: cut[1]] for ids, cut in zip(texts[1], cuts, strict=True)]
        input_ids, token_type_ids, lengths = sequences(first, second, special)
        return Features(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            lengths=lengths,
            example_index=np.arange(len(examples)),
            labels={"labels": self._true(examples, np.float32)} if training else {},
        )

    def decode(
        self,
        examples: Sequence[Row],
        features: Features,
        outputs: np.ndarray[Any, Any],
        label_names: Sequence[str] = (),
    ) -> list[Prediction | None]:
        """Of each example the class name (as in `labels`) with the largest logit, or the score; outputs: (n, labels).

        `label_names`: the model's names of its columns, matched to the task's by name; none given, the columns are
        the task's own. Logits that are no finite numbers give None. Raises TaskError when they do not match. A regression's single column needs no name.
        """
        if len(outputs) != len(examples) or outputs.ndim != 2:
            raise ValueError(f"outputs have shape {outputs.shape} for {len(examples)} examples")
        if outputs.shape[1] != len(self.labels):
            raise TaskError(
                f"{self.name}: the model has {outputs.shape[1]} outputs, the task {len(self.labels)}"
                f" ({', '.join(self.labels)}); use a model that was fine-tuned for this task"
            )
        if self.kind == "regression":
            return [float(value) for value in outputs[:, 0]]
        names = self._columns(label_names) if label_names else self.labels
        good = np.isfinite(outputs).all(1)
        return [names[at] if fine else None for at, fine in zip(outputs.argmax(1), good, strict=True)]

    def score(self, examples: Sequence[Row], predictions: Sequence[Prediction | None]) -> Scores:
        """GLUE's metrics. A missing prediction counts as wrong: as the class after the true one, or, in regression, as
        the end of the scale that is farther from the true score. A score that is no finite number is missing.

        per_example: `id`; `prediction`, class name (empty where missing) or score (NaN where missing); `predicted` and
        `label`, both as scored: int64 classes or float64 scores; `correct`, 0 or 1, for classes.
        """
        label = self._true(examples, np.float64)
        given = [None if _is_nan(prediction) else prediction for prediction in predictions]
        ids = np.array([str(row.get("idx", at)) for at, row in enumerate(examples)], np.str_)
        columns = {"id": ids, "label": label} | (
            _scored_numbers(given, label) if self.kind == "regression" else _scored_classes(given, label, self.labels)
        )
        statistics = {name: _statistic(name) for name in self._metrics}
        return Scores(
            metrics={name: statistic_percent(statistic, columns) for name, statistic in statistics.items()},
            per_example=columns,
            statistics=statistics,
            missing=given.count(None),
        )

    def predictions_from_json(
        self, examples: Sequence[Row], content: str | bytes, file: str
    ) -> list[Prediction | None]:
        """The predictions of a file: a JSON list in the order of `examples`, of class names or GLUE's class numbers, or
        of scores; null where there is none. Raises TaskError, naming `file` and the row (counted from 1)."""
        values = parse_json(content, file)
        if not isinstance(values, list):
            raise TaskError(f"{file}: a JSON list with one prediction a row is needed, not {shown(values)}")
        if len(values) != len(examples):
            raise TaskError(
                f"{file}: {len(values):,} predictions for {len(examples):,} rows; give each row one, or null"
            )
        return [
            None if value is None else self._prediction(value, f"{file}: row {row}")
            for row, value in enumerate(values, 1)
        ]

    def _prediction(self, value: Any, where: str) -> Prediction:
        if self.kind == "regression":
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
                raise TaskError(f"{where}: {shown(value)} is no score; give a number from 0 to 5, or null")
            return float(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self.labels):
            return self.labels[value]
        label = self._by_name(value) if isinstance(value, str) else None
        if label is None:
            classes = ", ".join(f"{number} ({name})" for number, name in enumerate(self.labels))
            raise TaskError(f"{where}: {shown(value)} is no class of {self.name}; its classes are {classes}")
        return label

    def _columns(self, names: Sequence[str]) -> list[str]:
        """The task's class of each of the model's columns."""
        classes = [self._by_name(name) for name in names]
        if len(names) == len(self.labels) and set(classes) == set(self.labels):
            return [label for label in classes if label is not None]
        raise TaskError(
            f"{self.name}: the model calls its classes {', '.join(names)[:200]}, which cannot be matched to the task's"
            f" {', '.join(self.labels)}; name them in id2label of the model's config.json"
        )

    def _by_name(self, name: str) -> str | None:
        plain = re.sub(r"[\s_-]+", "_", name.strip().lower())
        return next(
            (label for label, others in self._definition.classes.items() if plain == label or plain in others), None
        )

    def _true(self, examples: Sequence[Row], score_type: type[np.floating[Any]]) -> np.ndarray[Any, Any]:
        return np.array([row["label"] for row in examples], score_type if self.kind == "regression" else np.int64)


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts stay so that both fit into `room`, as `longest_first` of Hugging Face's tokenizers:
    the shorter keeps what half the room takes, the longer (of equals the second) gets the rest."""
    if first + second <= room:
        return first, second
    short = min(first, second, room // 2)
    return (room - short, short) if first > second else (short, room - short)


def _statistic(metric: str) -> Statistic:
    if metric == "accuracy":
        return Statistic("mean", ("correct",))
    return Statistic(metric, ("predicted", "label"))  # type: ignore[arg-type]


def _scored_numbers(given: Sequence[Any], label: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    prediction = np.array([math.nan if value is None else value for value in given], np.float64)
    farther = np.where(label - _LOWEST > _HIGHEST - label, _LOWEST, _HIGHEST)
    return {"prediction": prediction, "predicted": np.where(np.isnan(prediction), farther, prediction)}


def _scored_classes(
    given: Sequence[Any], label: np.ndarray[Any, Any], names: Sequence[str]
) -> dict[str, np.ndarray[Any, Any]]:
    number = {name: at for at, name in enumerate(names)} | {None: -1}
    found = np.array([number[value] for value in given], np.int64)
    predicted = np.where(found < 0, (label + 1) % len(names), found)
    return {
        "prediction": np.array([value or "" for value in given], np.str_),
        "predicted": predicted,
        "correct": (predicted == label).astype(np.float64),
    }


def _is_nan(prediction: Prediction | None) -> bool:
    return isinstance(prediction, float) and not math.isfinite(prediction)
