"""The head that a model needs for each kind of task."""

from __future__ import annotations

from collections.abc import Mapping

from backends.architecture import Head
from tasks.base import Kind

HEADS: Mapping[Kind, Head] = {
    "question_answering": "question_answering",
    "classification": "classification",
    "regression": "classification",
    "multi_label": "classification",
    "token_classification": "token_classification",
    "similarity": "embedding",
}
