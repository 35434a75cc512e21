"""Models and files in forms in which people have them, run to the end: figures are plain transformers' and scikit-learn's."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import confusion_matrix
from transformers import BertForSequenceClassification

from tests.run.own_tasks import logits_of, metrics_of, run_suite, save_model, texts, tokenizer_of, write_rows

pytestmark = pytest.mark.slow
FIVE = ["returns", "delivery", "payment due", "Account", "other"]
DATA = 'data = { train = "train.csv", validation = "dev.csv" }\n'


def test_five_classes_with_silu_in_a_csv_with_quotes_commas_and_newlines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every class is counted as scikit-learn counts it."""
    model = save_model(tmp_path / "model", BertForSequenceClassification, FIVE, hidden_act="silu")
    rows = [f'{text}, he said "never"\n{text[:9]}' for text in texts(60)]
    label = [row % 5 for row in range(60)]
    for split in ("train", "dev"):
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            named = [(text, FIVE[number]) for text, number in zip(rows, label, strict=True)]
            csv.writer(file).writerows([("message", "topic"), *named])
    tokenizer = tokenizer_of(tmp_path / "model")
    predicted = [int(logits_of(model, tokenizer(text, return_tensors="pt")).argmax()) for text in rows]
    records = run_suite(
        tmp_path, f'kind = "classification"\ntext = "message"\nlabel = "topic"\n{DATA}', monkeypatch, capsys
    )
    matrix = confusion_matrix(label, predicted, labels=range(5))
    for backend in ("torch_fp32", "onnxruntime_fp32"):
        assert metrics_of(records[backend])["accuracy"] == pytest.approx(100 * np.mean(np.equal(label, predicted)))
        counts = records[backend]["accuracy"][0]["classes"]
        for number, name in enumerate(FIVE):
            expected = (matrix[number].sum(), matrix[:, number].sum(), matrix[number, number])
            assert tuple(counts[name].values()) == expected, name
    for backend in ("onnxruntime_int8", "onnxruntime_int8_dynamic"):
        assert metrics_of(records[backend])["accuracy"] >= 0


def test_pairs_on_a_model_with_one_token_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers' model runs without the tokenizer's token types, which it has no embeddings for; INT8 rows run, too."""
    model = save_model(tmp_path / "model", BertForSequenceClassification, ["no", "yes"], type_vocab_size=1)
    first, second = texts(60), list(reversed(texts(60)))
    rows = [
        {"a": a, "b": b, "label": ["no", "yes"][row % 2]} for row, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    for split in ("train", "dev"):
        write_rows(tmp_path / f"{split}.jsonl", rows)
    tokenizer = tokenizer_of(tmp_path / "model")
    right = 0
    for row in rows:
        encoded = tokenizer(row["a"], row["b"], return_tensors="pt")
        encoded["token_type_ids"] = torch.zeros_like(encoded["input_ids"])
        right += ["no", "yes"][int(logits_of(model, encoded).argmax())] == row["label"]
    records = run_suite(
        tmp_path,
        'kind = "pair"\ntext = "a"\ntext_pair = "b"\nlabel = "label"\n'
        'data = { train = "train.jsonl", validation = "dev.jsonl" }\n',
        monkeypatch,
        capsys,
    )
    for backend in ("torch_fp32", "onnxruntime_fp32"):
        assert metrics_of(records[backend])["accuracy"] == pytest.approx(100 * right / 60)
    for backend in ("onnxruntime_int8", "onnxruntime_int8_dynamic"):
        metrics_of(records[backend])


def test_a_regression_of_single_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model with one output; its configuration names no kind of problem."""
    model = save_model(tmp_path / "model", BertForSequenceClassification, num_labels=1)
    rows = [{"message": text, "score": str((row * 7) % 11 - 4.5)} for row, text in enumerate(texts(60))]
    for split in ("train", "dev"):
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    tokenizer = tokenizer_of(tmp_path / "model")
    predicted = [float(logits_of(model, tokenizer(row["message"], return_tensors="pt")).item()) for row in rows]
    truth = [float(row["score"]) for row in rows]
    records = run_suite(
        tmp_path, f'kind = "regression"\ntext = "message"\nlabel = "score"\n{DATA}', monkeypatch, capsys
    )
    expected = {
        "pearson": 100 * stats.pearsonr(predicted, truth)[0],
        "spearman": 100 * stats.spearmanr(predicted, truth)[0],
    }
    for backend in ("torch_fp32", "onnxruntime_fp32"):
        assert metrics_of(records[backend]) == pytest.approx(expected, abs=0.01)
    for backend in ("onnxruntime_int8", "onnxruntime_int8_dynamic"):
        metrics_of(records[backend])
