"""What a quantized graph computes beside rounding: SmoothQuant's factors and corrected biases. Imports NumPy only.

A checkpoint's weights stay those of the float model. Where `ranges.json` has factors, an engine and the simulation take

- the columns of every weight that reads a smoothed input, times the input's factors;
- the input, divided by them, by one multiplication before it is rounded; but
- of the attention's output layer nothing is added: its input is a weighted mean of value's outputs, channel by channel, so that value's
  rows and bias are divided instead.

In float that changes nothing (Xiao et al. 2023, arXiv 2211.10438). Models that add a LayerNorm's output to a later sum, as all with
LayerNorm after the sum do, leave no other multiplication to hide it in. Corrections of biases are added last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from backends.architecture import Architecture
from backends.tensor_names import source

Array = np.ndarray[Any, Any]
_ATTENTION_OUTPUT = ".attention.output.dense.input"


class Tensors(Protocol):
    """Tensors by canonical name, as `backends.checkpoint.Weights`."""

    def __getitem__(self, name: str) -> Array: ...
    def __iter__(self) -> Iterator[str]: ...
    def __contains__(self, name: str) -> bool: ...


@dataclass(frozen=True, eq=False)
class Adjustments:
    """factors: of each distinct smoothed input (channels,), by its name. corrections: of a linear layer's bias (outputs,), by its
    name. Both float32, empty where the scheme asks for none."""

    factors: Mapping[str, Array] = field(default_factory=dict)
    corrections: Mapping[str, Array] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.factors or self.corrections)

    def of(self, layers: Iterable[str]) -> Adjustments:
        """Those that some linear layers need, alone. Value's range is of rows that are divided by the factors of the attention's output."""
        layers = set(layers)
        inputs = {source(f"{name}.input") for name in layers}
        inputs |= {
            name.removesuffix(".attention.self.value") + _ATTENTION_OUTPUT
            for name in layers
            if name.endswith(".attention.self.value")
        }
        return Adjustments(
            {name: values for name, values in self.factors.items() if name in inputs},
            {name: values for name, values in self.corrections.items() if name in layers},
        )

    def column_factors(self, layer: str) -> Array | None:
        """By which a linear layer's columns are multiplied."""
        return self.factors.get(source(f"{layer}.input"))

    def row_factors(self, layer: str) -> Array | None:
        """By which a linear layer's rows and bias are divided."""
        block, is_value, rest = layer.partition(".attention.self.value")
        return self.factors.get(f"{block}{_ATTENTION_OUTPUT}") if is_value and not rest else None

    def multipliers(self, architecture: Architecture) -> dict[str, Array]:
        """By which smoothed inputs are multiplied before they are rounded, by name; none where value's rows take the factors."""
        return {
            name: np.float32(1) / values for name, values in self.factors.items() if not _in_value(name, architecture)
        }


def _in_value(tensor: str, architecture: Architecture) -> bool:
    """Whether value's rows take an input's factors."""
    return tensor.endswith(_ATTENTION_OUTPUT) and architecture.layout == "bert"


class AdjustedWeights:
    """A checkpoint's tensors with the adjustments applied: float32, of the same names and shapes."""

    def __init__(self, weights: Tensors, adjustments: Adjustments) -> None:
        self._weights, self._adjustments = weights, adjustments

    def __getitem__(self, name: str) -> Array:
        layer, _, kind = name.rpartition(".")
        values, adjustments = self._weights[name], self._adjustments
        if kind == "weight" and (columns := adjustments.column_factors(layer)) is not None:
            values = values * columns
        if (rows := adjustments.row_factors(layer)) is not None:
            values = values / (rows[:, None] if kind == "weight" else rows)
        if kind == "bias" and layer in adjustments.corrections:
            values = values + adjustments.corrections[layer]
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __contains__(self, name: str) -> bool:
        return name in self._weights
