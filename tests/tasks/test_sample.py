"""Every task of the sample, from its rows to its scores."""

from __future__ import annotations

import numpy as np
import pytest

from tasks import open_task, task_facts
from tasks.base import DataRef, Shape
from tasks.definitions import DEFINITIONS
from tests.tasks.wordpiece import small_tokenizer


@pytest.mark.parametrize("name", [name for name, task in DEFINITIONS.items() if task.sample])
def test_every_task_runs_from_rows_to_scores_on_the_sample(name: str) -> None:
    task = open_task(name, DataRef("sample"))
    assert task.name == name
    assert task.identity.label == "sample"
    for split in task.eval_splits:
        examples = task.examples(split)[:20]
        trained = task.kind != "similarity"
        features = task.features(examples, small_tokenizer(), Shape(96, doc_stride=16), training=trained)
        width = features.input_ids.shape if task.kind == "question_answering" else (len(features),)
        outputs = np.random.default_rng(0).normal(size=(*width, len(task.labels) or 2)).astype(np.float32)
        scores = task.score(examples, task.decode(examples, features, outputs, task.labels))
        facts = task_facts(name)
        assert facts is not None and task.kind == facts.kind
        assert tuple(scores.metrics) == facts.metrics
        assert task.primary_metric in scores.metrics
        assert scores.missing == 0
