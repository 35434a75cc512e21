"""What only ModernBERT has: its configurations, old and new, its windows, and heads that read the mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import ModernBertConfig

from backends import BackendError
from backends.checkpoint import architecture_of, read_architecture
from backends.families import get_family
from tests.backends.checkpoints import LENGTH, add_ranges, make_batch
from tests.backends.family_checkpoints import make_family_checkpoint
from tests.backends.running import run_real_tokens, run_unfused
from tests.backends.test_families import exact

PUBLISHED: dict[str, Any] = {
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_pooling": "mean",
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "pad_token_id": 50283,
    "position_embedding_type": "absolute",
    "vocab_size": 50368,
}
"""Of answerdotai/ModernBERT-base, the keys that describe the model."""


def described(config: dict[str, Any]) -> Any:
    return architecture_of(config, get_family("modernbert"), "classification")


def test_a_published_configuration_and_the_one_that_transformers_writes_are_one_architecture() -> None:
    architecture = described(PUBLISHED)
    written: Any = ModernBertConfig(**PUBLISHED)
    assert architecture == described(written.to_dict())
    assert architecture.rotary.windows[:5] == (None, 64, 64, None, 64)
    assert architecture.rotary.thetas[:3] == (160_000.0, 10_000.0, 10_000.0)
    assert (architecture.positions, architecture.types, architecture.head_pooling) == (8192, 0, "mean")


def test_it_has_as_many_parameters_as_its_paper_says() -> None:
    encoder = architecture_of(PUBLISHED, get_family("modernbert"), "embedding", "cls")
    assert round(sum(int(np.prod(shape)) for shape in encoder.tensors().values()) / 1e6) == 149


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling is set"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "must have rope_type 'default'"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters is"),
        ({"layer_types": ["full_attention"]}, "for each of the 22 layers"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers is 0"),
        ({"local_attention": "128"}, "local_attention is '128'"),
        ({"local_rope_theta": None}, "local_rope_theta is None"),
        ({"classifier_pooling": "max"}, "classifier_pooling is 'max'"),
        ({"classifier_activation": "mish"}, "classifier_activation is 'mish'"),
        ({"num_attention_heads": 256}, "attention heads are 3 wide"),
    ],
)
def test_what_is_not_supported_is_one_line(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(BackendError, match=fault) as raised:
        described(PUBLISHED | changes)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def with_mean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that reads the mean, with biases."""
    folder = tmp_path_factory.mktemp("mean")
    biases: dict[str, Any] = dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), True)
    return make_family_checkpoint(folder, "modernbert", 3, classifier_pooling="mean", **biases)


def test_a_head_on_the_mean_and_biases_are_those_of_transformers(with_mean: Path, tmp_path: Path) -> None:
    batch = make_batch(1)
    for name in ("torch_fp32", "onnxruntime_fp32"):
        assert np.abs(run_real_tokens(name, with_mean, batch, tmp_path) - exact(with_mean, batch)).max() < 1e-4


def test_the_configuration_of_older_versions_runs_alike(with_mean: Path, tmp_path: Path) -> None:
    config = json.loads((with_mean / "config.json").read_text())
    old = {name: value for name, value in config.items() if name not in ("layer_types", "rope_parameters")}
    old |= {"global_attn_every_n_layers": 2, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    (tmp_path / "config.json").write_text(json.dumps(old))
    (tmp_path / "model.safetensors").write_bytes((with_mean / "model.safetensors").read_bytes())
    assert read_architecture(tmp_path) == read_architecture(with_mean)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["q8bert", "aimet_w8a8"])
def test_a_head_on_the_mean_in_integers(with_mean: Path, tmp_path: Path, scheme: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in with_mean.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    add_ranges(folder, scheme)
    batch = make_batch(2, rows=8)
    simulated = run_real_tokens("fake_quant_w8a8", folder, batch, tmp_path)
    moved = np.median(np.abs(simulated - run_real_tokens("torch_fp32", folder, batch, tmp_path)))
    engine = run_unfused(folder, batch, tmp_path / "model.onnx", quantize="u8")
    assert moved > 1e-4
    assert np.median(np.abs(engine - simulated)) < moved / 100


def test_dynamic_int8_stays_close(tmp_path: Path) -> None:
    folder = make_family_checkpoint(tmp_path / "model", "modernbert", 3)
    batch = make_batch(3)
    exact_logits = exact(folder, batch)
    moved = np.abs(run_real_tokens("onnxruntime_int8_dynamic", folder, batch, tmp_path) - exact_logits)
    assert 0 < moved.max() < 0.2 * np.ptp(exact_logits)
    assert LENGTH > 2 * 10, "windows hide tokens"
