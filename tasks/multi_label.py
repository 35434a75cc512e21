"""Several classes for a text or a pair of texts: each class is a yes or no of its own.

Sequences are made as for one class. The model has one logit a class; a class is predicted where its sigmoid is above 0.5, which
is where its logit is positive (transformers' `problem_type = "multi_label_classification"`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.base import Features, Scores, Statistic, TaskError
from tasks.class_names import output_classes, read_class
from tasks.defined import Row
from tasks.metrics.labels import class_counts, statistic_percent
from tasks.predictions import parse_json, shown
from tasks.sequence_classification import SequenceClassification, example_ids, in_order

Names = list[str]


class MultiLabel(SequenceClassification):
    """A task of kind `multi_label`. Rows hold the definition's texts, `label`, which lists class numbers, and, if they can,
    `idx`."""

    def decode(  # type: ignore[override]
        self,
        examples: Sequence[Row],
        features: Features,
        outputs: np.ndarray[Any, Any],
        label_names: Sequence[str] = (),
    ) -> list[Names | None]:
        """For each example the names (as in `labels`, in that order) of the classes with a positive logit, of (n, labels).

        label_names: as for one class. An example with a logit that is not finite gets None. Raises TaskError when the names
        do not match.
        """
        if len(outputs) != len(examples) or outputs.ndim != 2:
            raise ValueError(f"outputs have shape {outputs.shape} for {len(examples)} examples")
        self._check_outputs(outputs.shape[1])
        names = output_classes(self._definition, label_names) if label_names else list(self.labels)
        positive = outputs[:, [names.index(label) for label in self.labels]] > 0
        finite = np.isfinite(outputs).all(1)
        return [
            [self.labels[number] for number in np.flatnonzero(chosen)] if valid else None
            for chosen, valid in zip(positive, finite, strict=True)
        ]

    def score(self, examples: Sequence[Row], predictions: Sequence[Names | None]) -> Scores:  # type: ignore[override]
        """The task's metrics. A missing prediction counts as wrong for every class.

        per_example: `id`; `prediction`, a JSON list of class names (empty where missing); `predicted` and `label`, (n, classes)
        of 0 and 1; `correct`, 1 where all classes are right.
        """
        label = self._targets(examples, np.int8)
        number = {name: place for place, name in enumerate(self.labels)}
        predicted = 1 - label
        for row, names in enumerate(predictions):
            if names is not None:
                predicted[row] = 0
                predicted[row, [number[name] for name in names]] = 1
        shown_names = ["" if names is None else json.dumps(names, ensure_ascii=False) for names in predictions]
        columns = {
            "id": example_ids(examples),
            "label": label,
            "prediction": np.array(shown_names, np.str_),
            "predicted": predicted,
            "correct": (predicted == label).all(1).astype(np.float64),
        }
        statistics = {
            name: Statistic("mean", ("correct",))
            if name == "subset_accuracy"
            else Statistic(name, ("predicted", "label"))  # type: ignore[arg-type]
            for name in self._definition.metrics
        }
        return Scores(
            metrics={name: statistic_percent(statistic, columns) for name, statistic in statistics.items()},
            per_example=columns,
            statistics=statistics,
            missing=sum(names is None for names in predictions),
            classes=class_counts(predicted, label, self.labels),
        )

    def predictions_from_json(  # type: ignore[override]
        self, examples: Sequence[Row], content: str | bytes, file: str
    ) -> list[Names | None]:
        """The predictions of a file: a JSON list in the order of `examples`, of lists of class names or numbers; null where
        there is none. Raises TaskError, naming `file` and the row (counted from 1)."""
        predictions: list[Names | None] = []
        for row, value in enumerate(in_order(parse_json(content, file), len(examples), file), 1):
            where = f"{file}: row {row}"
            if value is not None and not isinstance(value, list):
                raise TaskError(f"{where}: {shown(value)} is no list of classes; give a list, such as [], or null")
            names = None if value is None else {read_class(self._definition, name, where) for name in value}
            predictions.append(None if names is None else [label for label in self.labels if label in names])
        return predictions

    def _targets(self, examples: Sequence[Row], number_type: type[np.number[Any]]) -> np.ndarray[Any, Any]:
        targets = np.zeros((len(examples), len(self.labels)), number_type)
        for row, example in enumerate(examples):
            targets[row, list(example["label"])] = 1
        return targets
