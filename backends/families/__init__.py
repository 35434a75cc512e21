"""Model families by `model_type`. A new family is one file and one line here, or an installed package's `quantboard.families`
entry point."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from backends.base import BackendError
from backends.families.base import Family, Part
from backends.registry import Registry

__all__ = ["DEFAULT_FAMILY", "FAMILIES", "Family", "Part", "family_names", "get_family", "untyped_family"]

FAMILIES = Registry(
    "model family",
    "quantboard.families",
    {
        "bert": "backends.families.bert:BERT",
        "camembert": "backends.families.roberta:CAMEMBERT",
        "deberta-v2": "backends.families.deberta:DEBERTA_V2",
        "distilbert": "backends.families.distilbert:DISTILBERT",
        "electra": "backends.families.electra:ELECTRA",
        "modernbert": "backends.families.modernbert:MODERNBERT",
        "mpnet": "backends.families.mpnet:MPNET",
        "roberta": "backends.families.roberta:ROBERTA",
        "xlm-roberta": "backends.families.roberta:XLM_ROBERTA",
    },
)
DEFAULT_FAMILY = "bert"
"""The family of models that start from random weights, for which a suite gives sizes only."""


def family_names() -> list[str]:
    """The `model_type` of every family; imports none of them."""
    return FAMILIES.names()


def get_family(model_type: str) -> Family:
    """The family of that `model_type`. Raises BackendError for an unknown one, with the nearest known one."""
    family: Family = FAMILIES.get(model_type)
    return family


def untyped_family(config: Mapping[str, Any]) -> Family:
    """The family of a configuration without `model_type`. Raises BackendError if it is of none."""
    for name in family_names():
        with suppress(BackendError):  # an installed family that cannot be loaded is none of ours
            if get_family(name).is_untyped(config):
                return get_family(name)
    raise BackendError(f"has no model_type; add the one of its family: {', '.join(family_names())}")
