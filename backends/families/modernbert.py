"""ModernBERT (Warner et al. 2024, arXiv 2412.13663). States are (batch, length, hidden size).

- Positions: none are added to the embeddings. Queries and keys, (batch, heads, length, width of a head), are rotated (RoPE). Every
  third layer attends to all tokens; the others see a window to both sides, and have wavelengths of their own.
- A layer: LayerNorm before attention (the first layer has none, as the embeddings end with one) and before the feed-forward part,
  whose first linear layer gives (batch, length, 2 x intermediate size): values for GELU, and what multiplies them (GeGLU). Query, key
  and value come from one linear layer. A last LayerNorm follows the last layer. Nearly nothing has a bias.
- Every head is a linear layer with GELU and a LayerNorm, then the classifier: of the first token's state or of the mean, (batch,
  hidden size), or of every token's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.architecture import Bias, Rotary
from backends.base import BackendError
from backends.families.base import Family

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_THETAS = {_GLOBAL: ("global_rope_theta", 160_000.0), _LOCAL: ("local_rope_theta", 10_000.0)}
"""Of each kind of layer, its key in older configurations, and the default."""
_BIASES: Mapping[Bias, tuple[str, bool]] = {
    "attention": ("attention_bias", False),
    "feed_forward": ("mlp_bias", False),
    "norm": ("norm_bias", False),
    "pooler": ("classifier_bias", False),
}


def _details(config: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """As `Family.details` says."""
    if config.get("rope_scaling") is not None:
        raise BackendError("rope_scaling is set; only ModernBERT's own positions are supported")
    width = sizes["hidden"] // sizes["heads"]
    if (config.get("head_dim") or width) != width or width % 2:
        raise BackendError(
            f"attention heads are {config.get('head_dim') or width} wide; their width must be hidden_size / num_attention_heads, and even"
        )
    kinds = _kinds(config, sizes["layers"])
    thetas = {kind: _theta(config, kind) for kind in set(kinds)}
    window = config.get("local_attention", 128)
    if type(window) is not int or window < 1:
        raise BackendError(f"local_attention is {window!r:.80}; it must be a positive integer")
    pooling = config.get("classifier_pooling", "cls")
    if pooling not in ("cls", "mean"):
        raise BackendError(f"classifier_pooling is {pooling!r:.80}; it must be 'cls' or 'mean'")
    return {
        "layout": "modernbert",
        "without_bias": frozenset(part for part, (key, default) in _BIASES.items() if not config.get(key, default)),
        "position_table": False,
        "rotary": Rotary(
            thetas=tuple(thetas[kind] for kind in kinds),
            windows=tuple(window // 2 if kind == _LOCAL else None for kind in kinds),
        ),
        "head_pooling": pooling,
    }


def _kinds(config: Mapping[str, Any], layers: int) -> list[str]:
    """The kind of attention of each layer. Older configurations say which ones are global by a number."""
    every = config.get("global_attn_every_n_layers", 3)
    if type(every) is not int or every < 1:
        raise BackendError(f"global_attn_every_n_layers is {every!r:.80}; it must be a positive integer")
    kinds = config.get("layer_types")
    if kinds is None:
        return [_LOCAL if layer % every else _GLOBAL for layer in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in (_GLOBAL, _LOCAL) for kind in kinds):
        raise BackendError(
            f"layer_types is {kinds!r:.80}; it must name {_GLOBAL} or {_LOCAL} for each of the {layers} layers"
        )
    return kinds


def _theta(config: Mapping[str, Any], kind: str) -> float:
    key, default = _THETAS[kind]
    given = config.get("rope_parameters") or {}
    own = given.get(kind) or {} if isinstance(given, Mapping) else None
    if not isinstance(own, Mapping) or own.get("rope_type", "default") != "default" or set(given) - set(_THETAS):
        raise BackendError(
            f"rope_parameters is {given!r:.120}; it must have rope_type 'default' for {_GLOBAL} and {_LOCAL}"
        )
    theta = own.get("rope_theta", config.get(key, default))
    if type(theta) not in (int, float) or not 1 < theta < 1e12:
        raise BackendError(f"{key} is {theta!r:.80}; it must be a number above 1")
    return float(theta)


_LAYER, _OWN = "encoder.layer.*", "model.layers.*"
MODERNBERT = Family(
    model_type="modernbert",
    classes={
        "question_answering": "ModernBertForQuestionAnswering",
        "classification": "ModernBertForSequenceClassification",
        "masked_lm": "ModernBertForMaskedLM",
        "encoder": "ModernBertModel",
    },
    modules={
        "embeddings": "model.embeddings",
        "embeddings.word_embeddings": "model.embeddings.tok_embeddings",
        "embeddings.LayerNorm": "model.embeddings.norm",
        "encoder.layer": "model.layers",
        f"{_LAYER}.attention.LayerNorm": f"{_OWN}.attn_norm",
        f"{_LAYER}.attention.self": f"{_OWN}.attn",
        f"{_LAYER}.attention.self.qkv": f"{_OWN}.attn.Wqkv",
        f"{_LAYER}.attention.output.dense": f"{_OWN}.attn.Wo",
        f"{_LAYER}.intermediate.LayerNorm": f"{_OWN}.mlp_norm",
        f"{_LAYER}.intermediate.dense": f"{_OWN}.mlp.Wi",
        f"{_LAYER}.intermediate": f"{_OWN}.mlp.act",
        f"{_LAYER}.output.dropout": f"{_OWN}.mlp.drop",
        f"{_LAYER}.output.dense": f"{_OWN}.mlp.Wo",
        "encoder.LayerNorm": "model.final_norm",
        "pooler": "head.act",
        "pooler.dense": "head.dense",
        "pooler.LayerNorm": "head.norm",
        "qa_outputs": "classifier",
        "classifier": "classifier",
    },
    keys={"hidden_act": "hidden_activation", "layer_norm_eps": "norm_eps", "pooler_act": "classifier_activation"},
    defaults={
        "num_hidden_layers": 22,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 1152,
        "vocab_size": 50368,
        "max_position_embeddings": 8192,
        "type_vocab_size": 0,
        "hidden_act": "gelu",
        "pooler_act": "gelu",
        "layer_norm_eps": 1e-5,
    },
    pooler="gelu",
    pooler_of_every_head=True,
    details=_details,
    inherited=("local_attention", "rope_parameters", "classifier_pooling", *(key for key, _ in _BIASES.values())),
    layers_alike=False,
    masked_lm=("head", "decoder"),
    unused=("head.", "decoder."),
    dropouts=("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"),
)
