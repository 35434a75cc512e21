"""The recipe random: a source's tokenizer and family, with random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification, BertPreTrainedModel

from harness.checkpoints.make import ensure
from harness.checkpoints.origin import describe_checkpoint
from harness.plan.spec import CheckpointSpec
from tasks import Shape
from tests.run.small import cache, encoder, fails, own_cache, ptq, sample_spec

__all__ = ["cache", "encoder", "own_cache"]  # fixtures

WIDER = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}


def random_spec(encoder: Path, **changes: object) -> CheckpointSpec:
    return sample_spec(recipe="random", source=str(encoder), train=None, **{"architecture": WIDER, **changes})


@pytest.mark.parametrize(
    ("task", "head", "labels"),
    [("squad_v1", BertForQuestionAnswering, 2), ("glue/stsb", BertForSequenceClassification, 1)],
)
def test_weights_are_transformers_own(
    encoder: Path, tmp_path: Path, task: str, head: type[BertPreTrainedModel], labels: int
) -> None:
    """Those of its initialisation with that seed, for the task's head and the sizes of the table."""
    spec = random_spec(encoder, task=task, seed=7)
    folder = ensure(spec, tmp_path)
    source = json.loads((encoder / "config.json").read_text())
    torch.manual_seed(7)
    expected = head(BertConfig(**{**source, **WIDER, "num_labels": labels})).state_dict()
    found = load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert (folder / "tokenizer.json").is_file()
    described = describe_checkpoint(folder)
    assert (described.recipe, described.stand_in, described.train_seconds) == ("random", False, None)
    assert described.architecture["hidden_size"] == 24


def test_a_seed_decides_the_weights(encoder: Path, tmp_path: Path) -> None:
    spec = random_spec(encoder)
    one = (ensure(spec, tmp_path / "one") / "model.safetensors").read_bytes()
    assert (ensure(spec, tmp_path / "again") / "model.safetensors").read_bytes() == one
    assert (ensure(replace(spec, seed=spec.seed + 1), tmp_path / "one") / "model.safetensors").read_bytes() != one


def test_without_a_table_the_sizes_are_the_sources(encoder: Path, tmp_path: Path) -> None:
    folder = ensure(random_spec(encoder, architecture=None), tmp_path)
    sizes = [json.loads((each / "config.json").read_text())["hidden_size"] for each in (folder, encoder)]
    assert sizes[0] == sizes[1]


def test_ranges_are_calibrated_on_them(encoder: Path, tmp_path: Path) -> None:
    folder = ensure(ptq(random_spec(encoder)), tmp_path)
    ranges = json.loads((folder / "ranges.json").read_text())
    assert ranges["scheme"]["name"] == "engine_int8"
    (parent,) = [each for each in folder.parent.iterdir() if each.is_dir() and each != folder]
    weights = [load_file(each / "model.safetensors") for each in (folder, parent)]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_too_few_positions_are_told(encoder: Path, tmp_path: Path) -> None:
    fails(random_spec(encoder, shape=Shape(4096)), tmp_path, "shape.max_length 4096 is more than")
