"""Put quantizers into a model of transformers, at the tensors that a scheme quantizes.

Calibration puts observers there, inference fixed grids, and training grids that it learns. Parameters keep their names; what is
added has `quantize_` in its path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from backends.architecture import Architecture
from backends.base import BackendError
from backends.fake_quant.modules import (
    Embeddings,
    FakeQuantEmbedding,
    FakeQuantLinear,
    IntegerBias,
    Quantizers,
    RelativeAttention,
    attention,
    quantizer_for,
)
from backends.fake_quant.quantizers import FakeQuantize
from backends.ranges import Ranges
from backends.schemes import Scheme
from backends.tensor_names import source, tensor_names, weight_names
from backends.torch_models import find_module, module_path, read_model_architecture

T = TypeVar("T", bound=nn.Module)
ATTENTION = "quantboard_operators"
"""Name of `attention` in transformers' registry."""


def simulate(model: nn.Module, ranges: Ranges) -> nn.Module:
    """Install quantizers with exactly these ranges, for inference; returns `model`. Weights and biases are rounded once, here."""
    device = next(model.parameters()).device
    quantizers = {}
    for name in names_of(model, ranges.scheme):
        if name == source(name):
            parameter = parameter_of(model, name)
            quantizers[name] = FakeQuantize(ranges.tensors[name], 1 if parameter is None else parameter.ndim).to(device)
    install(model, ranges.scheme, quantizers)
    with torch.no_grad():
        for module in list(model.modules()):
            for kind in ("weight", "bias"):
                quantizer = getattr(module, f"quantize_{kind}", None)
                if isinstance(module, (FakeQuantLinear, FakeQuantEmbedding)) and quantizer is not None:
                    constant = getattr(module, kind)
                    constant.copy_(quantizer(constant))
                    setattr(module, f"quantize_{kind}", nn.Identity())
    return model


def install(model: nn.Module, scheme: Scheme, quantizers: Quantizers) -> Callable[[], None]:
    """Put quantizers into a model, in place. Returns a function that removes them again."""
    put = _Installation(model, quantizers)
    architecture = read_model_architecture(model)
    if scheme.embeddings:
        for table in architecture.tables():
            put.replace(table, FakeQuantEmbedding(put.module(table), table, quantizers))
    if scheme.tensors == "op_outputs":
        _install_embeddings(put, architecture)
        if architecture.relative_buckets:
            _install_relative_attention(put, architecture)
        else:
            put.undo.append(_use_attention(model))
    for layer in range(architecture.layers):
        _install_layer(put, scheme, f"encoder.layer.{layer}")
    for name in weight_names(architecture, scheme):
        linear = FakeQuantLinear(put.module(name), name, quantizers, shared_input=".self." in name)
        if scheme.biases == "int32" and f"{name}.weight" in quantizers:
            linear.quantize_bias = IntegerBias(quantizers[f"{name}.weight"], quantizers[source(f"{name}.input")])
        put.replace(name, linear)
    if architecture.pooler and scheme.tensors == "op_outputs":
        _install_pooler(put, architecture.pooler)
    return put.remove_all


def _install_embeddings(put: _Installation, architecture: Architecture) -> None:
    children = [*architecture.tables(), "embeddings.LayerNorm", "embeddings.dropout"]
    plain = put.module("embeddings")
    put.replace("embeddings", Embeddings(plain, architecture, put.attributes(children), put.quantizers))
    put.after("embeddings.LayerNorm", "embeddings", "LayerNorm", "embeddings.LayerNorm.output")


def _install_relative_attention(put: _Installation, architecture: Architecture) -> None:
    for layer in range(architecture.layers):
        attention = f"encoder.layer.{layer}.attention"
        children = [*(f"{attention}.self.{part}" for part in ("query", "key", "value")), f"{attention}.output.dense"]
        plain = put.module(f"{attention}.self")
        put.replace(f"{attention}.self", RelativeAttention(plain, architecture, put.attributes(children)))


def _install_pooler(put: _Installation, activation: str) -> None:
    """After the pooler, or before the classifier in families where no module computes the pooler's activation."""
    name = f"pooler.{activation}.output"
    if put.has("pooler"):
        put.after("pooler", "pooler", activation, name)
    else:
        put.before("classifier", "classifier", activation, name)


def _install_layer(put: _Installation, scheme: Scheme, layer: str) -> None:
    attention = f"{layer}.attention.self"
    if scheme.tensors != "op_outputs":
        put.before(attention, attention, "input", f"{attention}.query.input")
        return
    put.hold(attention, "masked", scheme.mask)
    for operator in ("scores", "scale", "mask", "softmax", "context"):
        put.hold(
            attention, f"quantize_{operator}", quantizer_for(put.quantizers, f"{layer}.attention.{operator}.output")
        )
    for block in (f"{layer}.attention.output", f"{layer}.output"):
        put.before(f"{block}.LayerNorm", block, "residual", f"{block}.residual.output")
        put.after(f"{block}.LayerNorm", block, "LayerNorm", f"{block}.LayerNorm.output")
    put.after(f"{layer}.intermediate", f"{layer}.intermediate", "activation", f"{layer}.intermediate.activation.output")


class _Installation:
    """The changes to a model, and how to undo them. Modules are given by canonical name."""

    def __init__(self, model: nn.Module, quantizers: Quantizers) -> None:
        self.quantizers = quantizers
        self.undo: list[Callable[[], None]] = []
        self._model = model

    def has(self, name: str) -> bool:
        """Whether the model has that module."""
        return find_module(self._model, name) is not None

    def module(self, name: str) -> Any:
        return module_of(self._model, name)

    def path(self, name: str) -> str:
        """Where the module lies in the model."""
        path = module_path(self._model, name)
        assert path is not None, name
        return path

    def attributes(self, names: Sequence[str]) -> dict[str, str]:
        """The family's attribute of each module, by the last part of its canonical name."""
        return {name.rpartition(".")[2]: self.path(name).rpartition(".")[2] for name in names}

    def replace(self, name: str, replacement: nn.Module) -> None:
        plain = self.module(name)
        parent, _, attribute = self.path(name).rpartition(".")
        owner = self._model.get_submodule(parent)
        setattr(owner, attribute, replacement)
        self.undo.append(lambda: setattr(owner, attribute, plain))

    def hold(self, name: str, attribute: str, value: Any) -> None:
        """Give a module an attribute. A value that is a module becomes its child."""
        holder = self.module(name)
        setattr(holder, attribute, value)
        self.undo.append(lambda: delattr(holder, attribute))

    def after(self, name: str, holder: str, operator: str, tensor: str) -> None:
        """Quantize the output of a module. `holder` gets the quantizer as a child; tensor: its name in `quantizers`."""
        quantizer = quantizer_for(self.quantizers, tensor)
        self.hold(holder, f"quantize_{operator}", quantizer)
        self.undo.append(self.module(name).register_forward_hook(partial(_on_output, quantizer)).remove)

    def before(self, name: str, holder: str, operator: str, tensor: str) -> None:
        """Quantize the first argument of a module, otherwise as `after`."""
        quantizer = quantizer_for(self.quantizers, tensor)
        self.hold(holder, f"quantize_{operator}", quantizer)
        self.undo.append(self.module(name).register_forward_pre_hook(partial(_on_input, quantizer)).remove)

    def remove_all(self) -> None:
        while self.undo:
            self.undo.pop()()


def _on_output(quantizer: nn.Module, _: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
    quantized: torch.Tensor = quantizer(output)
    return quantized


def _on_input(quantizer: nn.Module, _: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (quantizer(arguments[0]), *arguments[1:])


def _use_attention(model: nn.Module) -> Callable[[], None]:
    """Let a model use `attention`. Returns a function that restores its own."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, eager_mask)
    config: Any = model.config
    own = config._attn_implementation
    config._attn_implementation = ATTENTION

    def restore() -> None:
        config._attn_implementation = own

    return restore


def names_of(model: nn.Module, scheme: Scheme) -> list[str]:
    """Every tensor of the model that has a range in the scheme."""
    return tensor_names(read_model_architecture(model), scheme)


def parameter_of(model: nn.Module, name: str) -> nn.Parameter | None:
    """The weight or bias of that name; None for a tensor that is computed."""
    path, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    parameter: nn.Parameter = getattr(module_of(model, path), kind)
    return parameter


def module_of(model: nn.Module, name: str) -> Any:
    """The module of that canonical name. Raises BackendError if the model's family has none."""
    module = find_module(model, name)
    if module is None:
        raise BackendError(
            f"{type(model).__name__} has no module for '{name}'; its family in backends/families must name one"
        )
    return module


def blank_quantizers(model: nn.Module, scheme: Scheme, make: Callable[[str], T]) -> dict[str, T]:
    """A module, made by the caller, for each distinct computed tensor; none for weights and biases."""
    names = names_of(model, scheme)
    return {name: make(name) for name in names if name == source(name) and parameter_of(model, name) is None}
