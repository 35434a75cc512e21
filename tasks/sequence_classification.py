"""Classes or a score for a text or a pair of texts: classification and regression, such as the GLUE tasks (Wang et al. 2018).

Sequences are made as transformers' `run_glue.py` makes them: with the tokenizer's own special tokens, such as [CLS] a [SEP] or
[CLS] a [SEP] b [SEP], where the longer of two texts is cut first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.base import Features, Scores, Shape, Statistic, TaskError
from tasks.class_names import output_classes, read_class
from tasks.defined import DefinedTask, Row
from tasks.metrics.labels import class_counts, statistic_percent
from tasks.predictions import as_number, read_predictions, shown
from tasks.tokens import bare, sequences, special_tokens, token_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Prediction = str | float


class SequenceClassification(DefinedTask):
    """A task of kind `classification` or `regression`. Rows hold the definition's texts, `label` and, if they can, `idx`."""

    def features(
        self, examples: Sequence[Row], tokenizer: Tokenizer, shape: Shape, *, training: bool = False
    ) -> Features:
        """One sequence for each example, of at most `shape.max_length` tokens. labels (training): `labels` (n,), int64
        classes or float32 scores. Raises TaskError when the shape has no room for text."""
        special = special_tokens(tokenizer)
        plain = bare(tokenizer)
        texts = [token_ids(plain, [row[column] for row in examples]) for column in self._definition.texts]
        around = special.count(len(texts))
        room = shape.max_length - around
        if room < len(texts):
            raise TaskError(
                f"max_length {shape.max_length} leaves no room for text beside {around} special tokens;"
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
            labels={"labels": self._targets(examples, np.float32)} if training else {},
        )

    def decode(
        self,
        examples: Sequence[Row],
        features: Features,
        outputs: np.ndarray[Any, Any],
        label_names: Sequence[str] = (),
    ) -> list[Prediction | None]:
        """For each example the name (as in `labels`) of the class with the largest logit, or the score. outputs: (n, labels).

        label_names: the model's names of its outputs, matched to the task's by name; without them the outputs are in the
        task's order. A regression's single output needs no name. An example with a logit that is not finite gets None.
        Raises TaskError when the names do not match.
        """
        if len(outputs) != len(examples) or outputs.ndim != 2:
            raise ValueError(f"outputs have shape {outputs.shape} for {len(examples)} examples")
        self._check_outputs(outputs.shape[1])
        if self.kind == "regression":
            return [float(value) for value in outputs[:, 0]]
        names = output_classes(self._definition, label_names) if label_names else self.labels
        finite = np.isfinite(outputs).all(1)
        return [names[best] if valid else None for best, valid in zip(outputs.argmax(1), finite, strict=True)]

    def score(self, examples: Sequence[Row], predictions: Sequence[Prediction | None]) -> Scores:
        """The task's metrics. A missing prediction counts as wrong: as the class after the true one, or, in regression, as
        the end of the score range that is farther from the true score. A score that is not finite is missing.

        per_example: `id`; `prediction`, class name (empty where missing) or score (NaN where missing); `predicted` and
        `label`, both as scored: int64 classes or float64 scores; `correct`, 0 or 1, for classes.
        """
        label = self._targets(examples, np.float64)
        valid = [None if _is_not_finite(prediction) else prediction for prediction in predictions]
        columns = {"id": example_ids(examples), "label": label}
        if self.kind == "regression":
            columns |= _score_columns(valid, label, self._definition.score_range)
        else:
            columns |= _class_columns(valid, label, self.labels)
        statistics = {name: _statistic(name) for name in self._definition.metrics}
        return Scores(
            metrics={name: statistic_percent(statistic, columns) for name, statistic in statistics.items()},
            per_example=columns,
            statistics=statistics,
            missing=valid.count(None),
            classes={} if self.kind == "regression" else class_counts(columns["predicted"], label, self.labels),
        )

    def predictions_from_json(
        self, examples: Sequence[Row], content: str | bytes, file: str
    ) -> list[Prediction | None]:
        """The predictions of a file: a JSON list in the order of `examples`, of class names, class numbers or scores; null
        where there is none; or another form that `read_predictions` knows. Raises TaskError, naming `file` and the row
        (counted from 1)."""
        return [
            None if value is None else self._prediction(value, f"{file}: row {row}")
            for row, value in enumerate(in_order(read_predictions(content, file), len(examples), file), 1)
        ]

    def _prediction(self, value: Any, where: str) -> Prediction:
        if self.kind == "regression":
            number = as_number(value)
            if number is None or not abs(number) < 1e300:
                low, high = self._definition.score_range
                raise TaskError(
                    f"{where}: {shown(value)} is not a score; give a number from {low:g} to {high:g}, or null"
                )
            return number
        return read_class(self._definition, value, where)

    def _check_outputs(self, count: int) -> None:
        if count != len(self.labels):
            raise TaskError(
                f"{self.name}: the model has {count} outputs, the task {len(self.labels)}"
                f" ({', '.join(self.labels)}); use a model that was fine-tuned for this task"
            )

    def _targets(self, examples: Sequence[Row], number_type: type[np.number[Any]]) -> np.ndarray[Any, Any]:
        return np.array([row["label"] for row in examples], number_type if self.kind == "regression" else np.int64)


def example_ids(examples: Sequence[Row]) -> np.ndarray[Any, Any]:
    """The `idx` of each row, or its place, as text."""
    return np.array([str(row.get("idx", place)) for place, row in enumerate(examples)], np.str_)


def in_order(values: Any, count: int, file: str) -> list[Any]:
    """A predictions file's content as a list with one value for each of `count` rows. Raises TaskError."""
    if not isinstance(values, list):
        raise TaskError(f"{file}: expected a JSON list with one prediction for each row, not {shown(values)}")
    if len(values) != count:
        raise TaskError(f"{file}: {len(values):,} predictions for {count:,} rows; give one, or null, for each row")
    return values


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts are kept so that both fit into `room`, as `longest_first` of Hugging Face's tokenizers
    does it: the shorter text keeps at most half the room, the longer (of equals the second) gets the rest."""
    if first + second <= room:
        return first, second
    short = min(first, second, room // 2)
    return (room - short, short) if first > second else (short, room - short)


def _statistic(metric: str) -> Statistic:
    if metric == "accuracy":
        return Statistic("mean", ("correct",))
    return Statistic(metric, ("predicted", "label"))  # type: ignore[arg-type]


def _score_columns(
    predictions: Sequence[Any], label: np.ndarray[Any, Any], score_range: tuple[float, float]
) -> dict[str, np.ndarray[Any, Any]]:
    low, high = score_range
    prediction = np.array([math.nan if value is None else value for value in predictions], np.float64)
    farther = np.where(label - low > high - label, low, high)
    return {"prediction": prediction, "predicted": np.where(np.isnan(prediction), farther, prediction)}


def _class_columns(
    predictions: Sequence[Any], label: np.ndarray[Any, Any], names: Sequence[str]
) -> dict[str, np.ndarray[Any, Any]]:
    numbers = {name: number for number, name in enumerate(names)} | {None: -1}
    number = np.array([numbers[value] for value in predictions], np.int64)
    predicted = np.where(number < 0, (label + 1) % len(names), number)
    return {
        "prediction": np.array([value or "" for value in predictions], np.str_),
        "predicted": predicted,
        "correct": (predicted == label).astype(np.float64),
    }


def _is_not_finite(prediction: Prediction | None) -> bool:
    return isinstance(prediction, float) and not math.isfinite(prediction)
