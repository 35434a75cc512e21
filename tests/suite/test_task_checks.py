"""Tasks that a suite file declares: what they become, and mistakes in them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from harness.errors import SuiteError
from harness.suite.load import load_suite

SUITE = """
title = "Tickets"
tasks = ["tickets"]
baseline = "torch_fp32"
[models.mine]
source = "model"
recipe = "load"
[shape]
max_length = 64
[[backends]]
name = "torch_fp32"
[[backends]]
name = "onnxruntime_int8"
scheme = "engine_int8"
[task.tickets]
kind = "classification"
data = { train = "train.csv", validation = "dev.csv" }
text = "message"
label = "topic"
"""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_declared_task_is_known_by_its_kind(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path, SUITE))
    declaration = suite.declaration("tickets")
    assert declaration is not None
    assert declaration.data == {"train": str(tmp_path / "train.csv"), "validation": str(tmp_path / "dev.csv")}
    facts = suite.facts("tickets")
    assert facts is not None and (facts.kind, facts.metrics[0]) == ("classification", "accuracy")
    assert suite.declaration("glue/rte") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"classification"', '"pair"', "task.tickets.text_pair: kind 'pair' needs a second text"),
        ('text = "message"', 'text = "message"\ntext_pair = "other"', "a classification of two texts is kind 'pair'"),
        ("[task.tickets]", '[task."glue/rte"]', 'task."glue/rte"'),
        ('label = "topic"', 'label = "topic"\nlabels = ["one"]', "needs at least two classes"),
        ('label = "topic"', 'label = "topic"\nlabels = ["a", "a"]', "a class is named twice"),
        ('label = "topic"', 'label = "topic"\nmetrics = ["pearson"]', "is not a metric of kind 'classification'"),
        ('label = "topic"', 'label = "topic"\nmetrics = ["f1"]', "'f1' is that of the second of two classes"),
        ('"classification"', '"regression"\nlabels = ["a", "b"]', "kind 'regression' has no classes"),
        ('tasks = ["tickets"]', 'tasks = ["ticket"]', "did you mean 'tickets'?"),
        ("max_length = 64", "max_length = 64\ndoc_stride = 16", "only question answering uses it"),
        ('label = "topic"', 'lable = "topic"', "label"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SUITE
    with pytest.raises(SuiteError) as fault:
        load_suite(written(tmp_path, SUITE.replace(old, new)))
    assert any(message in problem and "\n" not in problem for problem in fault.value.problems), fault.value.problems


@pytest.mark.slow
def test_accuracy_of_a_declared_task_equals_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five own classes, a CSV with quotes, commas and line breaks: right to the last example, and INT8 rows run."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from harness.cli.main import main
    from tasks.sample import sample_tokenizer

    names = ["returns", "delivery", "payment due", "Account", "other"]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=sample_tokenizer().get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, initializer_range=0.4, id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )  # fmt: skip
    model = BertForSequenceClassification(config).train(False)
    model.save_pretrained(tmp_path / "model")
    sample_tokenizer().save(str(tmp_path / "model" / "tokenizer.json"))
    (tmp_path / "model" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}'
    )
    words = ["the museum", "was founded", 'by a "rich", merchant', "in\nspring", "and opened ."]
    texts = [" ".join(words[(row * step) % 5] for step in range(1, 2 + row % 7)) for row in range(60)]
    for file in ("train.csv", "dev.csv"):
        with (tmp_path / file).open("w", newline="") as stream:
            rows = [(text, names[row % 5]) for row, text in enumerate(texts)]
            csv.writer(stream).writerows([("message", "topic"), *rows])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        guesses = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in texts]
    expected = 100 * sum(guess == row % 5 for row, guess in enumerate(guesses)) / len(texts)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "schema.json").write_text("{}")  # so that results go here
    suite = written(tmp_path, SUITE.replace("max_length = 64", "max_length = 64\nbatch_sizes = [8]"))
    capsys.readouterr()
    assert main(["run", suite, "--until", "score", "--json"]) == 0
    records = {record["label"]: record for record in json.loads(capsys.readouterr().out)}
    accuracy = {label: record["accuracy"][0]["metrics"]["accuracy"]["value"] for label, record in records.items()}
    assert accuracy["torch_fp32"] == pytest.approx(expected)
    assert records["onnxruntime_int8"]["status"] == "ok"
    assert records["torch_fp32"]["data"]["label"] == "own data"
