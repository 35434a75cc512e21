"""Classes are matched by name: a model that does not name its own is an error, whatever transformers leaves out of its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

from harness.checkpoints.labels import class_columns, label_names
from harness.checkpoints.make import ensure
from harness.errors import CheckpointError
from tasks import DataRef, Task, TaskError, open_task
from tasks.sample import sample_tokenizer
from tests.checkpoints.specs import qat_spec
from tests.run.small import SIZES, edit, fails, glue, loads, sample_spec, train

SAMPLE = DataRef("sample")


@pytest.fixture
def nameless(tmp_path: Path) -> Path:
    """A classifier of two classes as transformers saves it when nobody named them."""
    folder = tmp_path / "nameless"
    config = BertConfig(vocab_size=sample_tokenizer().get_vocab_size(), max_position_embeddings=128, **SIZES)
    BertForSequenceClassification(config).save_pretrained(folder)
    assert "id2label" not in json.loads((folder / "config.json").read_text())
    sample_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizerFast"}')
    return folder


def task_of(folder: Path, name: str) -> Task:
    return open_task(name, DataRef("raw", str(glue(folder))))


def with_config(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_classes_without_names_are_refused(nameless: Path, tmp_path: Path) -> None:
    data = DataRef("raw", str(glue(tmp_path)))
    words = ("it calls its classes LABEL_0, LABEL_1,", 'labels = ["negative", "positive"] in the model\'s table')
    fails(loads(nameless, task="glue/sst2", data=data), tmp_path, *words)
    with pytest.raises(CheckpointError, match="LABEL_0, LABEL_1"):  # nor may quantizers be trained on it
        ensure(qat_spec(loads(nameless, task="glue/sst2", data=data)), tmp_path / "qat")
    named = ensure(loads(nameless, task="glue/sst2", data=data, labels=("positive", "negative")), tmp_path)
    assert class_columns(named, task_of(tmp_path, "glue/sst2")) == (1, 0)
    edit(nameless, id2label={"0": "POSITIVE", "1": "NEGATIVE"})
    assert ensure(loads(nameless, task="glue/sst2", data=data), tmp_path).is_dir()


def test_names_are_in_the_order_of_the_models_outputs(tmp_path: Path) -> None:
    task = task_of(tmp_path, "glue/sst2")
    assert label_names(with_config(tmp_path, id2label={"1": "NEGATIVE", "0": "pos"}), task) == ("pos", "NEGATIVE")
    assert class_columns(tmp_path, task) == (1, 0)
    assert label_names(with_config(tmp_path), task) == ("LABEL_0", "LABEL_1")
    assert label_names(with_config(tmp_path, num_labels=3), task) == ("LABEL_0", "LABEL_1", "LABEL_2")
    with pytest.raises(TaskError, match="calls its classes LABEL_0, LABEL_1, LABEL_2"):
        class_columns(tmp_path, task)


@pytest.mark.parametrize(
    "id2label", [None, [], {"first": "negative", "1": "positive"}, {"0": "negative", "2": "positive"}, {"0": 0, "1": 1}]
)
def test_an_id2label_without_every_number_is_one_line(nameless: Path, tmp_path: Path, id2label: Any) -> None:
    edit(nameless, id2label=id2label)
    with pytest.raises(TaskError, match="every class by its number"):
        label_names(nameless, task_of(tmp_path, "glue/sst2"))
    data = DataRef("raw", str(tmp_path / "data"))
    fails(loads(nameless, task="glue/sst2", data=data), tmp_path, "config.json: id2label is", "by its number")


def test_scores_and_answers_need_no_names(tmp_path: Path) -> None:
    with_config(tmp_path, id2label=None)
    for name, data in (("glue/stsb", DataRef("raw", str(glue(tmp_path)))), ("squad_v1", SAMPLE)):
        task = open_task(name, data)
        assert (label_names(tmp_path, task), class_columns(tmp_path, task)) == ((), ())


@pytest.mark.parametrize("task", ["glue/mnli", "glue/sst2", "glue/stsb"])
def test_random_weights_have_the_tasks_classes(tmp_path: Path, task: str) -> None:
    folder = ensure(sample_spec(recipe="load", train=None, task=task), tmp_path)
    opened = open_task(task, SAMPLE)
    names = json.loads((folder / "config.json").read_text())["id2label"]
    assert tuple(names.values()) == opened.labels
    assert label_names(folder, opened) == (opened.labels if opened.kind == "classification" else ())


def test_a_head_that_is_trained_further_starts_in_the_tasks_order(nameless: Path, tmp_path: Path) -> None:
    """With a learning rate of almost 0 the head's rows can be recognised. A head of other classes is not reordered."""
    data = DataRef("raw", str(glue(tmp_path)))
    for names, order in ((("POSITIVE", "NEGATIVE"), [1, 0]), (("NEGATIVE", "POSITIVE"), [0, 1]), (("A", "B"), [0, 1])):
        edit(nameless, id2label=dict(zip("01", names, strict=True)))
        spec = sample_spec(
            source=str(nameless),
            task="glue/sst2",
            data=data,
            architecture=None,
            train=train(max_steps=1, learning_rate=1e-12),
        )
        trained = load_file(ensure(spec, tmp_path / names[0]) / "model.safetensors")
        before = load_file(nameless / "model.safetensors")
        for name in ("classifier.weight", "classifier.bias"):
            assert torch.allclose(trained[name], before[name][order], atol=1e-6)
