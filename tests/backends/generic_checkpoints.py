"""Small encoders with random weights whose family is not known here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from backends.families import Part
from backends.torch_models import auto_class
from tests.backends.checkpoints import enlarge_weights

_SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
}
_DISENTANGLED: dict[str, Any] = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_MODELS: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 32},
    "deberta": _DISENTANGLED,
    "longformer": {"attention_window": 8, "max_position_embeddings": 130},
    "nomic_bert": {},
    "roberta-prelayernorm": {"max_position_embeddings": 130, "type_vocab_size": 1},
    "roformer": {},
}


def make_generic_checkpoint(folder: Path, model_type: str, part: Part = "classification", labels: int = 3) -> Path:
    """A folder as `save_pretrained` writes it."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **_SIZES | _MODELS[model_type])
    config.num_labels = 2 if part == "question_answering" else labels
    model: Any = auto_class(part).from_config(config)
    enlarge_weights(model.train(False))
    model.save_pretrained(folder)
    return folder
