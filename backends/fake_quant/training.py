"""Quantizers whose ranges move while a model trains: learned by gradients, or following the values.

Gradients are those of three sources: Esser et al., "Learned Step Size Quantization" (LSQ, arXiv 1902.08153) for a scale; Jain et
al., "Trained Quantization Thresholds" (TQT, arXiv 1903.08066) for the logarithm of a power-of-two threshold; AIMET's trainable
minimum and maximum for an asymmetric range. All three apply the chain rule to what PyTorch's `_fake_quantize_learnable_*`
operators compute, with rounding treated as the identity:

- A value inside the grid passes its gradient on; a clamped value passes none.
- The scale gets the gradient times (rounded - value) / scale of a value inside, and times the end of the grid of a clamped one.
- The zero point gets the gradient times -scale of each clamped value.

Adam moves a parameter by about the learning rate in each step, however large its gradients are. So ranges are learned relative to
their calibrated values, in units with which they move about as far as with LSQ's and TQT's own learning rates while the weights
learn with theirs. LSQ's factor of 1 / sqrt(values x end of the grid) is left out: it was chosen for SGD, and Adam cancels it.
The optimizer of `range_parameters` needs an epsilon below all their gradients, and must not clip or decay them with the weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from backends.fake_quant.quantizers import (
    block_size,
    blocks,
    fake_quantize,
    in_blocks,
    multiply_into,
    round_into,
    round_steps,
)
from backends.ranges import TensorRange

RANGE_RATE = 50.0
"""Relative change of a range for one unit of its parameter: about 0.1% in a step at a learning rate of 2e-5."""
THRESHOLD_RATE = 250.0
"""Change of the logarithm (base 2) of a power-of-two threshold for one unit of its parameter: 0.005 in such a step."""


class LearnedFakeQuantize(torch.autograd.Function):
    """Fake quantization with gradients for values, scale and zero point. scale, zero_point: float32, one element, or shape (rows,
    1, ...) for values with that many rows. Only the values are saved for the backward pass, which rounds them again: that is
    faster than writing and reading the results."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        scale: torch.Tensor,
        zero_point: torch.Tensor,
        low: int,
        high: int,
        half_up: bool,
    ) -> torch.Tensor:
        values = values.contiguous()
        ctx.save_for_backward(values, scale, zero_point)
        ctx.grid = low, high, half_up
        return fake_quantize(values, scale, zero_point, low, high, half_up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        values, scale, zero_point = ctx.saved_tensors
        low, high, half_up = ctx.grid
        incoming = gradients[0].contiguous()
        backward = backward_in_blocks if in_blocks(values, scale) else backward_at_once
        passed, of_scale, clamped = backward(incoming, values, scale, low - zero_point, high - zero_point, half_up)
        return passed, of_scale, -clamped * scale if ctx.needs_input_grad[2] else None, None, None, None


class FollowingFakeQuantize(torch.autograd.Function):
    """Fake quantization that passes every gradient on unchanged, as Q8BERT's code does."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        scale: torch.Tensor,
        zero_point: torch.Tensor,
        low: int,
        high: int,
        half_up: bool,
    ) -> torch.Tensor:
        return fake_quantize(values, scale, zero_point, low, high, half_up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return gradients[0], None, None, None, None, None


Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Of the values, of the scale, and the sum over clamped values."""


def backward_in_blocks(
    incoming: torch.Tensor,
    values: torch.Tensor,
    scale: torch.Tensor,
    least: torch.Tensor,
    most: torch.Tensor,
    half_up: bool,
) -> Gradients:
    """The gradients, in blocks that fit into a processor's cache. least, most: ends of the grid in whole steps."""
    inverse, first, last = (float(number) for number in (scale.reciprocal(), least, most))
    passed = torch.empty_like(incoming)
    buffers = torch.empty(4, min(block_size(), incoming.numel()))
    of_scale = clamped = 0.0
    for source, gradient, target in blocks(values, incoming, passed):
        exact, steps, *parts = buffers[:, : source.numel()]
        multiply_into(source, inverse, exact)
        round_into(exact, half_up, steps)
        rounding = torch.sub(steps, exact, out=exact)
        same_type = incoming.dtype == buffers.dtype
        arrived, kept = (gradient, target) if same_type else (parts[0].copy_(gradient), parts[1])
        lowest, highest = (float(end) for end in steps.aminmax())
        if first <= lowest and highest <= last:
            target.copy_(gradient)
            of_scale += float(torch.dot(arrived, rounding))
            continue
        # Steps are whole numbers, so this passes exactly the values between the ends, without a mask.
        torch.ops.aten.hardtanh_backward(arrived, steps, first - 0.5, last + 0.5, grad_input=kept)
        of_scale += float(torch.dot(kept, rounding))
        stopped = torch.sub(arrived, kept, out=exact)
        of_scale += float(torch.dot(stopped, steps.clamp_(first, last)))
        clamped += float(stopped.sum())
        if kept is not target:
            target.copy_(kept)
    return passed, torch.full_like(scale, of_scale), torch.full_like(scale, clamped)


def backward_at_once(
    incoming: torch.Tensor,
    values: torch.Tensor,
    scale: torch.Tensor,
    least: torch.Tensor,
    most: torch.Tensor,
    half_up: bool,
) -> Gradients:
    """The gradients by operations on whole tensors."""
    steps = round_steps(values, scale, half_up=half_up)
    nearest = steps.clamp(least, most)
    inside = steps == nearest
    passed = incoming * inside
    of_scale = _sum_like(scale, incoming, nearest - values * inside * scale.reciprocal())
    return passed, of_scale, _sum_like(scale, incoming - passed)


def _sum_like(scale: torch.Tensor, values: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
    """The sum over all values with the same scale; of their products with `other`, where given. float32, of the scale's shape."""
    rows = scale.numel() if scale.numel() > 1 else 1
    values = values.reshape(rows, -1).float()
    summed = values.sum(1) if other is None else torch.linalg.vecdot(values, other.reshape(rows, -1))
    return summed.reshape(scale.shape)


class TrainedQuantizer(nn.Module, ABC):
    """A quantizer whose grid may change in each training step. `tensor_range` gives its current grid."""

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, start: TensorRange, dimensions: int) -> None:
        super().__init__()
        self._start = start
        self._shape = [-1, *[1] * (dimensions - 1)] if start.axis is not None else [1]
        quantizer = start.quantizer
        self.low, self.high, self.half_up = quantizer.low, quantizer.high, quantizer.rounding == "half_up"

    def _buffer(self, values: Any) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).reshape(self._shape)

    def tensor_range(self) -> TensorRange:
        """The current grid, as `ranges.json` holds it: exactly the numbers that the model rounds with."""
        with torch.no_grad():
            scale, zero_point = self.grid()
        numbers = scale.detach().float().cpu().reshape(-1).numpy().copy()
        zeros = zero_point.detach().cpu().reshape(-1).numpy().round().astype(np.int32)
        return replace(self._start, scale=numbers, zero_point=np.broadcast_to(zeros, numbers.shape).copy())

    @abstractmethod
    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The current scale and zero point."""


class Learned(TrainedQuantizer):
    """Learned by gradients. `amount` is the parameter, 0 at the start: one number per scale, or, for an asymmetric grid, two: of the
    lower and the upper end."""

    def __init__(self, start: TensorRange, dimensions: int = 1) -> None:
        super().__init__(start, dimensions)
        scale = self._buffer(start.scale)
        self.register_buffer("start_scale", scale)
        if start.quantizer.symmetric:
            self.amount = nn.Parameter(torch.zeros_like(scale))
        else:
            self.amount = nn.Parameter(torch.zeros(2))
            zero_point = float(start.zero_point[0])
            ends = torch.tensor([(end - zero_point) * float(scale) for end in (self.low, self.high)])
            self.register_buffer("start_ends", ends)
        self.register_buffer("zero", torch.zeros(1))

    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._start.quantizer.power_of_two:
            # Starts in the middle of the octave whose power of two calibration chose, so that small changes leave it there.
            octaves = _ceil(THRESHOLD_RATE * self.amount - 0.5)
            return self.start_scale * torch.exp2(octaves), self.zero
        if self._start.quantizer.symmetric:
            return self.start_scale * torch.exp(RANGE_RATE * self.amount), self.zero
        ends = self.start_ends + RANGE_RATE * self.amount * (self.start_ends[1] - self.start_ends[0])
        low, high = ends[:1].clamp(max=0), ends[1:].clamp(min=0)
        scale = (high - low).clamp_min(torch.finfo(torch.float32).tiny) / (self.high - self.low)
        return scale, _round(self.low - low / scale).clamp(self.low, self.high)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        scale, zero_point = self.grid()
        out: torch.Tensor = LearnedFakeQuantize.apply(  # type: ignore[no-untyped-call]
            values, scale, zero_point, self.low, self.high, self.half_up
        )
        return out

    start_scale: torch.Tensor
    start_ends: torch.Tensor
    zero: torch.Tensor


class FollowingWeight(TrainedQuantizer):
    """The grid of a weight or bias, from its current values. `whole`: the parameter; a table's look-up passes rows of it only."""

    def __init__(self, start: TensorRange, dimensions: int, whole: nn.Parameter) -> None:
        super().__init__(start, dimensions)
        self._whole = (whole,)  # a tuple: as an attribute it would be registered a second time

    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        whole = self._whole[0].detach().float()
        largest = whole.abs().amax() if len(self._shape) == 1 else whole.flatten(1).abs().amax(1)
        # A channel of zeros is exact on any grid.
        largest = torch.where(largest > 0, largest, largest.max()).clamp_min(torch.finfo(torch.float32).tiny * 128)
        scale = (largest / self.high).reshape(self._shape)
        if self._start.quantizer.power_of_two:
            scale = torch.exp2(torch.ceil(torch.log2(scale)))
        return scale, torch.zeros(1, device=scale.device)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        scale, zero_point = self.grid()
        out: torch.Tensor = FollowingFakeQuantize.apply(  # type: ignore[no-untyped-call]
            values, scale, zero_point, self.low, self.high, self.half_up
        )
        return out


class FollowingActivation(TrainedQuantizer):
    """The grid of an activation, from an exponential moving average of its extremes over training steps. With several processes
    the extremes are those of the whole batch."""

    ends: torch.Tensor

    def __init__(self, start: TensorRange) -> None:
        super().__init__(start, 1)
        scale, zero_point = float(start.scale[0]), float(start.zero_point[0])
        low = -self.high if start.quantizer.symmetric else self.low - zero_point
        self.register_buffer("ends", torch.tensor([low * scale, (self.high - zero_point) * scale]))

    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = self.ends[:1], self.ends[1:]
        quantizer, tiny = self._start.quantizer, torch.finfo(torch.float32).tiny
        if not quantizer.symmetric:
            scale = (high - low).clamp_min(tiny) / (self.high - self.low)
            return scale, torch.round(self.low - low / scale).clamp(self.low, self.high)
        scale = high.clamp_min(tiny * 128) / self.high
        if quantizer.power_of_two:
            scale = torch.exp2(torch.ceil(torch.log2(scale)))
        return scale, torch.zeros_like(scale)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.training:
            low, high = values.detach().aminmax()
            reach = torch.stack((-low, high)).float().clamp(min=0)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(reach, torch.distributed.ReduceOp.MAX)
            if self._start.quantizer.symmetric:
                reach = reach.amax().expand(2)
            extremes = torch.stack((-reach[0], reach[1]))
            self.ends.lerp_(extremes, 1 - self._start.quantizer.ema_decay)
        scale, zero_point = self.grid()
        out: torch.Tensor = FollowingFakeQuantize.apply(  # type: ignore[no-untyped-call]
            values, scale, zero_point, self.low, self.high, self.half_up
        )
        return out


def trained_quantizer(start: TensorRange, parameter: nn.Parameter | None) -> TrainedQuantizer:
    """The quantizer that trains the range of a tensor. parameter: the weight or bias; None for a computed tensor."""
    dimensions = 1 if parameter is None else parameter.ndim
    if start.quantizer.training == "learn":
        return Learned(start, dimensions)
    return FollowingActivation(start) if parameter is None else FollowingWeight(start, dimensions, parameter)


def range_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all learned ranges of a model."""
    return [value for part in model.modules() if isinstance(part, TrainedQuantizer) for value in part.parameters()]


def _through(function: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """A step function with the gradient of the identity."""
    return values + (function(values) - values).detach()


def _round(values: torch.Tensor) -> torch.Tensor:
    return _through(torch.round, values)


def _ceil(values: torch.Tensor) -> torch.Tensor:
    return _through(torch.ceil, values)
