"""Modules that stand in for a model's own and round their tensors: linear layers, embedding tables and their sum, attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from backends.architecture import POSITION_LINEARS, Architecture
from backends.fake_quant.adjust import carry_smoothing

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
        carry_smoothing(linear, self)

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
    """The sum of the embedding tables, with a quantizer after each addition, then a linear layer, where it comes before LayerNorm.

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
        self._architecture = architecture
        self.quantize_words_and_types = quantizer_for(quantizers, "embeddings.words_and_types.output")
        self.quantize_sum = quantizer_for(quantizers, "embeddings.sum.output")

    def forward(
        self, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None = None, *_: Any, **__: Any
    ) -> torch.Tensor:
        total = self._child("word_embeddings")(input_ids)
        if self._architecture.types:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            total = self.quantize_words_and_types(total + self._child("token_type_embeddings")(types))
        if self._architecture.position_table:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
            positions = positions + self._architecture.first_position
            total = self.quantize_sum(total + self._child("position_embeddings")(positions))
        if "projection" in self._attributes:
            total = self._child("projection")(total)
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


class DisentangledAttention(nn.Module):
    """Self-attention by content and by relative position (He et al., arXiv 2006.03654), with a quantizer after each operator. What the
    linear layers make of the table of positions is a constant for an engine, so that only their weights and biases are rounded there.

    plain: the family's own module, whose children keep their names. name: its canonical one. attributes: these names by canonical name.
    """

    def __init__(
        self,
        plain: nn.Module,
        name: str,
        architecture: Architecture,
        attributes: Mapping[str, str],
        quantizers: Quantizers,
    ) -> None:
        super().__init__()
        assert architecture.disentangled is not None
        for child_name, child in plain.named_children():
            setattr(self, child_name, child)
        self._attributes, self._heads, self._how = dict(attributes), architecture.heads, architecture.disentangled
        for part in self._how.parts:
            at = f"{name.removesuffix('.self')}.{part}"
            setattr(self, f"quantize_{part}", quantizer_for(quantizers, f"{at}.output"))
            setattr(self, f"quantize_{part}_sum", quantizer_for(quantizers, f"{at}.sum.output"))

    def forward(
        self,
        states: torch.Tensor,
        attention_mask: torch.Tensor,
        *_: Any,
        relative_pos: torch.Tensor | None = None,
        rel_embeddings: torch.Tensor | None = None,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """states: (batch, length, width). attention_mask: (batch, 1, length, length), 1 where query and key are tokens. relative_pos:
        (1, length, length). rel_embeddings: (rows, width)."""
        parts: Any = self
        query, key, value = (self._split(self._child(name)(states)) for name in ("query", "key", "value"))
        scores = parts.quantize_scores(torch.matmul(query, key.transpose(2, 3)))
        for part in self._how.parts:
            assert relative_pos is not None and rel_embeddings is not None
            rows = (relative_pos + self._how.span).clamp(0, 2 * self._how.span - 1)[:, None].expand_as(scores)
            linear = self._child(POSITION_LINEARS[part][0 if self._how.shared else 1])
            positions = self._split(_constant(linear, self._child("position_dropout")(rel_embeddings))[None])
            if part == "content_to_position":
                picked = torch.matmul(query, positions.transpose(2, 3)).gather(3, rows)
            else:
                picked = torch.matmul(positions, key.transpose(2, 3)).gather(2, rows)
            scores = getattr(self, f"quantize_{part}_sum")(scores + getattr(self, f"quantize_{part}")(picked))
        scores = parts.quantize_scale(scores / (query.size(-1) * self._how.summands) ** 0.5)
        keys = attention_mask.amax(-2, keepdim=True).to(scores.dtype)  # padding, too, attends to tokens
        mask = (1 - keys) * torch.finfo(scores.dtype).min
        context, probabilities = _attend(self, scores, value, mask, None, 0.0)
        return context.flatten(2), probabilities

    def _child(self, name: str) -> Any:
        return getattr(self, self._attributes[name])

    def _split(self, values: torch.Tensor) -> torch.Tensor:
        return values.view(*values.shape[:2], self._heads, -1).transpose(1, 2)


def _constant(linear: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """A linear layer with its rounded weight and bias on values that are none of the model's, whose result stays as it is."""
    if not isinstance(linear, FakeQuantLinear):
        out: torch.Tensor = linear(values)
        return out
    return nn.functional.linear(values, linear.quantize_weight(linear.weight), linear.quantize_bias(linear.bias))


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
    return _attend(module, scores, value, attention_mask, position_bias, dropout)


def _attend(
    module: nn.Module,
    scores: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_bias: torch.Tensor | None,
    dropout: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What follows the scaled scores, (batch, heads, length, length)."""
    parts: Any = module
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
    return context.unflatten(-1, (value.shape[1], -1)), probabilities


def _joined(quantizer: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Quantize (batch, heads, length, width of a head) as (batch, length, width): observers select tokens in that form."""
    batch, heads, length, width = values.shape
    rounded: torch.Tensor = quantizer(values.transpose(1, 2).reshape(batch, length, heads * width))
    return rounded.view(batch, length, heads, width).transpose(1, 2)
