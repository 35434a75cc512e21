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

from backends.architecture import POSITION_LINEARS, PROJECTION, QUERY_KEY_VALUE, Architecture
from backends.base import BackendError
from backends.fake_quant.adjust import adjust
from backends.fake_quant.modules import (
    DisentangledAttention,
    Embeddings,
    FakeQuantEmbedding,
    FakeQuantLinear,
    IntegerBias,
    PreNormLayer,
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
_ATTENTION = ("scores", "scale", "mask", "softmax", "context")
"""The operators of every attention."""
ATTENTION = "quantboard_operators"
"""Name of `attention` in transformers' registry."""


def simulate(model: nn.Module, ranges: Ranges) -> nn.Module:
    """Install quantizers with exactly these ranges, for inference; returns `model`. Weights and biases are adjusted and rounded once,
    here."""
    adjust(model, ranges.adjustments)
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
                constant = getattr(module, kind, None)
                rounds = isinstance(module, (FakeQuantLinear, FakeQuantEmbedding))
                if rounds and quantizer is not None and constant is not None:
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
        if architecture.disentangled:
            _install_disentangled_attention(put, architecture)
        elif architecture.relative_buckets:
            _install_relative_attention(put, architecture)
        else:
            put.undo.append(_use_attention(model))
    install_layer = _install_layer if architecture.layout == "bert" else _install_rotary_layer
    for layer in range(architecture.layers):
        install_layer(put, scheme, f"encoder.layer.{layer}")
    for name in weight_names(architecture, scheme):
        linear = FakeQuantLinear(put.module(name), name, quantizers, shared_input=".self." in name)
        if scheme.biases == "int32" and f"{name}.weight" in quantizers and architecture.has_bias(name):
            linear.quantize_bias = IntegerBias(quantizers[f"{name}.weight"], quantizers[source(f"{name}.input")])
        put.replace(name, linear)
    if scheme.tensors == "op_outputs":
        _install_end(put, architecture)
    return put.remove_all


def _install_embeddings(put: _Installation, architecture: Architecture) -> None:
    if len(architecture.tables()) > 1 or architecture.norm_after_projection:
        children = [*architecture.tables(), "embeddings.LayerNorm", "embeddings.dropout"]
        if architecture.norm_after_projection and PROJECTION in architecture.linears():
            children.append(PROJECTION)
        plain = put.module("embeddings")
        put.replace("embeddings", Embeddings(plain, architecture, put.attributes(children), put.quantizers))
    put.after("embeddings.LayerNorm", "embeddings", "LayerNorm", "embeddings.LayerNorm.output")


def _install_relative_attention(put: _Installation, architecture: Architecture) -> None:
    for layer in range(architecture.layers):
        attention = f"encoder.layer.{layer}.attention"
        children = [*(f"{attention}.self.{part}" for part in ("query", "key", "value")), f"{attention}.output.dense"]
        plain = put.module(f"{attention}.self")
        put.replace(f"{attention}.self", RelativeAttention(plain, architecture, put.attributes(children)))


def _install_disentangled_attention(put: _Installation, architecture: Architecture) -> None:
    how = architecture.disentangled
    assert how is not None
    for layer in range(architecture.layers):
        name = f"encoder.layer.{layer}.attention.self"
        parts = ["query", "key", "value", *(["position_dropout"] if how.parts else [])]
        parts += [] if how.shared else [POSITION_LINEARS[part][1] for part in how.parts]
        attributes = put.attributes([f"{name}.{part}" for part in parts])
        plain = put.module(name)
        put.replace(name, DisentangledAttention(plain, name, architecture, attributes, put.quantizers))


def _install_end(put: _Installation, architecture: Architecture) -> None:
    """What follows the last layer. The pooler's activation is rounded after the pooler, or before the classifier in families where no
    module computes it."""
    norms = architecture.norms()
    for name in ("encoder.LayerNorm", "pooler.LayerNorm"):
        if name in norms:
            put.after(name, name, "LayerNorm", f"{name}.output")
    if architecture.head == "classification" and architecture.head_pooling == "mean":
        put.before("pooler.dense", "pooler.dense", "mean", "pooler.mean.output")
    if not architecture.pooler:
        return
    name = f"pooler.{architecture.pooler}.output"
    if put.has("pooler"):
        put.after("pooler", "pooler", architecture.pooler, name)
    else:
        put.before("classifier", "classifier", architecture.pooler, name)


def _install_layer(put: _Installation, scheme: Scheme, layer: str) -> None:
    attention = f"{layer}.attention.self"
    if scheme.tensors != "op_outputs":
        put.before(attention, attention, "input", f"{attention}.query.input")
        return
    put.hold(attention, "masked", scheme.mask)
    _install_attention(put, layer, _ATTENTION)
    for block in (f"{layer}.attention.output", f"{layer}.output"):
        put.before(f"{block}.LayerNorm", block, "residual", f"{block}.residual.output")
        put.after(f"{block}.LayerNorm", block, "LayerNorm", f"{block}.LayerNorm.output")
    put.after(f"{layer}.intermediate", f"{layer}.intermediate", "activation", f"{layer}.intermediate.activation.output")


def _install_rotary_layer(put: _Installation, scheme: Scheme, layer: str) -> None:
    """The same in the layout of ModernBERT."""
    attention = f"{layer}.attention.self"
    if scheme.tensors != "op_outputs":
        put.before(attention, attention, "input", f"{layer}.{QUERY_KEY_VALUE}.input")
        return
    put.hold(attention, "masked", scheme.mask)
    _install_attention(put, layer, ("rotated_query", "rotated_key", *_ATTENTION))
    parts = ("attention.LayerNorm", "attention.self", "intermediate.LayerNorm", "intermediate.dense", "intermediate")
    paths = {
        part: put.path(f"{layer}.{part}").removeprefix(f"{put.path(layer)}.")
        for part in (*parts, "output.dropout", "output.dense")
    }
    put.replace(layer, PreNormLayer(put.module(layer), layer, paths, put.quantizers))
    if not layer.endswith(".0"):
        put.after(f"{layer}.attention.LayerNorm", layer, "attention_norm", f"{layer}.attention.LayerNorm.output")
    put.after(f"{layer}.intermediate.LayerNorm", layer, "norm", f"{layer}.intermediate.LayerNorm.output")
    put.after(f"{layer}.intermediate", f"{layer}.intermediate", "activation", f"{layer}.intermediate.activation.output")


def _install_attention(put: _Installation, layer: str, operators: Sequence[str]) -> None:
    for operator in operators:
        quantizer = quantizer_for(put.quantizers, f"{layer}.attention.{operator}.output")
        put.hold(f"{layer}.attention.self", f"quantize_{operator}", quantizer)


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
