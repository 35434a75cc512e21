"""Give a model of transformers SmoothQuant's factors and corrected biases, in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from backends.adjusted import AdjustedWeights, Adjustments
from backends.architecture import Architecture
from backends.torch_models import find_module, read_model_architecture


def adjust(model: nn.Module, adjustments: Adjustments) -> None:
    """Change weights and biases as `backends.adjusted` says, and let smoothed inputs be multiplied before anything else reads them."""
    if not adjustments:
        return
    architecture = read_model_architecture(model)
    stored = _Parameters(model, architecture)
    adjusted = AdjustedWeights(stored, adjustments)
    for layer in architecture.linears():
        if all(
            part is None
            for part in (
                adjustments.column_factors(layer),
                adjustments.row_factors(layer),
                adjustments.corrections.get(layer),
            )
        ):
            continue
        for name in (name for name in (f"{layer}.weight", f"{layer}.bias") if name in stored):
            with torch.no_grad():
                stored.parameter(name).copy_(torch.from_numpy(adjusted[name]))
    for name, multiplier in adjustments.multipliers(architecture).items():
        reader: Any = find_module(model, reader_name(name))
        reader.smoothing = Smoothing(multiplier).to(next(model.parameters()).device)
        carry_smoothing(reader, reader)


def reader_name(tensor: str) -> str:
    """The module that reads an input as its first argument: self-attention for query's input, otherwise the linear layer."""
    return tensor.removesuffix(".input").removesuffix(".query").removesuffix(".qkv")


def carry_smoothing(plain: nn.Module, stand_in: nn.Module) -> None:
    """Let a module multiply its first argument as the one does whose place it takes; nothing where that does not."""
    smoothing = getattr(plain, "smoothing", None)
    if isinstance(smoothing, Smoothing):
        stand_in.smoothing = smoothing
        stand_in.register_forward_pre_hook(_on_input)


class Smoothing(nn.Module):
    """Multiplies values (..., channels) by one number a channel. multiplier: (channels,), float32."""

    multiplier: torch.Tensor

    def __init__(self, multiplier: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.register_buffer("multiplier", torch.from_numpy(multiplier), persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.multiplier


def _on_input(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (module.smoothing(arguments[0]), *arguments[1:])


class _Parameters:
    """A model's linear layers as `backends.adjusted.Tensors`."""

    def __init__(self, model: nn.Module, architecture: Architecture) -> None:
        self._found = {
            f"{layer}.{kind}": parameter
            for layer in architecture.linears()
            for kind in ("weight", "bias")
            if (parameter := getattr(find_module(model, layer), kind, None)) is not None
        }

    def parameter(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self._found[name]
        return found

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        values: np.ndarray[Any, Any] = self._found[name].detach().float().cpu().numpy()
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __contains__(self, name: str) -> bool:
        return name in self._found
