"""What a plan says of a model's files is what making the checkpoint would say; neither reads more than the files."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backends.schemes import changed_scheme
from harness.plan.fit import Wanted, why_scheme_unfit, why_unfit
from tasks import DataRef, Shape
from tests.plan.test_plan import Make, find_cell, make
from tests.run.small import cache, edit, fails, glue, loads, own_cache, trained

__all__ = ["cache", "make", "own_cache", "trained"]  # fixtures


@pytest.fixture
def mine(trained: Path, tmp_path: Path) -> Path:
    """A folder with a model for SQuAD, as a user has it."""
    folder = Path(shutil.copytree(trained, tmp_path / "mine"))
    (folder / "origin.json").unlink()
    return folder


def infinite(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["qa_outputs.weight"][0, 0] = torch.inf
    save_file(tensors, folder / "model.safetensors")


def too_many_tokens(folder: Path) -> None:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    edit(folder, vocab_size=len(vocabulary["model"]["vocab"]) - 1)
    tensors = load_file(folder / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, folder / "model.safetensors")


SQUAD_FAULTS: dict[str, tuple[Any, str, str]] = {
    "infinite": (infinite, "model.safetensors: tensor 'qa_outputs.weight' holds values", "train or export"),
    "family": (
        lambda folder: edit(folder, model_type="gpt2"),
        "model_type is 'gpt2'",
        "name a model of a known family",
    ),
    "sizes": (lambda folder: edit(folder, intermediate_size=64), "but config.json asks for [64, 16]", "same model"),
    "positions": (lambda folder: edit(folder, max_position_embeddings=64), "more than its 64 positions", "to 64"),
    "tokens": (too_many_tokens, "tokens, but the model only", "use the model's own tokenizer"),
    "tokenizer": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        "there is no tokenizer.json",
        "beside the model",
    ),
    "head": (
        lambda folder: edit(folder, architectures=["BertForMultipleChoice"]),
        "a head for multiple choice",
        "fine-tune it",
    ),
}


@pytest.mark.parametrize("fault", SQUAD_FAULTS)
def test_what_plan_promises_run_keeps(mine: Path, tmp_path: Path, fault: str) -> None:
    spoil, reason, remedy = SQUAD_FAULTS[fault]
    wanted = Wanted("squad_v1", "question_answering", None, Shape(96, 32, 32))
    assert why_unfit(mine, wanted, loads=True) is None
    spoil(mine)
    unfit = why_unfit(mine, wanted, loads=True)
    assert unfit is not None
    assert reason in unfit[0] and remedy in unfit[1]
    fails(loads(mine), tmp_path, reason, remedy)


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
def test_a_tokenizer_of_sentencepiece_alone_needs_its_package(mine: Path) -> None:
    """As DeBERTa-v3's own repository has it."""
    (mine / "tokenizer.json").rename(mine / "spm.model")
    unfit = why_unfit(mine, Wanted("squad_v1", "question_answering", None, Shape(96, 32, 32)), loads=True)
    assert unfit == (
        "its tokenizer is spm.model, and the package that reads it is not installed",
        "python -m pip install sentencepiece, or save the tokenizer as tokenizer.json",
    )


def test_a_head_for_another_task_is_refused(mine: Path, make: Make, tmp_path: Path) -> None:
    """A classifier of tokens scored as STS-B had a Pearson correlation of 2.18."""
    data = DataRef("raw", str(glue(tmp_path)))
    fails(
        loads(mine, task="glue/stsb", data=data),
        tmp_path,
        "it has a head for question answering, and the task needs one for classification; fine-tune it",
    )
    shutil.move(mine, tmp_path / "models" / "mine")
    change = ("hub:owner/name", "models/mine")
    blocked = find_cell(make(change), task="glue/cola").blocked
    assert blocked is not None
    assert blocked[0].startswith("base: models/mine does not fit glue/cola: it has a head for question answering")
    squad = find_cell(make(change)).blocked
    assert squad is None or "positions" in squad[0]  # the suite's sequences are longer than this small model's


def test_the_kind_of_problem_in_the_configuration_must_be_the_tasks(mine: Path, tmp_path: Path) -> None:
    """transformers writes it when it trains: a head with one output for each of several labels is no classifier."""
    edit(mine, architectures=["BertForSequenceClassification"], problem_type="multi_label_classification")
    wanted = Wanted("glue/sst2", "classification", None, Shape(96))
    unfit = why_unfit(mine, wanted, loads=True)
    assert unfit is not None
    assert "problem_type 'multi_label_classification'" in unfit[0] and "kind 'multi_label'" in unfit[1]


def test_fine_tuning_needs_no_head_and_no_classes(mine: Path) -> None:
    edit(mine, architectures=["BertForMultipleChoice"])
    wanted = Wanted("glue/sst2", "classification", None, Shape(96))
    assert why_unfit(mine, wanted, loads=False) is None
    assert why_unfit(mine, Wanted("glue/sst2", "classification", None, Shape(9999)), loads=False) is not None


def test_an_encoder_to_be_trained_must_be_that_of_its_configuration(mine: Path) -> None:
    wanted = Wanted("glue/cola", "classification", None, Shape(96))
    assert why_unfit(mine, wanted, loads=False) is None
    edit(mine, intermediate_size=64)
    unfit = why_unfit(mine, wanted, loads=False)
    assert unfit is not None
    assert "but config.json asks for [64, 16]" in unfit[0]
    edit(mine, intermediate_size=32, hidden_act="selu")
    unfit = why_unfit(mine, wanted, loads=False)
    assert unfit is not None
    assert "hidden_act is 'selu'" in unfit[0]


def test_a_scheme_keeps_layers_that_the_model_has(mine: Path) -> None:
    kept = changed_scheme("engine_int8", {"keep_float": ["encoder.layer.0.*", "qa_outputs"]})
    assert why_scheme_unfit(mine, kept, "question_answering") is None
    unfit = why_scheme_unfit(mine, kept, "classification")
    assert unfit is not None
    assert unfit[0] == "keep_float: no linear layer is called 'qa_outputs'"
    assert unfit[1].startswith("there are encoder.layer.0.attention.self.query, ")
