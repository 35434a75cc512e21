"""Model folders in the forms in which people have them become checkpoints with the same logits, by plain transformers."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForQuestionAnswering

from backends import Settings, get_backend
from harness.checkpoints.make import ensure
from harness.plan.fit import Wanted, notes_on, why_unfit
from tasks import Shape
from tests.backends.checkpoints import make_batch
from tests.run.small import cache, fails, loads, own_cache, trained

__all__ = ["cache", "own_cache", "trained"]  # fixtures


@pytest.fixture
def mine(trained: Path, tmp_path: Path) -> Path:
    """A user's folder with a tokenizer and a configuration, and no weights yet."""
    folder = tmp_path / "mine"
    shutil.copytree(trained, folder)
    for name in ("model.safetensors", "origin.json"):
        (folder / name).unlink()
    return folder


@pytest.fixture
def model(trained: Path) -> Any:
    return AutoModelForQuestionAnswering.from_pretrained(trained)


def logits(checkpoint: Path, backend: str, cache: Path) -> np.ndarray[Any, Any]:
    batch = {name: values[:, :40] for name, values in make_batch(3).items()}
    settings = Settings(max_length=96, max_batch=4, threads=1, cache=cache)
    session = get_backend(backend).prepare(checkpoint, settings, "cpu")
    try:
        return session.run(batch)
    finally:
        session.close()


def check(model: Any, mine: Path, tmp_path: Path, tolerance: float = 1e-5) -> None:
    checkpoint = ensure(loads(mine), tmp_path / "cache")
    batch = {name: torch.from_numpy(values[:, :40].copy()) for name, values in make_batch(3).items()}
    with torch.no_grad():
        answer = model.eval().float()(**batch)
    expected = torch.stack([answer.start_logits, answer.end_logits], -1).numpy()
    for backend in ("torch_fp32", "onnxruntime_fp32"):
        np.testing.assert_allclose(logits(checkpoint, backend, tmp_path / "cache"), expected, atol=tolerance)


def test_several_safetensors_files(model: Any, mine: Path, tmp_path: Path) -> None:
    model.save_pretrained(mine, max_shard_size="20KB")
    assert not (mine / "model.safetensors").exists()
    check(model, mine, tmp_path)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision(model: Any, mine: Path, tmp_path: Path, kind: torch.dtype) -> None:
    model.to(kind).save_pretrained(mine)
    check(model, mine, tmp_path)


@pytest.mark.parametrize("inner", [None, "state_dict"])
def test_pickled_weights(model: Any, mine: Path, tmp_path: Path, inner: str | None) -> None:
    state = model.state_dict()
    torch.save({inner: state, "epoch": 3} if inner else state, mine / "pytorch_model.bin")
    check(model, mine, tmp_path)


def test_old_names_of_layer_norm_and_the_prefix_of_parallel_training(model: Any, mine: Path, tmp_path: Path) -> None:
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in model.state_dict().items()
    }
    save_file(old, mine / "model.safetensors")
    check(model, mine, tmp_path)
    (mine / "model.safetensors").unlink()
    torch.save({f"module.{name}": value for name, value in old.items()}, mine / "pytorch_model.bin")
    check(model, mine, tmp_path)


class Hostile:
    """Runs a program when it is unpickled."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __reduce__(self) -> Any:
        return os.system, (self._program,)


def test_a_pickle_that_could_run_code_is_refused_by_name(mine: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2), "b": Hostile(f"touch {tmp_path / 'ran'}")}, mine / "pytorch_model.bin")
    fails(loads(mine), tmp_path, "pytorch_model.bin: it holds posix.system", "was not read")
    (mine / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(f"touch {tmp_path / 'ran'}"), protocol=2))
    fails(loads(mine), tmp_path, "pytorch_model.bin: it")
    assert not (tmp_path / "ran").exists()


def test_a_plan_says_of_a_pickle_what_reading_it_would(model: Any, mine: Path, tmp_path: Path) -> None:
    """And nothing of one that can be read, in today's form and in that of PyTorch before 1.6."""
    wanted = Wanted("squad_v1", "question_answering", None, Shape(64, 16, 16))
    file = mine / "pytorch_model.bin"
    for new in (True, False):
        torch.save(model.state_dict(), file, _use_new_zipfile_serialization=new)
        assert why_unfit(mine, wanted, loads=True) is None
    hostile = Hostile(f"touch {tmp_path / 'ran'}")
    torch.save({"a": torch.zeros(2), "b": hostile}, file)
    faults = [why_unfit(mine, wanted, loads=True)]
    file.write_bytes(pickle.dumps(hostile, protocol=2))
    faults.append(why_unfit(mine, wanted, loads=True))
    for fault in faults:
        assert fault is not None
        assert fault[0].startswith("pytorch_model.bin: it holds posix.system, which is no tensor")
        assert fault[1] == "ask its author for model.safetensors"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    broken = ("pytorch_model.bin: it is broken or no file of weights", "download or save it again")
    assert why_unfit(mine, wanted, loads=True) == broken
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"])
def test_a_broken_pickle_is_one_line(mine: Path, tmp_path: Path, content: bytes) -> None:
    (mine / "pytorch_model.bin").write_bytes(content)
    fails(loads(mine), tmp_path, "pytorch_model.bin: it is broken or no file of weights")


def test_a_folder_in_the_usual_form_is_used_as_it_is(trained: Path, tmp_path: Path) -> None:
    checkpoint = ensure(loads(trained), tmp_path / "cache")
    assert not (tmp_path / "cache" / "sources").exists()
    assert load_file(checkpoint / "model.safetensors").keys() == load_file(trained / "model.safetensors").keys()


def test_a_vocabulary_with_capitals_that_is_lowered_is_noted(mine: Path) -> None:
    assert notes_on(mine) == []
    (mine / "tokenizer.json").unlink()
    (mine / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "paper", "Paper", "Paris"])
    )
    (mine / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (note,) = notes_on(mine)
    assert "2 of its 8 tokens have capitals" in note and "do_lower_case" in note
    (mine / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert notes_on(mine) == []
    (mine / "tokenizer_config.json").unlink()
    (mine / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "paper"]))
    assert notes_on(mine) == []
