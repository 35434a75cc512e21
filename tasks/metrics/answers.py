"""Exact match and F1 of an answer, as the official scorer of SQuAD v1.1, `evaluate-v1.1.py`, computes them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """In this order: to lower case, without ASCII punctuation, without articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match_and_f1(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1 over words), both from 0 to 1. Each is the best over the accepted answers, of which there is at least one."""
    predicted = normalize_answer(prediction)
    words = predicted.split()
    accepted = [normalize_answer(answer) for answer in answers]
    return float(predicted in accepted), max(_f1(words, answer.split()) for answer in accepted)


def _f1(predicted: list[str], accepted: list[str]) -> float:
    common = sum((Counter(predicted) & Counter(accepted)).values())
    if common == 0:
        return 0.0
    precision = common / len(predicted)
    recall = common / len(accepted)
    return (2 * precision * recall) / (precision + recall)
