"""Very small checkpoints on the sample, and functions that damage them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from harness.checkpoints.make import ensure
from harness.errors import CheckpointError
from harness.plan.spec import CheckpointSpec, folder_of
from harness.suite.train import TrainSettings
from tasks import DataRef, Shape
from tasks.sample import sample_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SIZES: dict[str, Any] = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}


def train(**changes: Any) -> dict[str, Any]:
    given = {"learning_rate": 1e-3, "epochs": 1, "max_steps": 3, "batch_size": 8, **changes}
    return TrainSettings.model_validate(given).model_dump()


def sample_spec(**changes: Any) -> CheckpointSpec:
    """A very small model, trained a few steps on the sample."""
    base = CheckpointSpec(
        model="tiny",
        task="squad_v1",
        recipe="finetune",
        source="scratch",
        seed=3,
        shape=Shape(96, 32, 32),
        data=DataRef("sample"),
        architecture=SIZES,
        train=train(),
    )
    return replace(base, **changes)


def ptq(parent: CheckpointSpec, **changes: Any) -> CheckpointSpec:
    base = replace(
        parent,
        recipe="ptq",
        architecture=None,
        train=None,
        scheme="engine_int8",
        calibration={"samples": 6, "batch_size": 4},
        parent=parent,
    )
    return replace(base, **changes)


def loads(source: Path | str, **changes: Any) -> CheckpointSpec:
    return sample_spec(recipe="load", source=str(source), architecture=None, train=None, **changes)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "user-cache"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(cache: Path) -> Path:
    return ensure(sample_spec(), cache)


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained model, as a user's own folder, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "mine"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained encoder without a head, with weights in half precision, as authors publish them."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=sample_tokenizer().get_vocab_size(), max_position_embeddings=128, **SIZES)
    model: Any = BertModel(config)
    model.half().save_pretrained(folder)
    sample_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizerFast"}')
    return folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def fails(spec: CheckpointSpec, folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        ensure(spec, folder / "cache")
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line
    assert not folder_of(spec, folder / "cache").exists()


def glue(folder: Path) -> Path:
    """The raw files of two GLUE tasks, with a few rows each."""
    sst = folder / "data" / "glue" / "SST-2"
    sts = folder / "data" / "glue" / "STS-B"
    for path in (sst, sts):
        path.mkdir(parents=True, exist_ok=True)
    rows = [f"a {'fine' if row % 2 else 'dull'} film number {row}\t{row % 2}" for row in range(40)]
    columns = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore"
    pairs = [f"{row}\tg\tf\ty\t0\ts\ts\tA film.\tA film {row}.\t{row % 6}.000" for row in range(40)]
    for split in ("train", "dev"):
        (sst / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
        (sts / f"{split}.tsv").write_text("\n".join([columns, *pairs]) + "\n")
    return folder / "data"
