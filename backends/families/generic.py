"""Encoders of transformers that have no family here. They run the generic way: as transformers' own code, and as the graph that
PyTorch's exporter makes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

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
_AFTER_PADDING = frozenset(
    {"data2vec-text", "esm", "ibert", "longformer", "luke", "roberta-prelayernorm", "xlm-roberta-xl", "xmod"}
)
"""Their positions start after the padding's id, as RoBERTa's do."""


@cache
def generic_family(model_type: str) -> Family | None:
    """The family of a `model_type` that only transformers knows. None where it knows none, and for decoders: what has no masked
    language model."""
    named = re.findall(rf'\(\s*"{re.escape(model_type)}",\s*"(\w+)"\s*\)', _auto_classes())
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


@cache
def _auto_classes() -> str:
    """transformers' table of classes by `model_type`, read as text, since importing it takes seconds. Empty without transformers."""
    spec = find_spec("transformers")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    try:
        return (folder / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8")
    except OSError:
        return ""
