"""Questions of which some have no answer, as SQuAD v2 (Rajpurkar et al. 2018).

The score of "no answer" is that of a span of the first token, [CLS]; of several windows the lowest counts (BERT's
`run_squad.py` with `version_2_with_negative`). An answer is given where its score is at least that of no answer. `best_exact`
and `best_f1` are the official script's: those at the threshold, between the two scores, that fits these very questions best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.base import Features, Scores, Statistic
from tasks.defined import Row
from tasks.metrics.answers import exact_match_and_f1, normalize_answer
from tasks.question_answering import QuestionAnswering, groups_of

NEVER = 1e9
"""The odds of no answer where no span is valid."""
_LONGEST_KEPT = 1000


@dataclass(frozen=True)
class Answer:
    """text: of the best span. null_odds: the score of no answer less that of the span; above 0 no answer is given."""

    text: str
    null_odds: float

    @property
    def given(self) -> str:
        """The answer at threshold 0; empty for no answer."""
        return "" if self.null_odds > 0 else self.text


class UnanswerableQuestions(QuestionAnswering):
    """A task of kind `question_answering` in which the answers of a row may be empty."""

    def decode(  # type: ignore[override]
        self,
        examples: Sequence[Row],
        features: Features,
        outputs: np.ndarray[Any, Any],
        label_names: Sequence[str] = (),
    ) -> list[Answer | None]:
        """The best span of each example, as without unanswerable questions, and the odds that there is no answer. None where a
        logit is not finite."""
        null = np.full(len(examples), np.inf)
        np.minimum.at(null, features.example_index, outputs[:, 0, 0].astype(np.float64) + outputs[:, 0, 1])
        answers: list[Answer | None] = []
        for span, null_score in zip(self._spans(examples, features, outputs), null, strict=True):
            if span is None:
                answers.append(None)
            else:
                answers.append(Answer(span[0], float(null_score - span[1]) if np.isfinite(span[1]) else NEVER))
        return answers

    def score(self, examples: Sequence[Row], predictions: Sequence[Answer | str | None]) -> Scores:
        """The official `evaluate-v2.0.py`. None counts as wrong. A prediction that is text alone is certain; empty text says that
        there is no answer.

        per_example: `id`; `prediction`, the answer that is given (empty for none); `answer` and `null_odds` of the best span
        (NaN where missing); `exact`, `f1` (0 to 1) of the given answer; `best_exact`, `best_f1` at the best threshold of each.
        groups: the article.
        """
        answers = [_certain(value) if isinstance(value, str) else value for value in predictions]
        given = np.array(
            [
                (0.0, 0.0) if answer is None else exact_and_f1(answer.given, row["answers"]["text"])
                for row, answer in zip(examples, answers, strict=True)
            ]
        ).reshape(-1, 2)
        spans = np.array(
            [
                (0.0, 0.0) if answer is None else exact_and_f1(answer.text, row["answers"]["text"])
                for row, answer in zip(examples, answers, strict=True)
            ]
        ).reshape(-1, 2)
        odds = np.array([np.nan if answer is None else answer.null_odds for answer in answers], np.float64)
        null = np.array([not _accepted(row["answers"]["text"]) for row in examples], np.float64)
        null[np.isnan(odds)] = 0.0
        columns: dict[str, np.ndarray[Any, Any]] = {
            "id": np.array([row["id"] for row in examples], np.str_),
            "prediction": np.array([answer.given[:_LONGEST_KEPT] if answer else "" for answer in answers], np.str_),
            "answer": np.array([answer.text[:_LONGEST_KEPT] if answer else "" for answer in answers], np.str_),
            "null_odds": odds,
        }
        for place, name in enumerate(("exact", "f1")):
            columns[name] = given[:, place]
            columns[f"best_{name}"] = at_best_threshold(spans[:, place], null, odds)
        names = self._definition.metrics
        return Scores(
            metrics={name: 100.0 * float(columns[name].sum()) / max(len(examples), 1) for name in names},
            per_example=columns,
            statistics={name: Statistic("mean", (name,)) for name in names},
            groups=groups_of(examples),
            missing=sum(answer is None for answer in answers),
        )

    def stored_predictions(self, columns: Mapping[str, np.ndarray[Any, Any]]) -> list[Answer | None]:
        """The predictions that `score` stored as columns."""
        pairs = zip(columns["answer"].tolist(), columns["null_odds"].tolist(), strict=True)
        return [None if odds != odds else Answer(text, odds) for text, odds in pairs]


def at_best_threshold(
    answered: np.ndarray[Any, Any], null: np.ndarray[Any, Any], odds: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Each question's score where those with the lowest odds of no answer are answered, as many as give the largest sum.

    answered: scores of the spans. null: scores without an answer, 1 where there is none. odds: of no answer; questions without
    odds come last.
    """
    order = np.argsort(odds, kind="stable")
    gains = np.cumsum((answered - null)[order])
    count = int(np.argmax(gains)) + 1 if len(gains) and gains.max() > 0 else 0
    scores = null.copy()
    scores[order[:count]] = answered[order[:count]]
    return scores


def exact_and_f1(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1 over words), both from 0 to 1, as `evaluate-v2.0.py` has them: no answer is right only where there is
    none."""
    accepted = _accepted(answers)
    if not accepted or not normalize_answer(prediction):
        right = float(normalize_answer(prediction) in (accepted or [""]))
        return right, right
    return exact_match_and_f1(prediction, accepted)


def _accepted(answers: Sequence[str]) -> list[str]:
    return [answer for answer in answers if normalize_answer(answer)]


def _certain(text: str) -> Answer:
    return Answer(text, -1.0 if text else 1.0)
