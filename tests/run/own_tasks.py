"""A run of a suite with a task of one's own: a small random model of transformers, the user's files, and what the run scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from harness.cli.main import main
from tasks.sample import sample_tokenizer

WORDS = [
    "the",
    "museum",
    "was",
    "founded",
    "by",
    "a",
    "rich",
    "merchant",
    "in",
    "spring",
    "and",
    "opened",
    "for",
    "all",
    "people",
    "of",
    "town",
]
SUITE = """
title = "Own task"
tasks = ["mine"]
baseline = "torch_fp32"
models.small = { source = "model", recipe = "load" }
shape = { max_length = 64, batch_sizes = [8] }
backends = [
  { name = "torch_fp32" }, { name = "onnxruntime_fp32" }, { name = "onnxruntime_int8", scheme = "engine_int8" },
  { name = "onnxruntime_int8_dynamic" },
]
[task.mine]
"""


def save_model(folder: Path, model_class: Any, labels: list[str] | None = None, seed: int = 0, **config: Any) -> Any:
    """A random model of transformers, in evaluation mode, and its folder with the sample's tokenizer."""
    torch.manual_seed(seed)
    names = (
        {"id2label": dict(enumerate(labels)), "label2id": {name: n for n, name in enumerate(labels)}} if labels else {}
    )
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    options = {"vocab_size": sample_tokenizer().get_vocab_size(), "initializer_range": 0.4, **sizes, **names, **config}
    model = model_class(model_class.config_class(**options)).train(False)
    model.save_pretrained(folder)
    sample_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}'
    )
    return model


def tokenizer_of(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def texts(count: int) -> list[str]:
    """Texts of one to twelve words, all different."""
    return [
        " ".join(WORDS[(row * step + row // 5) % len(WORDS)] for step in range(1, 2 + row % 12)) + f" {row}"
        for row in range(count)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_suite(
    folder: Path, task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **changes: str
) -> dict[str, dict[str, Any]]:
    """The records by backend. task: the lines of the suite's [task.mine]. changes: parts of SUITE, old -> new."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QUANTBOARD_CACHE", str(folder / "cache"))
    (folder / "suites").mkdir(exist_ok=True)
    (folder / "suites" / "schema.json").write_text("{}")  # so that results go here
    text = SUITE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "own.toml").write_text(text + task)
    capsys.readouterr()
    code = main(["run", "./own.toml", "--until", "score", "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return {record["label"]: record for record in json.loads(printed.out)}


def metrics_of(record: dict[str, Any]) -> dict[str, float]:
    """The metrics of a record's first split; every one has an interval."""
    figures = record["accuracy"][0]["metrics"]
    assert record["status"] == "ok", (record["reason"], record["log_tail"])
    for name, figure in figures.items():
        assert figure["low"] is not None and figure["low"] <= figure["value"] <= figure["high"], (name, figure)
    return {name: figure["value"] for name, figure in figures.items()}


def logits_of(model: Any, encoded: Any) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        values: np.ndarray[Any, Any] = model(**encoded).logits.numpy()
    return values
