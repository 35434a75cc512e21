"""FLOPs compared with published sizes, and with PyTorch's counter where that is right."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
)

from harness.measure.flops import encoder_flops, format_flops


@pytest.mark.parametrize(("layers", "hidden", "encoder"), [(2, 128, 452.98e6), (12, 768, 70.67e9), (24, 1024, 246.4e9)])
def test_published_sizes_at_384(layers: int, hidden: int, encoder: float) -> None:
    count = encoder_flops(
        layers=layers, hidden=hidden, intermediate=4 * hidden, sequence_length=384, head_outputs=2, head="token"
    )
    assert count.encoder == pytest.approx(encoder, rel=2e-4)
    assert count.total == count.encoder + 2 * 384 * hidden * 2


def test_embedding_projection_counts_as_pytorch_counts_it() -> None:
    sizes: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_labels": 3}
    config = ElectraConfig(**sizes, num_attention_heads=4, embedding_size=32)
    config._attn_implementation = "eager"
    model = ElectraForSequenceClassification(config).train(False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(1, 40, dtype=torch.long))
    count = encoder_flops(
        layers=2, hidden=64, intermediate=128, sequence_length=40, head_outputs=3, head="pooled", embedding=32
    )
    assert count.total == counter.get_total_flops()


def test_a_gate_and_dense_heads_count_as_pytorch_counts_them() -> None:
    sizes: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_labels": 3}
    config = ModernBertConfig(**sizes, num_attention_heads=4, vocab_size=99, pad_token_id=0)
    config._attn_implementation = "eager"
    heads: dict[Literal["token", "pooled"], Any] = {
        "pooled": ModernBertForSequenceClassification(config),
        "token": ModernBertForTokenClassification(config),
    }
    for kind, model in heads.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.train(False)(torch.ones(1, 40, dtype=torch.long))
        count = encoder_flops(
            layers=2, hidden=64, intermediate=96, sequence_length=40, head_outputs=3, head=kind, gated=True, dense_heads=True
        )  # fmt: skip
        assert count.total == counter.get_total_flops()


def test_how_counts_are_written() -> None:
    assert format_flops(452_984_832) == "453M"
    assert format_flops(70_665_633_792) == "70.67G"


def pytorch_count(attention: str) -> int:
    config = BertConfig(num_hidden_layers=2, hidden_size=128, num_attention_heads=2, intermediate_size=512)
    config._attn_implementation = attention
    model = BertForQuestionAnswering(config).train(False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(1, 384, dtype=torch.long))
    return int(counter.get_total_flops())


def test_pytorchs_counter_agrees_on_eager_attention_and_misses_the_fused_one() -> None:
    count = encoder_flops(layers=2, hidden=128, intermediate=512, sequence_length=384, head_outputs=2, head="token")
    assert pytorch_count("eager") == count.total
    assert pytorch_count("sdpa") in (count.total, count.total - 2 * 2 * 2 * 384 * 384 * 128)  # without attention: 302M
