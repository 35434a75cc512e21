"""Runs of tasks of one's own score what plain transformers with scikit-learn or seqeval scores, to the last example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from transformers import BertForSequenceClassification

from tests.run.own_tasks import logits_of, metrics_of, run_suite, save_model, texts, tokenizer_of, write_rows

pytestmark = pytest.mark.slow
INT8 = ("onnxruntime_int8", "onnxruntime_int8_dynamic")


def test_multi_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["late", "broken", "Wrong item", "refund"]
    model = save_model(
        tmp_path / "model", BertForSequenceClassification, names, problem_type="multi_label_classification"
    )
    rows = texts(80)
    true = np.array([[(row >> bit) & 1 for bit in range(4)] for row in range(80)])
    labels = [[name for name, is_true in zip(names, flags, strict=True) if is_true] for flags in true]
    for split in ("train", "dev"):
        write_rows(
            tmp_path / f"{split}.jsonl",
            [{"message": text, "topics": topics} for text, topics in zip(rows, labels, strict=True)],
        )
    tokenizer = tokenizer_of(tmp_path / "model")
    logits = np.concatenate([logits_of(model, tokenizer(text, return_tensors="pt")) for text in rows])
    predicted = 1 / (1 + np.exp(-logits)) > 0.5

    records = run_suite(
        tmp_path,
        'kind = "multi_label"\ntext = "message"\nlabel = "topics"\n'
        'data = { train = "train.jsonl", validation = "dev.jsonl" }\n',
        monkeypatch,
        capsys,
    )
    expected = {
        "micro_f1": 100 * f1_score(true, predicted, average="micro"),
        "macro_f1": 100 * f1_score(true, predicted, average="macro"),
        "subset_accuracy": 100 * accuracy_score(true, predicted),
    }
    for backend in ("torch_fp32", "onnxruntime_fp32"):
        assert metrics_of(records[backend]) == pytest.approx(expected)
    for backend in INT8:
        assert metrics_of(records[backend])["micro_f1"] > 0
