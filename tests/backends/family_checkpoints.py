"""Small checkpoints with random weights, of every family but BERT and of the one in `other_families`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    BertPreTrainedModel,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from backends.families import Part
from backends.torch_models import auto_class
from tests.backends.checkpoints import enlarge_weights


class BareConfig(BertConfig):  # type: ignore[no-untyped-call]
    model_type = "bare"


class BareForSequenceClassification(BertPreTrainedModel):  # type: ignore[no-untyped-call]
    """The first token's state and one linear layer."""

    config_class = BareConfig
    base_model_prefix = "body"

    def __init__(self, config: BareConfig) -> None:
        super().__init__(config)
        self.body = BertModel(config, add_pooling_layer=False)
        self.last = nn.Linear(config.hidden_size, config.num_labels or 0)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.last(self.body(**inputs).last_hidden_state[:, 0]))


AutoConfig.register("bare", BareConfig)
AutoModelForSequenceClassification.register(BareConfig, BareForSequenceClassification)

_BERT_SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
}
DISENTANGLED: dict[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_buckets": 16,
}
"""What DeBERTa-v3's configurations say, with fewer buckets."""
_CONFIGS: dict[str, Any] = {
    "deberta-v2": lambda: DebertaV2Config(**_BERT_SIZES, **DISENTANGLED),
    "bert": lambda: BertConfig(**_BERT_SIZES),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=300, dim=64, n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=128
    ),
    "camembert": lambda: CamembertConfig(**_BERT_SIZES, type_vocab_size=1, pad_token_id=1),
    "modernbert": lambda: ModernBertConfig(
        **_BERT_SIZES, pad_token_id=0, local_attention=10, layer_types=["full_attention", "sliding_attention"]
    ),
    "mpnet": lambda: MPNetConfig(**_BERT_SIZES),
    "roberta": lambda: RobertaConfig(**_BERT_SIZES, type_vocab_size=1, pad_token_id=1),
    "xlm-roberta": lambda: XLMRobertaConfig(**_BERT_SIZES, type_vocab_size=1, pad_token_id=3),
    "electra": lambda: ElectraConfig(**_BERT_SIZES, embedding_size=32),
    "bare": lambda: BareConfig(**_BERT_SIZES),
}
_FEWER: dict[str, dict[str, Any]] = {
    "camembert": {"num_hidden_layers": 2},
    "xlm-roberta": {"num_hidden_layers": 2},
    "deberta-v2": {**DISENTANGLED, "position_buckets": 256, "num_hidden_layers": 1, "vocab_size": 1000},
    "modernbert": {"num_hidden_layers": 4, "vocab_size": 2000, "pad_token_id": 0},
}
"""Fewer layers at default sizes, enough for every kind of layer, and of RoBERTa's likes; and what published DeBERTas have beside sizes, with fewer words."""


def make_family_checkpoint(
    folder: Path,
    model_type: str,
    labels: int | None,
    part: Part | None = None,
    *,
    default_sizes: bool = False,
    **changes: Any,
) -> Path:
    """A folder as `save_pretrained` writes it. labels: None for question answering. part: another model than these two.
    default_sizes: those of transformers. changes: of the configuration."""
    torch.manual_seed(0)
    config = _CONFIGS[model_type]()
    if default_sizes:
        config = type(config)(**_FEWER.get(model_type, {}))
    for key, value in changes.items():
        setattr(config, key, value)
    config.num_labels = labels or 2
    part = part or ("classification" if labels else "question_answering")
    model: Any = auto_class(part).from_config(config)
    enlarge_weights(model.train(False))
    model.save_pretrained(folder)
    return folder
