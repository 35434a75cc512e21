"""Modules that stand in for a model's own and round their tensors: linear layers, embedding tables and their sum, attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from backends.architecture import Architecture

Quantizers = Mapping[str, nn.Module]
"""A module for each tensor name. A tensor without one stays as it is."""


def quantizer_for(quantizers: Quantizers, name: str) -> nn.Module:
    """The quantizer of a tensor; a module that changes nothing where there is none."""
    return quantizers[name] if name in quantizers else nn.Identity()


class FakeQuantLinear(nn.Module):
    """A linear layer whose input, weight, bias and output are rounded where a quantizer is given.

    An engine multiplies the integers, sums exactly in 32 bits, and scales the sum. This layer multiplies the values that the
    integers represent, so that results differ by float32 rounding only. shared_input: the input has been rounded already,
    because several layers read it.
    """

    def __init__(self, linear: nn.Linear, name: str, quantizers: Quantizers, *, shared_input: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.quantize_weight = quantizer_for(quantizers, f"{name}.weight")
        self.quantize_bias = quantizer_for(quantizers, f"{name}.bias")
        self.quantize_input = nn.Identity() if shared_input else quantizer_for(quantizers, f"{name}.input")
        self.quantize_output = quantizer_for(quantizers, f"{name}.output")

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.quantize_input(values)
        weight = self.quantize_weight(self.weight)
        output: torch.Tensor = self.quantize_output(nn.functional.linear(values, weight, self.quantize_bias(self.bias)))
        return output


class IntegerBias(nn.Module):
    """Rounds a bias to int32 at the scale of the products that it is added to; gradients pass unchanged. weight, inputs: the
    quantizers of the layer's weight and input."""

    def __init__(self, weight: nn.Module, inputs: nn.Module) -> None:
        super().__init__()
        self._factors = (weight, inputs)  # a tuple: a module attribute would register them a second time

    def forward(self, bias: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            weight, inputs = (_scale(quantizer).reshape(-1) for quantizer in self._factors)
            scale = weight * inputs
            rounded = (bias / scale).round_().clamp_(-(2.0**31), 2.0**31 - 128).mul_(scale)
        return bias + (rounded - bias).detach() if torch.is_grad_enabled() else rounded


def _scale(quantizer: nn.Module) -> torch.Tensor:
    grid = getattr(quantizer, "grid", None)
    scale: torch.Tensor = quantizer.get_buffer("scale") if grid is None else grid()[0]
    return scale


class FakeQuantEmbedding(nn.Module):
    """A table whose rows are rounded after look-up: the same values as from a rounded table, without rounding all of it."""

    def __init__(self, table: nn.Embedding, name: str, quantizers: Quantizers) -> None:
        super().__init__()
        self.weight, self.padding_idx = table.weight, table.padding_idx
        self.quantize_weight = quantizer_for(quantizers, f"{name}.weight")

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self.quantize_weight(nn.functional.embedding(ids, self.weight, self.padding_idx))
        return rows


class Embeddings(nn.Module):
    """The sum of the embedding tables, with a quantizer after each addition.

    plain: the family's own module, whose children keep their names. attributes: these names by canonical name, for the children
    that are called here.
    """

    def __init__(
        self, plain: nn.Module, architecture: Architecture, attributes: Mapping[str, str], quantizers: Quantizers
    ) -> None:
        super().__init__()
        for name, child in plain.named_children():
            setattr(self, name, child)
        self._attributes = dict(attributes)
        self._first_position, self._types = architecture.first_position, architecture.types
        self.quantize_words_and_types = quantizer_for(quantizers, "embeddings.words_and_types.output")
        self.quantize_sum = quantizer_for(quantizers, "embeddings.sum.output")

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


class RelativeAttention(nn.Module):
    """Self-attention with a bias by relative position, computed by `attention`, in families that compute it in the module itself.

    plain, attributes: as `Embeddings` has them.
    """

    def __init__(self, plain: nn.Module, architecture: Architecture, attributes: Mapping[str, str]) -> None:
        super().__init__()
        for name, child in plain.named_children():
            setattr(self, name, child)
        self._attributes, self._heads = dict(attributes), architecture.heads

    def forward(
        self, states: torch.Tensor, attention_mask: torch.Tensor, position_bias: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor]:
        def heads(name: str) -> torch.Tensor:
            projected: torch.Tensor = getattr(self, self._attributes[name])(states)
            return projected.view(*projected.shape[:2], self._heads, -1).transpose(1, 2)

        query, key, value = heads("query"), heads("key"), heads("value")
        context, _probabilities = attention(self, query, key, value, attention_mask, position_bias)
        return (getattr(self, self._attributes["dense"])(context.flatten(2)),)


class PreNormLayer(nn.Module):
    """A layer with LayerNorm before attention and before a feed-forward part with a gate, as ModernBERT has it (Warner et al., arXiv
    2412.13663), with a quantizer after each sum and after the gate.

    plain: the family's own layer, whose children keep their names. name: its canonical one. paths: where in the layer its modules lie,
    by the rest of their canonical name.
    """

    def __init__(self, plain: nn.Module, name: str, paths: Mapping[str, str], quantizers: Quantizers) -> None:
        super().__init__()
        for child_name, child in plain.named_children():
            setattr(self, child_name, child)
        self.attention_type = plain.attention_type
        self._paths = dict(paths)
        self.quantize_attention_residual = quantizer_for(quantizers, f"{name}.attention.output.residual.output")
        self.quantize_gated = quantizer_for(quantizers, f"{name}.intermediate.gated.output")
        self.quantize_residual = quantizer_for(quantizers, f"{name}.output.residual.output")

    def forward(self, states: torch.Tensor, **how: Any) -> torch.Tensor:
        """states: (batch, length, width). how: what the family's attention takes besides."""
        attended = self._part("attention.self")(self._part("attention.LayerNorm")(states), **how)[0]
        states = self.quantize_attention_residual(states + attended)
        wide = self._part("intermediate.dense")(self._part("intermediate.LayerNorm")(states))
        values, gate = wide.chunk(2, dim=-1)
        gated = self.quantize_gated(self._part("intermediate")(values) * gate)
        narrow = self._part("output.dense")(self._part("output.dropout")(gated))
        out: torch.Tensor = self.quantize_residual(states + narrow)
        return out

    def _part(self, name: str) -> nn.Module:
        return self.get_submodule(self._paths[name])


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_bias: torch.Tensor | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eager attention, operator by operator, each with its quantizer; for transformers' registry. query, key, value: (batch, heads,
    length, width of a head). attention_mask: 0 for tokens and a very low number for padding, which a scheme's mask replaces.
    position_bias: is added together with the mask, (1 or batch, heads, length, length). dropout: of modules that have none of their own
    for the probabilities.
    Returns the context (batch, length, heads, width of a head) and the probabilities."""
    parts: Any = module
    if hasattr(parts, "quantize_rotated_query"):
        query, key = _joined(parts.quantize_rotated_query, query), _joined(parts.quantize_rotated_key, key)
    scores = parts.quantize_scores(torch.matmul(query, key.transpose(2, 3)))
    scores = parts.quantize_scale(scores / query.size(-1) ** 0.5)
    if attention_mask is not None:
        attention_mask = attention_mask if parts.masked is None else attention_mask.clamp(min=parts.masked)
    for added in (attention_mask, position_bias):
        scores = scores if added is None else scores + added
    scores = parts.quantize_mask(scores)
    probabilities = parts.quantize_softmax(scores.softmax(-1))
    own = getattr(parts, "dropout", None)
    probabilities = nn.functional.dropout(probabilities, dropout) if own is None else own(probabilities)
    context = torch.matmul(probabilities, value).transpose(1, 2)
    context = parts.quantize_context(context.reshape(*context.shape[:2], -1))
    return context.unflatten(-1, (query.shape[1], -1)), probabilities


def _joined(quantizer: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Quantize (batch, heads, length, width of a head) as (batch, length, width): observers select tokens in that form."""
    batch, heads, length, width = values.shape
    rounded: torch.Tensor = quantizer(values.transpose(1, 2).reshape(batch, length, heads * width))
    return rounded.view(batch, length, heads, width).transpose(1, 2)
