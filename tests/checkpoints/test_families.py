"""Every recipe on models of other families than BERT."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

from backends import Settings, get_backend
from backends.families import get_family
from harness.checkpoints.make import ensure
from harness.checkpoints.origin import describe_checkpoint
from harness.errors import CheckpointError
from harness.plan.sources import sizes_of
from harness.plan.spec import CORPUS, CheckpointSpec
from tasks import Shape
from tasks.sample import SAMPLE_VERSION, sample_tokenizer
from tests.backends.family_checkpoints import DISENTANGLED
from tests.checkpoints.specs import qat_spec
from tests.run.small import SIZES, cache, own_cache, ptq, sample_spec, train

__all__ = ["cache", "own_cache"]  # fixtures
CORPUS_FIELDS: dict[str, Any] = {
    "task": CORPUS, "shape": Shape(48), "identity": {"corpus": f"sample {SAMPLE_VERSION}"}
}  # fmt: skip


_BERT_SIZES = {**SIZES, "num_hidden_layers": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "electra": {**_BERT_SIZES, "embedding_size": 8},
    "deberta-v2": {**_BERT_SIZES, **DISENTANGLED},
    "modernbert": {**_BERT_SIZES, "pad_token_id": 0, "local_attention": 8, "global_attn_every_n_layers": 2},
    "mpnet": _BERT_SIZES,
    "roberta": {**_BERT_SIZES, "type_vocab_size": 1, "pad_token_id": 0},
}
"""The sizes of a model of each family, by its own keys."""


def make_source(folder: Path, family: str) -> str:
    """A pretrained masked language model of random weights, with the sample's tokenizer."""
    torch.manual_seed(0)
    auto: Any = AutoModelForMaskedLM
    config = AutoConfig.for_model(family, vocab_size=sample_tokenizer().get_vocab_size(), **CONFIGS[family])
    auto.from_config(config).save_pretrained(folder)
    sample_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizerFast"}')
    return str(folder)


def finetune_spec(source: str) -> CheckpointSpec:
    return sample_spec(task="glue/sst2", source=source, architecture=None, train=train(max_steps=2, dropout=0.2))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_source(tmp_path_factory.mktemp("distilbert"), "distilbert")


@pytest.fixture(scope="module")
def finetuned(source: str) -> CheckpointSpec:
    return finetune_spec(source)


def logits(name: str, folder: Path, cache: Path) -> Any:
    ids = np.random.default_rng(0).integers(5, 200, (2, 24))
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return get_backend(name).prepare(folder, Settings(24, 2, 1, cache), "cpu").run(batch)


@pytest.mark.parametrize("family", CONFIGS)
def test_fine_tuned_it_is_a_plain_checkpoint_that_engines_run(family: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    spec = finetune_spec(make_source(tmp_path / "source", family))
    folder = ensure(spec, cache)
    _, loading = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not [names for names in loading.values() if names]
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == family
    assert {config[name] for name in get_family(family).dropouts if name in config} == {0.2}
    wanted = {**SIZES, "num_hidden_layers": 2}
    architecture = describe_checkpoint(folder).architecture
    assert architecture.items() >= wanted.items()
    assert architecture.get("embedding_size") == (8 if family == "electra" else None)
    assert sizes_of(spec) == wanted
    engine, eager = (logits(name, folder, tmp_path) for name in ("onnxruntime_fp32", "torch_fp32"))
    assert np.abs(engine - eager).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ptq", "qat"])
@pytest.mark.parametrize("family", CONFIGS)
def test_quantized_it_runs_on_integers(family: str, tmp_path: Path, recipe: str) -> None:
    cache = tmp_path / "cache"
    spec = finetune_spec(make_source(tmp_path / "source", family))
    ensure(spec, cache)
    folder = ensure(ptq(spec) if recipe == "ptq" else qat_spec(spec, "q8bert"), cache)
    engine, simulated = (logits(name, folder, tmp_path) for name in ("onnxruntime_int8", "fake_quant_w8a8"))
    assert np.abs(engine - simulated).max() < 1e-3


@pytest.mark.slow
def test_it_learns_to_predict_masked_tokens(source: str, cache: Path) -> None:
    spec = sample_spec(recipe="masked_lm", source=source, architecture=None, train=train(max_steps=2), **CORPUS_FIELDS)
    folder = ensure(spec, cache)
    _, loading = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not [names for names in loading.values() if names]


@pytest.mark.slow
def test_it_is_distilled_in_every_stage(finetuned: CheckpointSpec, cache: Path) -> None:
    ensure(finetuned, cache)
    spec: CheckpointSpec | None = None
    for name in ("general", "intermediate", "prediction"):
        spec = sample_spec(
            model="student",
            recipe="distill",
            architecture=None if spec else {**SIZES, "hidden_size": 8},
            parent=spec,
            teacher=finetuned,
            distill={"stage": name},
            **(CORPUS_FIELDS if name == "general" else {"task": "glue/sst2"}),
        )
        folder = ensure(spec, cache)
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["dim"], config["n_layers"]) == ("distilbert", 8, 1)
    assert [stage["stage"] for stage in describe_checkpoint(folder).stages] == ["general", "intermediate", "prediction"]


@pytest.mark.slow
def test_a_student_may_keep_layers_of_it(finetuned: CheckpointSpec, cache: Path) -> None:
    ensure(finetuned, cache)
    spec = replace(
        finetuned, model="student", recipe="distill", teacher=finetuned, distill={"stage": "prediction", "layers": 1}
    )
    folder = ensure(spec, cache)
    assert json.loads((folder / "config.json").read_text())["n_layers"] == 1
    assert describe_checkpoint(folder).architecture["num_hidden_layers"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("mpnet", "mpnet computes attention in its own modules"),
        ("deberta-v2", "deberta-v2 computes attention in its own modules"),
        ("modernbert", "modernbert has layers of several kinds"),
    ],
)
def test_layers_of_some_families_cannot_be_learnt_from(tmp_path: Path, family: str, why: str) -> None:
    cache = tmp_path / "cache"
    spec = finetune_spec(make_source(tmp_path / "source", family))
    ensure(spec, cache)
    student = replace(spec, model="student", recipe="distill", teacher=spec, distill={"stage": "intermediate"})
    with pytest.raises(CheckpointError, match=rf"{why}.*use stages 'prediction'"):
        ensure(student, cache)
    folder = ensure(replace(student, distill={"stage": "prediction"}), cache)
    assert describe_checkpoint(folder).architecture["num_hidden_layers"] == 2
