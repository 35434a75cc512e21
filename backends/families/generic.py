"""Encoders of transformers that have no family here. They run the generic way: as transformers' own code, and as the graph that
PyTorch's exporter makes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from backends.families.base import Family, Part

UNLIMITED = 1 << 20
"""Tokens of the longest sequence, where a configuration has no `max_position_embeddings`."""
NOTE = "the generic way: as transformers has it, not in a graph of ours"
"""How the engines' notes say it."""
_ENDS: Mapping[Part, str] = {
    "question_answering": "ForQuestionAnswering",
    "classification": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "masked_lm": "ForMaskedLM",
    "encoder": "Model",
}
_NO_GRAPH: Mapping[str, str] = {
    "funnel": "its pooling of a sequence fixes the sequence's length",
    "longformer": "which of its steps run depends on the attention mask",
    "reformer": "its chunks of a sequence fix the sequence's length",
}
"""Families of whose code PyTorch's exporter makes no graph, and why. Others are found out when a graph is made."""
_NEEDED: Mapping[str, tuple[str, str]] = {
    "xmod": ("default_language", 'the language of its adapters, such as "default_language": "en_XX"'),
}
"""Keys that config.json may lack, and without which a model of that family takes no texts: what to write there."""
_AFTER_PADDING = frozenset(
    {"data2vec-text", "esm", "ibert", "longformer", "luke", "roberta-prelayernorm", "xlm-roberta-xl", "xmod"}
)
"""Their positions start after the padding's id, as RoBERTa's do."""


@cache
def generic_family(model_type: str) -> Family | None:
    """The family of a `model_type` that only transformers knows. None where it knows none, and for decoders: what has no masked
    language model."""
    named = re.findall(rf'\(\s*"{re.escape(model_type)}",\s*\(?\s*"(\w+)"', _auto_classes())
    classes = {part: name for part, end in _ENDS.items() for name in named if name.endswith(end)}
    if not {"masked_lm", "encoder"} <= set(classes):
        return None
    return Family(
        model_type=model_type,
        classes=classes,
        modules={},
        defaults={"max_position_embeddings": UNLIMITED, "pad_token_id": 1},
        positions_after_padding=model_type in _AFTER_PADDING,
        generic=True,
    )


def why_refused(config: Mapping[str, Any], max_length: int) -> tuple[str, str] | None:
    """(reason, remedy) where transformers' code of a model does not answer texts of up to `max_length` tokens, or not twice alike."""
    model_type = config["model_type"]
    key, what = _NEEDED.get(model_type, ("", ""))
    if key and config.get(key) is None:
        return f"config.json has no {key}, without which the model takes no texts", f"write there {what}"
    if model_type == "big_bird" and config.get("attention_type", "block_sparse") == "block_sparse":
        full = (5 + 2 * config.get("num_random_blocks", 3)) * config.get("block_size", 64)
        if max_length > full:
            return (
                f"'big_bird' has sparse attention above {full} tokens, until it is given a shorter text: then it has full attention"
                " for good",
                f"lower shape.max_length to {full}",
            )
    return None


def why_no_graph(model_type: str) -> str:
    """Why PyTorch's exporter makes no graph of a family's code, as far as that is known before it is tried; else empty."""
    why = _NO_GRAPH.get(model_type)
    return f"PyTorch's exporter makes no graph of {model_type!r}: {why}" if why else ""


@cache
def _auto_classes() -> str:
    """transformers' table of classes by `model_type`, read as text, since importing it takes seconds. Empty without transformers."""
    spec = find_spec("transformers")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    try:
        return (folder / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8")
    except OSError:
        return ""
