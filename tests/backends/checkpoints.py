"""Small BERT checkpoints with random weights, written by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification

from backends.fake_quant.calibrate import calibrate
from backends.ranges import write_ranges

LENGTH = 48
BERT_TINY = {
    "vocab_size": 30_522,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "max_position_embeddings": 512,
}
MINILM = {
    "vocab_size": 30_522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}


def make_checkpoint(folder: Path, *, labels: int | None = None, **sizes: Any) -> Path:
    """A folder as `save_pretrained` writes it."""
    torch.manual_seed(0)
    config = BertConfig(
        **{
            "vocab_size": 300,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "max_position_embeddings": 128,
            **({"num_labels": labels} if labels else {}),
            **sizes,
        }
    )
    model: Any = (BertForSequenceClassification if labels else BertForQuestionAnswering)(config)
    enlarge_weights(model.train(False))
    model.save_pretrained(folder)
    return folder


def enlarge_weights(model: torch.nn.Module) -> None:
    """Enlarge random weights in place, so that layers differ and rounding changes the logits."""
    with torch.no_grad():
        for index, (name, value) in enumerate(model.named_parameters()):
            if value.ndim == 2 and "embeddings" not in name:
                value.mul_(2.0 + index % 5)
            elif value.ndim == 1:
                value.add_(0.05 * torch.randn_like(value))


def make_batch(seed: int, rows: int = 4, length: int = LENGTH) -> dict[str, np.ndarray[Any, Any]]:
    """Padded sequences of different lengths, with real tokens from 5 to 299."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, 300, (rows, length))
    lengths = rng.integers(length // 3, length + 1, rows)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    types = (np.arange(length) > length // 2).astype(np.int64) * mask
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types}


def add_ranges(folder: Path, scheme: str = "engine_int8") -> None:
    write_ranges(folder, calibrate(folder, [make_batch(seed) for seed in range(100, 104)], scheme, 1))
