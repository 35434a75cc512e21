"""SQuAD's official metric as an `evaluate.Metric`: `evaluate.load(".../tasks/metrics/squad_v1.py")`, or `SquadV1()`."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from tasks.metrics.answers import exact_match_and_f1


class SquadV1(evaluate.Metric):  # type: ignore[misc]
    """predictions: [{id, prediction_text}]; references: [{id, answers: {text: [...], answer_start: [...]}}]. Returns
    percent. A reference without a prediction counts as wrong."""

    def _info(self) -> evaluate.MetricInfo:
        answers = datasets.Sequence({"text": datasets.Value("string"), "answer_start": datasets.Value("int32")})
        return evaluate.MetricInfo(
            description="Exact match and F1 of the official SQuAD v1.1 scorer, in percent.",
            citation="Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, EMNLP 2016",
            inputs_description=self.__doc__,
            features=datasets.Features(
                {
                    "predictions": {"id": datasets.Value("string"), "prediction_text": datasets.Value("string")},
                    "references": {"id": datasets.Value("string"), "answers": answers},
                }
            ),
        )

    def _compute(self, predictions: list[dict[str, Any]], references: list[dict[str, Any]]) -> dict[str, float]:
        given = {prediction["id"]: prediction["prediction_text"] for prediction in predictions}
        exact = f1 = 0.0
        for reference in references:
            if reference["id"] in given:
                pair = exact_match_and_f1(given[reference["id"]], reference["answers"]["text"])
                exact, f1 = exact + pair[0], f1 + pair[1]
        return {"exact_match": 100.0 * exact / len(references), "f1": 100.0 * f1 / len(references)}
