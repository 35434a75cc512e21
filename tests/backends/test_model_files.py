"""Weight files as people have them, against transformers and safetensors."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForQuestionAnswering

from backends import BackendError
from backends.checkpoint import Weights, check_finite, read_architecture, read_family
from backends.model_files import weight_files
from tests.backends.checkpoints import make_checkpoint


def save_as(folder: Path, target: Path, **options: Any) -> Path:
    """The model of a folder, saved by transformers with other options."""
    kind = options.pop("dtype", torch.float32)
    model: Any = AutoModelForQuestionAnswering.from_pretrained(folder)
    model.to(kind).save_pretrained(target, **options)
    return target


def values(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    weights = Weights(folder, read_architecture(folder))
    return {name: weights[name] for name in weights}


def test_several_files_hold_the_same_tensors_as_one(tmp_path: Path) -> None:
    whole = values(make_checkpoint(tmp_path / "whole"))
    sharded = save_as(tmp_path / "whole", tmp_path / "sharded", max_shard_size="50KB")
    assert len(weight_files(sharded)) > 2
    assert whole.keys() == values(sharded).keys()
    assert all(np.array_equal(whole[name], value) for name, value in values(sharded).items())
    weight_files(sharded)[0].unlink()
    with pytest.raises(BackendError, match=r"model-00001-of-\d+.safetensors is missing; copy all files"):
        weight_files(sharded)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_read_as_float32(tmp_path: Path, kind: torch.dtype) -> None:
    saved = save_as(make_checkpoint(tmp_path / "whole"), tmp_path / "other", dtype=kind)
    expected = {name: value.float().numpy() for name, value in load_file(saved / "model.safetensors").items()}
    assert next(iter(load_file(saved / "model.safetensors").values())).dtype == kind
    for name, value in values(saved).items():
        stored = name if name.startswith("qa_outputs") else f"bert.{name}"
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, expected[stored])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_value_that_is_not_finite_is_found_in_any_file(tmp_path: Path, kind: torch.dtype) -> None:
    saved = save_as(make_checkpoint(tmp_path / "whole"), tmp_path / "other", dtype=kind, max_shard_size="50KB")
    check_finite(saved)
    last = weight_files(saved)[-1]
    tensors = load_file(last)
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[3] = float("-inf")
    save_file(tensors, last, {"format": "pt"})
    with pytest.raises(BackendError, match=rf"{last.name}: tensor '{name}' holds values that are not finite"):
        check_finite(saved)


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    file = make_checkpoint(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(BackendError, match=r"model.safetensors: cannot be read .*; save or copy the model again"):
        check_finite(tmp_path)


def test_a_head_for_another_kind_of_task_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMultipleChoice

    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertForMultipleChoice(BertConfig(vocab_size=50, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(BackendError, match=r"a head for multiple choice \(BertForMultipleChoice\)"):
        read_architecture(tmp_path)


HOSTILE = [2**31, 10**30, -1, float("inf"), float("nan"), [], {}, "x", True, 1.5, [[1]], {"a": {}}, "a" * 100_000]
KEYS = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "hidden_act",
    "model_type",
    "architectures",
    "num_labels",
    "position_embedding_type",
)


@pytest.mark.parametrize("key", KEYS)
def test_hostile_configurations_are_a_line(tmp_path: Path, key: str) -> None:
    """Nothing is made of a size before it is known to be one that models have: 2^31 layers once took 2.8 GiB."""
    folder = make_checkpoint(tmp_path / "model")
    file = folder / "config.json"
    good = json.loads(file.read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for value in HOSTILE:
        file.write_text(json.dumps(good | {key: value}))
        try:
            read_family(folder)
            read_architecture(folder)
        except BackendError as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    file.write_text(json.dumps(good | {key: 2**31}))
    if isinstance(good.get(key), int):
        with pytest.raises(BackendError, match=rf"{key} is 2147483648; the largest that is read is"):
            read_architecture(folder)
