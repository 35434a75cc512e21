"""How alike two texts are: the cosine of their vectors, compared with people's scores, as sentence encoders are judged.

Each text is a sequence of its own. The model gives one vector a sequence (pooling is part of the model). The figure is the rank
correlation of the cosines with the scores (Spearman), as sentence-transformers' `EmbeddingSimilarityEvaluator` computes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.base import Features, Scores, Shape, Statistic, TaskError
from tasks.defined import Row
from tasks.metrics.labels import statistic_percent
from tasks.predictions import shown
from tasks.sequence_classification import SequenceClassification, example_ids
from tasks.tokens import bare, sequences, special_tokens, token_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Similarity(SequenceClassification):
    """A task of kind `similarity`. Rows hold the definition's two texts, `label`, a score, and, if they can, `idx`."""

    def features(
        self, examples: Sequence[Row], tokenizer: Tokenizer, shape: Shape, *, training: bool = False
    ) -> Features:
        """Two sequences for each example, one after the other, of at most `shape.max_length` tokens each. Raises TaskError when
        the shape has no room for text, and for training, which this kind does not have."""
        if training:
            raise TaskError(f"{self.name}: a similarity is not trained here; load a sentence encoder")
        special = special_tokens(tokenizer)
        room = shape.max_length - special.count(1)
        if room < 1:
            raise TaskError(f"max_length {shape.max_length} leaves no room for text; raise max_length")
        columns = self._definition.texts
        texts = [row[column] for row in examples for column in columns]
        input_ids, token_type_ids, lengths = sequences(
            [ids[:room] for ids in token_ids(bare(tokenizer), texts)], None, special
        )
        return Features(input_ids, token_type_ids, lengths, np.repeat(np.arange(len(examples)), len(columns)))

    def decode(  # type: ignore[override]
        self,
        examples: Sequence[Row],
        features: Features,
        outputs: np.ndarray[Any, Any],
        label_names: Sequence[str] = (),
    ) -> list[float]:
        """The cosine of each example's two vectors, from vectors (2 n, width); NaN where one is not finite or 0."""
        if len(outputs) != 2 * len(examples) or outputs.ndim != 2:
            raise ValueError(f"outputs have shape {outputs.shape} for {len(examples)} pairs")
        vectors = outputs.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            first, second = (
                part / np.linalg.norm(part, axis=1, keepdims=True) for part in (vectors[::2], vectors[1::2])
            )
            return [float(value) for value in (first * second).sum(1)]

    def score(self, examples: Sequence[Row], predictions: Sequence[float | None]) -> Scores:  # type: ignore[override]
        """The task's metrics. A missing cosine, or one that is not finite, counts as the end of -1 to 1 that is farther from the
        true score's place in the score range.

        per_example: `id`; `prediction`, the cosine (NaN where missing); `predicted` and `label`, both as scored.
        """
        label = np.array([row["label"] for row in examples], np.float64)
        low, high = self._definition.score_range
        prediction = np.array([math.nan if value is None else value for value in predictions], np.float64)
        missing = ~np.isfinite(prediction)
        farther = np.where(label - low > high - label, -1.0, 1.0)
        columns = {
            "id": example_ids(examples),
            "label": label,
            "prediction": np.where(missing, math.nan, prediction),
            "predicted": np.where(missing, farther, prediction),
        }
        statistics = {name: Statistic(name, ("predicted", "label")) for name in self._definition.metrics}  # type: ignore[arg-type]
        return Scores(
            metrics={name: statistic_percent(statistic, columns) for name, statistic in statistics.items()},
            per_example=columns,
            statistics=statistics,
            missing=int(missing.sum()),
        )

    def _prediction(self, value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
            raise TaskError(f"{where}: {shown(value)} is no similarity; give a number, such as a cosine, or null")
        return float(value)
