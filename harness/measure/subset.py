"""Which examples `--limit N` evaluates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

SEED = 20_261_121


def evaluated(examples: Sequence[Any], limit: int | None) -> Sequence[Any]:
    """All of a split, or the same seeded part of `limit` examples every time, in file order."""
    if limit is None or limit >= len(examples):
        return examples
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(examples))[:limit])
    return [examples[index] for index in chosen]
