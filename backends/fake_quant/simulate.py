"""The torch model of a checkpoint with its encoder's linear layers fake-quantized."""

from __future__ import annotations

from torch import nn

from backends.fake_quant.quantizers import FakeQuantLinear
from backends.ranges import Ranges


def encoder_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Path inside the encoder model (as `ranges.json` has it) -> linear layer, in order of execution."""
    return {
        name: module
        for name, module in _encoder(model).named_modules()
        if name.startswith("encoder.") and isinstance(module, nn.Linear)
    }


def simulate(model: nn.Module, ranges: Ranges) -> nn.Module:
    """Replace every encoder linear of `model` by a fake-quantized twin with exactly these ranges; returns `model`."""
    for name, linear in encoder_linears(model).items():
        parent, _, attribute = name.rpartition(".")
        twin = FakeQuantLinear(linear, ranges.tensors[f"{name}.weight"], ranges.tensors[f"{name}.input"])
        setattr(_encoder(model).get_submodule(parent), attribute, twin)
    return model


def _encoder(model: nn.Module) -> nn.Module:
    encoder: nn.Module = getattr(model, "bert", model)
    return encoder
