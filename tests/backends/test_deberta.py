"""What only DeBERTa-v2 and v3 have: their configurations, buckets of distances, and the variants of disentangled attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DebertaV2Config
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

from backends import BackendError
from backends.checkpoint import architecture_of
from backends.disentangled_graph import relative_row
from backends.families import get_family
from tests.backends.checkpoints import add_ranges, make_batch
from tests.backends.family_checkpoints import make_family_checkpoint
from tests.backends.running import run_real_tokens, run_unfused
from tests.backends.test_families import exact

PUBLISHED: dict[str, Any] = {
    "model_type": "deberta-v2",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 0,
    "vocab_size": 128100,
}
"""config.json of microsoft/deberta-v3-base."""
VARIANTS: dict[str, dict[str, Any]] = {
    "own projections": {"share_att_key": False, "norm_rel_ebd": "none", "pos_att_type": ["p2c", "c2p"]},
    "one kind of score": {"share_att_key": False, "pos_att_type": ["p2c"]},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 20, "pos_att_type": ["c2p"]},
    "embeddings of all kinds": {"position_biased_input": True, "type_vocab_size": 2, "embedding_size": 32},
    "no positions in attention": {"relative_attention": False, "pos_att_type": None, "position_biased_input": True},
}


def described(config: dict[str, Any]) -> Any:
    return architecture_of(config, get_family("deberta-v2"), "classification")


def test_a_published_configuration_and_the_one_that_transformers_writes_are_one_architecture() -> None:
    architecture = described(PUBLISHED)
    assert architecture == described(DebertaV2Config(**PUBLISHED).to_dict())
    assert architecture.disentangled.parts == ("content_to_position", "position_to_content")
    assert (architecture.disentangled.span, architecture.disentangled.farthest) == (256, 512)
    assert (architecture.position_table, architecture.types, architecture.pooler) == (False, 0, "gelu")


def test_it_has_as_many_parameters_as_its_paper_says() -> None:
    """86M in the backbone, 98M in the embeddings."""
    shapes = architecture_of(PUBLISHED, get_family("deberta-v2"), "embedding", "cls").tensors()
    words = int(np.prod(shapes["embeddings.word_embeddings.weight"]))
    backbone = sum(int(np.prod(shape)) for shape in shapes.values()) - words
    assert (round(backbone / 1e6), round(words / 1e6)) == (85, 98)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"conv_kernel_size": 3}, "conv_kernel_size is 3: a convolution beside the first layer is not supported"),
        ({"pos_att_type": ["c2p", "p2p"]}, "pos_att_type names 'p2p'"),
        ({"pos_att_type": 3}, "pos_att_type is 3"),
        ({"position_buckets": "256"}, "position_buckets is '256'"),
        ({"max_relative_positions": 1 << 40}, "max_relative_positions is"),
        ({"attention_head_size": 32}, "attention_head_size is 32"),
        ({"pooler_hidden_size": 32}, "pooler_hidden_size is 32"),
        ({"pooler_hidden_act": "mish"}, "pooler_hidden_act is 'mish'"),
    ],
)
def test_what_is_not_supported_is_one_line(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(BackendError, match=fault) as raised:
        described(PUBLISHED | changes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("buckets", "farthest"), [(256, 512), (16, 128), (32, 64), (256, 128), (-1, 20), (2, 90)])
def test_rows_of_distances_are_those_of_transformers(buckets: int, farthest: int) -> None:
    longest = 600
    states = torch.zeros(1, longest, 1)
    span = buckets if buckets > 0 else farthest
    expected = build_relative_position(states, states, buckets, farthest)[0].add(span).clamp(0, 2 * span - 1)
    config = PUBLISHED | {"position_buckets": buckets, "max_relative_positions": farthest}
    places = np.arange(longest)
    found = relative_row(places[:, None] - places, described(config).disentangled)
    assert np.array_equal(found, expected.numpy())


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = VARIANTS[request.param]
    return make_family_checkpoint(tmp_path_factory.mktemp("model"), "deberta-v2", 3, **changes)


def test_logits_of_every_variant_are_those_of_transformers(variant: Path, tmp_path: Path) -> None:
    batch = make_batch(1)
    expected = exact(variant, batch)
    assert expected.std() > 0.01
    for name in ("torch_fp32", "onnxruntime_fp32"):
        assert np.abs(run_real_tokens(name, variant, batch, tmp_path) - expected).max() < 1e-4


@pytest.mark.slow
def test_every_variant_in_integers_equals_its_simulation(variant: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in variant.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    add_ranges(folder, "aimet_w8a8")
    batch = make_batch(2, rows=8)
    simulated = run_real_tokens("fake_quant_w8a8", folder, batch, tmp_path)
    moved = np.median(np.abs(simulated - run_real_tokens("torch_fp32", folder, batch, tmp_path)))
    engine = run_unfused(folder, batch, tmp_path / "model.onnx", quantize="u8")
    assert moved > 1e-4
    assert np.median(np.abs(engine - simulated)) < moved / 100


def test_dynamic_int8_stays_close(tmp_path: Path) -> None:
    folder, batch = make_family_checkpoint(tmp_path / "model", "deberta-v2", 3), make_batch(3)
    expected = exact(folder, batch)
    moved = np.abs(run_real_tokens("onnxruntime_int8_dynamic", folder, batch, tmp_path) - expected)
    assert 0 < moved.max() < 0.2 * np.ptp(expected)
