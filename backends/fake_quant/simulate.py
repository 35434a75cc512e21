"""The torch model of a checkpoint with quantizers at the tensors that a scheme names.

The same places serve to watch tensors (calibration), to simulate integers (inference) and to train ranges: the caller chooses
what is put there. Parameters keep their names; what is added has `quantize_` in its path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from backends.architecture import Architecture
from backends.base import BackendError
from backends.fake_quant.quantizers import FakeQuantize
from backends.ranges import Ranges
from backends.schemes import Scheme
from backends.tensor_names import source, tensor_names, weight_names
from backends.torch_models import find_module, module_path, read_model_architecture

T = TypeVar("T", bound=nn.Module)
Quantizers = Mapping[str, nn.Module]
"""A module for each tensor name; a name that is absent leaves its tensor as it is."""
ATTENTION = "quantboard_operators"
"""Name of `attention` in transformers' registry."""


def names_of(model: nn.Module, scheme: Scheme) -> list[str]:
    """Every tensor of the model that the scheme gives a range."""
    return tensor_names(read_model_architecture(model), scheme)


def parameter_of(model: nn.Module, name: str) -> nn.Parameter | None:
    """The weight or bias of that name; None for a tensor that is computed."""
    path, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    parameter: nn.Parameter = getattr(module_of(model, path), kind)
    return parameter


def module_of(model: nn.Module, name: str) -> Any:
    """The module of that canonical name. Raises BackendError where the model's family has none."""
    module = find_module(model, name)
    if module is None:
        raise BackendError(
            f"{type(model).__name__} has no module for '{name}'; its family in backends/families must name one"
        )
    return module


class FakeQuantLinear(nn.Module):
    """A linear layer whose input, weight, bias and output are rounded where a quantizer is given.

    An engine multiplies the integers, sums exactly in 32 bits, and scales the sum; this multiplies the values that the
    integers stand for, so results differ by float32 rounding alone.
    """

    def __init__(self, linear: nn.Linear, name: str, quantizers: Quantizers, *, shared_input: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.quantize_weight = _at(quantizers, f"{name}.weight")
        self.quantize_bias = _at(quantizers, f"{name}.bias")
        # What several layers read is rounded before they do.
        self.quantize_input = nn.Identity() if shared_input else _at(quantizers, f"{name}.input")
        self.quantize_output = _at(quantizers, f"{name}.output")

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.quantize_input(values)
        weight = self.quantize_weight(self.weight)
        output: torch.Tensor = self.quantize_output(nn.functional.linear(values, weight, self.quantize_bias(self.bias)))
        return output


class IntegerBias(nn.Module):
    """Rounds a bias to int32 at the scale of the products that it is added to; the gradient passes."""

    def __init__(self, weight: nn.Module, inputs: nn.Module) -> None:
        super().__init__()
        self._of = (weight, inputs)  # a tuple: they belong to their layer

    def forward(self, bias: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            weight, inputs = (_scale(one).reshape(-1) for one in self._of)
            scale = weight * inputs
            rounded = (bias / scale).round_().clamp_(-(2.0**31), 2.0**31 - 128).mul_(scale)
        return bias + (rounded - bias).detach() if torch.is_grad_enabled() else rounded


def _scale(quantizer: nn.Module) -> torch.Tensor:
    grid = getattr(quantizer, "grid", None)
    scale: torch.Tensor = quantizer.get_buffer("scale") if grid is None else grid()[0]
    return scale


class FakeQuantEmbedding(nn.Module):
    """A table whose rows are rounded after look-up: the same values, without rounding a whole vocabulary."""

    def __init__(self, table: nn.Embedding, name: str, quantizers: Quantizers) -> None:
        super().__init__()
        self.weight, self.padding_idx = table.weight, table.padding_idx
        self.quantize_weight = _at(quantizers, f"{name}.weight")

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self.quantize_weight(nn.functional.embedding(ids, self.weight, self.padding_idx))
        return rows


class Embeddings(nn.Module):
    """The sum of the embedding tables, with quantizers after each addition. Keeps the names of the children of `plain`, the
    family's own module. attributes: of each child that is called here, its name in it by its canonical name."""

    def __init__(
        self, plain: nn.Module, architecture: Architecture, attributes: Mapping[str, str], quantizers: Quantizers
    ) -> None:
        super().__init__()
        for name, child in plain.named_children():
            setattr(self, name, child)
        self._attributes = dict(attributes)
        self._first_position, self._types = architecture.first_position, architecture.types
        self.quantize_words_and_types = _at(quantizers, "embeddings.words_and_types.output")
        self.quantize_sum = _at(quantizers, "embeddings.sum.output")

    def forward(
        self, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None = None, *_: Any, **__: Any
    ) -> torch.Tensor:
        total = self._child("word_embeddings")(input_ids)
        if self._types:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            total = self.quantize_words_and_types(total + self._child("token_type_embeddings")(types))
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None] + self._first_position
        total = self.quantize_sum(total + self._child("position_embeddings")(positions))
        states: torch.Tensor = self._child("dropout")(self._child("LayerNorm")(total))
        return states

    def _child(self, name: str) -> Any:
        return getattr(self, self._attributes[name])


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eager attention, operator by operator, each with its quantizer. attention_mask: 0 or a very low number, which a
    scheme's own mask replaces. query, key, value: (batch, heads, length, width of a head)."""
    parts: Any = module
    scores = parts.quantize_scores(torch.matmul(query, key.transpose(2, 3)))
    scores = parts.quantize_scale(scores / query.size(-1) ** 0.5)
    if attention_mask is not None:
        scores = scores + (attention_mask if parts.masked is None else attention_mask.clamp(min=parts.masked))
    scores = parts.quantize_mask(scores)
    shares = parts.dropout(parts.quantize_softmax(scores.softmax(-1)))
    context = torch.matmul(shares, value).transpose(1, 2)
    context = parts.quantize_context(context.reshape(*context.shape[:2], -1))
    return context.unflatten(-1, (query.shape[1], -1)), shares


def install(model: nn.Module, scheme: Scheme, quantizers: Quantizers) -> Callable[[], None]:
    """Put quantizers into a model, in place; calling what is returned takes them out again."""
    put = _Installation(model, quantizers)
    architecture = read_model_architecture(model)
    if scheme.embeddings:
        for table in architecture.tables():
            put.replace(table, FakeQuantEmbedding(put.module(table), table, quantizers))
    if scheme.tensors == "op_outputs":
        _install_embeddings(put, architecture)
        put.undo.append(_use_attention(model))
    for layer in range(architecture.layers):
        _install_layer(put, scheme, f"encoder.layer.{layer}")
    for name in weight_names(architecture, scheme):
        twin = FakeQuantLinear(put.module(name), name, quantizers, shared_input=".self." in name)
        if scheme.biases == "int32" and f"{name}.weight" in quantizers:
            twin.quantize_bias = IntegerBias(quantizers[f"{name}.weight"], quantizers[source(f"{name}.input")])
        put.replace(name, twin)
    if architecture.pooler and scheme.tensors == "op_outputs":
        _install_pooler(put, architecture.pooler)
    return put.take_out


def _install_embeddings(put: _Installation, architecture: Architecture) -> None:
    children = [*architecture.tables(), "embeddings.LayerNorm", "embeddings.dropout"]
    attributes = {name.rpartition(".")[2]: put.path(name).rpartition(".")[2] for name in children}
    put.replace("embeddings", Embeddings(put.module("embeddings"), architecture, attributes, put.quantizers))
    put.after("embeddings.LayerNorm", "embeddings", "LayerNorm", "embeddings.LayerNorm.output")


def _install_pooler(put: _Installation, activation: str) -> None:
    """After the pooler; where no module puts out its activation, before the layer that reads it."""
    name = f"pooler.{activation}.output"
    if put.has("pooler"):
        put.after("pooler", "pooler", activation, name)
    else:
        put.before("classifier", "classifier", activation, name)


def _install_layer(put: _Installation, scheme: Scheme, at: str) -> None:
    attends = f"{at}.attention.self"
    if scheme.tensors != "op_outputs":
        put.before(attends, attends, "input", f"{attends}.query.input")
        return
    put.hold(attends, "masked", scheme.mask)
    for operator in ("scores", "scale", "mask", "softmax", "context"):
        put.hold(attends, f"quantize_{operator}", _at(put.quantizers, f"{at}.attention.{operator}.output"))
    for block in (f"{at}.attention.output", f"{at}.output"):
        put.before(f"{block}.LayerNorm", block, "residual", f"{block}.residual.output")
        put.after(f"{block}.LayerNorm", block, "LayerNorm", f"{block}.LayerNorm.output")
    put.after(f"{at}.intermediate", f"{at}.intermediate", "activation", f"{at}.intermediate.activation.output")


class _Installation:
    """What was changed in a model, and how to take it back."""

    def __init__(self, model: nn.Module, quantizers: Quantizers) -> None:
        self.quantizers = quantizers
        self.undo: list[Callable[[], None]] = []
        self._model = model

    def has(self, name: str) -> bool:
        """Whether the family has a module of that canonical name."""
        return find_module(self._model, name) is not None

    def module(self, name: str) -> Any:
        return module_of(self._model, name)

    def path(self, name: str) -> str:
        """Where the module of that canonical name lies in the model."""
        path = module_path(self._model, name)
        assert path is not None, name
        return path

    def replace(self, name: str, twin: nn.Module) -> None:
        plain = self.module(name)
        parent, _, attribute = self.path(name).rpartition(".")
        owner = self._model.get_submodule(parent)
        setattr(owner, attribute, twin)
        self.undo.append(lambda: setattr(owner, attribute, plain))

    def hold(self, path: str, attribute: str, value: Any) -> None:
        """Give the module at `path` an attribute; a module is then part of it."""
        holder = self.module(path)
        setattr(holder, attribute, value)
        self.undo.append(lambda: delattr(holder, attribute))

    def after(self, path: str, holder: str, operator: str, name: str) -> None:
        """A quantizer on what the module at `path` puts out, held by the module at `holder`."""
        quantizer = _at(self.quantizers, name)
        self.hold(holder, f"quantize_{operator}", quantizer)
        self.undo.append(self.module(path).register_forward_hook(partial(_on_output, quantizer)).remove)

    def before(self, path: str, holder: str, operator: str, name: str) -> None:
        """A quantizer on the first argument of the module at `path`."""
        quantizer = _at(self.quantizers, name)
        self.hold(holder, f"quantize_{operator}", quantizer)
        self.undo.append(self.module(path).register_forward_pre_hook(partial(_on_input, quantizer)).remove)

    def take_out(self) -> None:
        while self.undo:
            self.undo.pop()()


def _at(quantizers: Quantizers, name: str) -> nn.Module:
    return quantizers[name] if name in quantizers else nn.Identity()


def _on_output(quantizer: nn.Module, _: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
    quantized: torch.Tensor = quantizer(output)
    return quantized


def _on_input(quantizer: nn.Module, _: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (quantizer(arguments[0]), *arguments[1:])


def _use_attention(model: nn.Module) -> Callable[[], None]:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, eager_mask)
    config: Any = model.config
    before = config._attn_implementation
    config._attn_implementation = ATTENTION

    def back() -> None:
        config._attn_implementation = before

    return back


def simulate(model: nn.Module, ranges: Ranges) -> nn.Module:
    """Install quantizers with exactly these ranges, for inference: constants are rounded once, here. Returns `model`."""
    where = next(model.parameters()).device
    quantizers = {}
    for name in names_of(model, ranges.scheme):
        if name == source(name):
            parameter = parameter_of(model, name)
            quantizers[name] = FakeQuantize(ranges.tensors[name], 1 if parameter is None else parameter.ndim).to(where)
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


def blank_quantizers(model: nn.Module, scheme: Scheme, make: Callable[[str], T]) -> dict[str, T]:
    """A module of the caller's for each distinct tensor that is computed, none for weights and biases."""
    names = names_of(model, scheme)
    return {name: make(name) for name in names if name == source(name) and parameter_of(model, name) is None}
