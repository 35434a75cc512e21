"""A task of one's own on a model of every family, with its own kind of tokenizer: what plain transformers predicts, to the last
example."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import AutoConfig, AutoModelForSequenceClassification

from harness.cli.main import main
from tests.backends.family_checkpoints import DISENTANGLED
from tests.run.own_tasks import metrics_of
from tests.tasks.tokenizers import make_tokenizer
from tests.tasks.wordpiece import WORDS

CLASSES = ["returns", "delivery", "payment", "account", "other"]
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "distilbert": ("distilbert", "bert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "electra": ("electra", "bert", {"embedding_size": 16}),
    "roberta": ("roberta", "roberta", {"type_vocab_size": 1, "pad_token_id": 1}),
    "xlm-roberta": ("xlm-roberta", "xlm-roberta", {"type_vocab_size": 1, "pad_token_id": 1}),
    "camembert": ("camembert", "camembert", {"type_vocab_size": 1, "pad_token_id": 1}),
    "mpnet": ("mpnet", "mpnet", {}),
    "multilingual-minilm": ("bert", "xlm-roberta", {"pad_token_id": 1}),
    "one-token-type": ("bert", "bert", {"type_vocab_size": 1}),
    "deberta-v2": ("deberta-v2", "deberta-v2", DISENTANGLED),
    "modernbert": ("modernbert", "modernbert", {"pad_token_id": 0, "local_attention": 8}),
}
"""Model type, tokenizer and sizes of each model."""
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 80, "initializer_range": 0.4,
}  # fmt: skip
SUITE = """
title = "Families"
tasks = ["pairs"]
baseline = "torch_fp32"
shape = {{ max_length = 32, batch_sizes = [8] }}
backends = [
  {{ name = "torch_fp32" }}, {{ name = "onnxruntime_fp32" }}, {{ name = "onnxruntime_int8", scheme = "engine_int8" }},
  {{ name = "onnxruntime_int8_dynamic" }},
]
[models]
model = {{ source = "model", recipe = "load" }}
[task.pairs]
kind = "pair"
text = "message"
text_pair = "answer"
label = "topic"
labels = {classes}
data = {{ train = "train.csv", validation = "dev.csv" }}
"""


def save_model(folder: Path, name: str) -> tuple[Any, Any]:
    """A random model of transformers, in evaluation mode, and its tokenizer."""
    torch.manual_seed(0)
    model_type, kind, sizes = MODELS[name]
    folder.mkdir()
    tokenizer = make_tokenizer(kind, folder)
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {label: n for n, label in enumerate(CLASSES)}}
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **{**SIZES, **sizes, **names})
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_config(config).train(False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def write_rows(path: Path, count: int, seed: int) -> list[dict[str, str]]:
    """Texts of different lengths, with quotes, commas and line breaks."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        message, answer = (rng.choice(WORDS, rng.integers(1, longest)) for longest in (30, 12))
        text = " ".join(message) + ["", ', "old" one', '\nand, "more"'][number % 3]
        rows.append({"message": text, "answer": " ".join(answer), "topic": CLASSES[rng.integers(5)]})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def predictions(model: Any, tokenizer: Any, rows: list[dict[str, str]]) -> list[int]:
    """By plain transformers, each row alone. A model with one token type gets none, as it could not take the tokenizer's."""
    types = getattr(model.config, "type_vocab_size", 0) > 1 and "token_type_ids" in tokenizer.model_input_names
    predicted = []
    for row in rows:
        encoded = tokenizer(
            row["message"], row["answer"], truncation="longest_first", max_length=32, return_tensors="pt",
            return_token_type_ids=types,
        )  # fmt: skip
        with torch.no_grad():
            predicted.append(int(model(**encoded).logits.argmax()))
    return predicted


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_accuracy_is_that_of_plain_transformers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = save_model(tmp_path / "model", name)
    rows = write_rows(tmp_path / "dev.csv", 90, 1)
    write_rows(tmp_path / "train.csv", 40, 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "schema.json").write_text("{}")  # so that results go here
    (tmp_path / "own.toml").write_text(SUITE.format(classes=json.dumps(CLASSES)))
    code = main(["run", "./own.toml", "--until", "score", "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err + printed.out
    records = {record["label"]: record for record in json.loads(printed.out)}
    true, predicted = [CLASSES.index(row["topic"]) for row in rows], predictions(model, tokenizer, rows)
    assert len(set(predicted)) > 1
    expected = {
        "accuracy": 100 * accuracy_score(true, predicted),
        "macro_f1": 100 * f1_score(true, predicted, average="macro"),
        "matthews_correlation": 100 * matthews_corrcoef(true, predicted),
    }
    for backend in ("torch_fp32", "onnxruntime_fp32"):
        assert metrics_of(records[backend]) == pytest.approx(expected)
    for backend in ("onnxruntime_int8", "onnxruntime_int8_dynamic"):
        record = records[backend]
        assert record["status"] == "ok"
        assert record["flops"]["int8_share"] > 0.5
        assert record["flops"]["cross_check"].endswith("equal")
