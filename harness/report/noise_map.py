"""Quantization error by layer as a picture: of each kind of tensor and each layer the ratio of signal to quantization noise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(input|weight|output)")

WORDS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention output",
    "attention.output.residual": "attention residual",
    "intermediate.dense": "feed-forward 1",
    "output.dense": "feed-forward 2",
    "output.residual": "feed-forward residual",
}

WORST = 5
"""Tensors that are named."""

BANDS = (12.0, 18.0, 24.0, 30.0)
"""Decibels, 6 a bit: below the first lies the darkest cell, above the last the palest."""


@dataclass(frozen=True)
class NoiseCell:
    """text: decibels; empty where nothing is known of the tensor. band: 0 pale to 4 dark."""

    text: str
    band: int


@dataclass(frozen=True)
class NoiseMap:
    """layers: their numbers from 1. rows: (kind of tensor, a cell a layer), the worst first. others: (tensor, decibels) outside
    of layers. worst: (decibels, tensor in words) of all."""

    layers: tuple[str, ...]
    rows: tuple[tuple[str, tuple[NoiseCell, ...]], ...]
    others: tuple[tuple[str, str], ...]
    worst: tuple[tuple[str, str], ...] = ()


def noise_map(decibels: Mapping[str, float], layers: int) -> NoiseMap:
    """decibels: by the canonical name of a tensor. layers: of the model."""
    kinds: dict[str, dict[int, float]] = {}
    others, named = [], []
    for name, value in decibels.items():
        found = LAYER.fullmatch(name)
        if found:
            kind = f"{WORDS.get(found[2], found[2])}, {found[3]}"
            kinds.setdefault(kind, {})[int(found[1])] = value
            named.append((value, int(found[1]), f"layer {int(found[1]) + 1}, {kind}"))
        else:
            others.append((value, name))
            named.append((value, -1, name))
    count = max([layers, *(layer + 1 for own in kinds.values() for layer in own)])
    ordered = sorted(kinds, key=lambda kind: (min(kinds[kind].values()), kind))
    return NoiseMap(
        layers=tuple(str(layer + 1) for layer in range(count)),
        rows=tuple((kind, tuple(_cell(kinds[kind].get(layer)) for layer in range(count))) for kind in ordered),
        others=tuple((name, f"{value:.1f}") for value, name in sorted(others)),
        worst=tuple((f"{value:.1f}", words) for value, _, words in sorted(named)[:WORST]),
    )


def _cell(decibels: float | None) -> NoiseCell:
    if decibels is None:
        return NoiseCell("", 0)
    return NoiseCell(f"{decibels:.0f}", sum(decibels < bound for bound in BANDS))
