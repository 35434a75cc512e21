"""Floating-point operations by one rule: 2 x multiply-accumulates of all matrix products, attention and head included.
Embeddings, LayerNorm, softmax and GELU are not counted. Vitis-AI's table uses the same rule: 453M for BERT-tiny at 384."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FlopCount:
    """Of one sequence. total = encoder + head."""

    total: int
    encoder: int
    head: int


def encoder_flops(
    *,
    layers: int,
    hidden: int,
    intermediate: int,
    sequence_length: int,
    head_outputs: int,
    head: Literal["token", "pooled", "none"],
    embedding: int | None = None,
    gated: bool = False,
    dense_heads: bool = False,
    relative_rows: int = 0,
) -> FlopCount:
    """FLOPs of one sequence. Head `token`: a linear layer on every token (question answering, classes of tokens); `pooled`: BERT's
    pooler and a classifier on the first token; `none`: one vector, which takes no products. embedding: width of the embedding
    tables; another one than `hidden` needs a linear layer, which counts as the encoder's. gated: the first linear layer of the
    feed-forward part is twice as wide, as in ModernBERT. dense_heads: every head has a linear layer before its own, not only
    `pooled`. relative_rows: rows of tables of relative positions that each token is multiplied with in a layer, as in DeBERTa; the
    tables' own projections are the same for every text and do not count."""
    projection = hidden * embedding if embedding not in (None, hidden) else 0
    linear = 4 * hidden * hidden + (3 if gated else 2) * hidden * intermediate
    attention = (2 * sequence_length + relative_rows) * hidden  # of one token: scores and weighted sum
    encoder = 2 * sequence_length * (layers * (linear + attention) + projection)
    heads = {
        "token": 2 * sequence_length * hidden * (head_outputs + (hidden if dense_heads else 0)),
        "pooled": 2 * (hidden * hidden + hidden * head_outputs),
        "none": 0,
    }
    return FlopCount(encoder + heads[head], encoder, heads[head])


def format_flops(count: int) -> str:
    """`453M`, `70.67G`."""
    return f"{count / 1e9:.2f}G" if count >= 1e9 else f"{count / 1e6:.0f}M"
