"""DeBERTa-v2 and v3 (He et al. 2021, arXiv 2006.03654; He et al. 2023, arXiv 2111.09543). States are (batch, length, hidden size).

- Attention is disentangled: to the scores of content, (batch, heads, length, length), come those of content with relative positions
  (`c2p`) and of relative positions with content (`p2c`). These read a table of positions, (2 x span, hidden size), which all layers
  share and project with their own layers of query and key, or with those of content. Distances above half of `position_buckets` share
  rows by their logarithm.
- Embeddings mostly have no positions and no token types. They may be narrower than the encoder, and are then projected before their
  LayerNorm.
- The classifier reads the first token's state after a linear layer and an activation, (batch, hidden size).

v2's xlarge models have a convolution beside the first layer, which is not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.architecture import Disentangled, RelativePart
from backends.base import BackendError
from backends.families.base import Family

_PARTS: Mapping[str, RelativePart] = {"c2p": "content_to_position", "p2c": "position_to_content"}


def _details(config: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """As `Family.details` says."""
    if _whole(config, "conv_kernel_size", 0) > 0:
        raise BackendError(
            f"conv_kernel_size is {config['conv_kernel_size']}: a convolution beside the first layer is not supported; take a DeBERTa"
            " without it, such as v3"
        )
    for key, expected in (
        ("attention_head_size", sizes["hidden"] // sizes["heads"]),
        ("pooler_hidden_size", sizes["hidden"]),
    ):
        if config.get(key, expected) != expected:
            raise BackendError(f"{key} is {config[key]!r:.80}; only {expected} is supported with these sizes")
    given = _words(config, "pos_att_type")
    if unknown := [kind for kind in given if kind not in _PARTS]:
        raise BackendError(f"pos_att_type names {unknown[0]!r:.80}; supported: {', '.join(_PARTS)}")
    parts = tuple(part for kind, part in _PARTS.items() if kind in given)
    relative = bool(config.get("relative_attention", False))
    farthest, buckets = _whole(config, "max_relative_positions", -1), _whole(config, "position_buckets", -1)
    farthest = farthest if farthest > 0 else sizes["positions"]
    return {
        "position_table": bool(config.get("position_biased_input", True)),
        "norm_after_projection": True,
        "without_bias": frozenset(["projection"]),
        "disentangled": Disentangled(
            parts=parts if relative else (),
            summands=1 + len(parts),
            span=(buckets if buckets > 0 else farthest) if relative else 0,
            farthest=farthest if buckets > 0 else 0,
            shared=bool(config.get("share_att_key", False)),
            normed="layer_norm" in _words(config, "norm_rel_ebd"),
        ),
    }


def _words(config: Mapping[str, Any], key: str) -> list[str]:
    """A list, or text with `|` between its entries."""
    given = config.get(key) or []
    entries = given.split("|") if isinstance(given, str) else given
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise BackendError(f"{key} is {given!r:.80}; it must be a list of names, or names with | between them")
    return [entry.strip().lower() for entry in entries]


def _whole(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    if type(value) is not int or value > 1 << 16:
        raise BackendError(f"{key} is {value!r:.80}; it must be an integer of at most {1 << 16}")
    return value


_LAYER, _OWN = "encoder.layer.*.attention.self", "deberta.encoder.layer.*.attention.self"
DEBERTA_V2 = Family(
    model_type="deberta-v2",
    classes={
        "question_answering": "DebertaV2ForQuestionAnswering",
        "classification": "DebertaV2ForSequenceClassification",
        "masked_lm": "DebertaV2ForMaskedLM",
        "encoder": "DebertaV2Model",
    },
    modules={
        "embeddings": "deberta.embeddings",
        "embeddings.projection": "deberta.embeddings.embed_proj",
        "encoder": "deberta.encoder",
        "encoder.relative_embeddings": "deberta.encoder.rel_embeddings",
        "encoder.relative_embeddings.LayerNorm": "deberta.encoder.LayerNorm",
        f"{_LAYER}.query": f"{_OWN}.query_proj",
        f"{_LAYER}.key": f"{_OWN}.key_proj",
        f"{_LAYER}.value": f"{_OWN}.value_proj",
        f"{_LAYER}.position_key": f"{_OWN}.pos_key_proj",
        f"{_LAYER}.position_query": f"{_OWN}.pos_query_proj",
        f"{_LAYER}.position_dropout": f"{_OWN}.pos_dropout",
        "pooler": "pooler",
        "qa_outputs": "qa_outputs",
        "classifier": "classifier",
    },
    keys={"pooler_act": "pooler_hidden_act"},
    defaults={
        "num_hidden_layers": 24,
        "hidden_size": 1536,
        "num_attention_heads": 24,
        "intermediate_size": 6144,
        "vocab_size": 128100,
        "max_position_embeddings": 512,
        "type_vocab_size": 0,
        "hidden_act": "gelu",
        "pooler_act": "gelu",
        "layer_norm_eps": 1e-7,
    },
    pooler="gelu",
    details=_details,
    inherited=(
        "relative_attention",
        "position_buckets",
        "max_relative_positions",
        "pos_att_type",
        "share_att_key",
        "norm_rel_ebd",
        "position_biased_input",
    ),
    own_attention=True,
    masked_lm=("cls",),
    unused=("embeddings.position_", "cls.", "lm_predictions.", "mask_predictions.", "pooler."),
    dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout", "cls_dropout"),
)
