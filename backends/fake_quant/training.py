"""Quantizers whose ranges move while a model trains: learned by gradients, or following the values.

Gradients: Esser et al., "Learned Step Size Quantization" (LSQ, arXiv 1902.08153) for a scale; Jain et al., "Trained
Quantization Thresholds" (TQT, arXiv 1903.08066) for the logarithm of a power-of-two threshold; AIMET's trainable minimum and
maximum for an asymmetric range. All three are the chain rule over what PyTorch's `_fake_quantize_learnable_*` operators
compute, rounding taken for the identity: a value inside the grid passes its gradient on, a clamped one hands it to the
range; the scale gets (rounded - value) / scale of a value inside and the end of the grid of a clamped one; the zero point
gets -scale of each clamped one.

Adam moves a parameter by about the learning rate a step, however large its gradients are. Ranges are therefore learned
relative to where calibration put them, in units that let them move about as far as LSQ's and TQT's own rates do while the
weights learn at theirs. LSQ's factor of 1 / sqrt(values x end of the grid) is left out: it was made for SGD, and Adam divides
it out. `range_parameters` need an epsilon below all their gradients, and no part in the weights' clipping or decay.
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
"""How far a range moves, relative to itself, for one unit of its parameter: at a learning rate of 2e-5 some 0.1% a step."""
THRESHOLD_RATE = 250.0
"""The same for the logarithm (base 2) of a power-of-two threshold: 0.5% of an octave a step."""


class LearnedFakeQuantize(torch.autograd.Function):
    """Fake quantization with gradients for values, scale and zero point (both float32, of one element, or of shape
    (rows, 1, ...) for values of that many rows). Only the values are kept for the way back, which rounds them again: that
    costs less than writing and reading what was found."""

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
        came = gradients[0].contiguous()
        backward = _backward_by_blocks if in_blocks(values, scale) else _backward_as_a_whole
        passed, of_scale, clamped = backward(came, values, scale, low - zero_point, high - zero_point, half_up)
        return passed, of_scale, -clamped * scale if ctx.needs_input_grad[2] else None, None, None, None


class FollowingFakeQuantize(torch.autograd.Function):
    """Fake quantization on a symmetric or asymmetric grid that hands every gradient on as it is (Q8BERT's way)."""

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
"""Of the values, of the scale, and the sum of those of clamped values."""


def _backward_by_blocks(
    came: torch.Tensor,
    values: torch.Tensor,
    scale: torch.Tensor,
    least: torch.Tensor,
    most: torch.Tensor,
    half_up: bool,
) -> Gradients:
    inverse, first, last = (float(one) for one in (scale.reciprocal(), least, most))
    passed = torch.empty_like(came)
    spare = torch.empty(4, min(block_size(), came.numel()))
    of_scale = clamped = 0.0
    for source, gradient, goes in blocks(values, came, passed):
        exact, steps, *parts = spare[:, : source.numel()]
        multiply_into(source, inverse, exact)
        round_into(exact, half_up, steps)
        missed = torch.sub(steps, exact, out=exact)
        arrived, kept = (gradient, goes) if came.dtype == spare.dtype else (parts[0].copy_(gradient), parts[1])
        lowest, highest = (float(end) for end in steps.aminmax())
        if first <= lowest and highest <= last:
            goes.copy_(gradient)
            of_scale += float(torch.dot(arrived, missed))
            continue
        # Steps are whole numbers: this passes what lies between the ends in one go, without a mask.
        torch.ops.aten.hardtanh_backward(arrived, steps, first - 0.5, last + 0.5, grad_input=kept)
        of_scale += float(torch.dot(kept, missed))
        stopped = torch.sub(arrived, kept, out=exact)
        of_scale += float(torch.dot(stopped, steps.clamp_(first, last)))
        clamped += float(stopped.sum())
        if kept is not goes:
            goes.copy_(kept)
    return passed, torch.full_like(scale, of_scale), torch.full_like(scale, clamped)


def _backward_as_a_whole(
    came: torch.Tensor,
    values: torch.Tensor,
    scale: torch.Tensor,
    least: torch.Tensor,
    most: torch.Tensor,
    half_up: bool,
) -> Gradients:
    steps = round_steps(values, scale, half_up=half_up)
    nearest = steps.clamp(least, most)
    inside = steps == nearest
    passed = came * inside
    of_scale = _sum_like(scale, came, nearest - values * inside * scale.reciprocal())
    return passed, of_scale, _sum_like(scale, came - passed)


def _sum_like(scale: torch.Tensor, values: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
    """The sum of values, or of their products with others', over everything that shares a scale; float32."""
    rows = scale.numel() if scale.numel() > 1 else 1
    values = values.reshape(rows, -1).float()
    summed = values.sum(1) if other is None else torch.linalg.vecdot(values, other.reshape(rows, -1))
    return summed.reshape(scale.shape)


class TrainedQuantizer(nn.Module, ABC):
    """A quantizer whose grid may move from step to step; `tensor_range` is what it stands at."""

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
        """The grid as `ranges.json` holds it, the very numbers that the last step rounded with."""
        with torch.no_grad():
            scale, zero_point = self.grid()
        numbers = scale.detach().float().cpu().reshape(-1).numpy().copy()
        zeros = zero_point.detach().cpu().reshape(-1).numpy().round().astype(np.int32)
        return replace(self._start, scale=numbers, zero_point=np.broadcast_to(zeros, numbers.shape).copy())

    @abstractmethod
    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point as they stand."""


class Learned(TrainedQuantizer):
    """Trained by gradients. `amount` is the parameter: (scales,), or (2,), lower and upper end, of an asymmetric grid."""

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
            # In the middle of the octave whose power of two calibration chose, so that it stays until something moves it.
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
    """A constant's grid from its values as they are now. `whole`: the parameter, of which a table's look-up sees rows."""

    def __init__(self, start: TensorRange, dimensions: int, whole: nn.Parameter) -> None:
        super().__init__(start, dimensions)
        self._whole = (whole,)  # a tuple: the parameter belongs to another module

    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        whole = self._whole[0].detach().float()
        largest = whole.abs().amax() if len(self._shape) == 1 else whole.flatten(1).abs().amax(1)
        # A channel of zeros alone is exact on any grid.
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
    """An activation's grid from an exponential moving average, over training steps, of its extremes: those of the whole
    batch, where several processes share it."""

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
            seen = torch.stack((-reach[0], reach[1]))
            self.ends.lerp_(seen, 1 - self._start.quantizer.ema_decay)
        scale, zero_point = self.grid()
        out: torch.Tensor = FollowingFakeQuantize.apply(  # type: ignore[no-untyped-call]
            values, scale, zero_point, self.low, self.high, self.half_up
        )
        return out


def trained_quantizer(name: str, start: TensorRange, parameter: nn.Parameter | None) -> TrainedQuantizer:
    """The quantizer that trains the range of a tensor of this name; `parameter` for a weight or bias."""
    dimensions = 1 if parameter is None else parameter.ndim
    if start.quantizer.training == "learn":
        return Learned(start, dimensions)
    return FollowingActivation(start) if parameter is None else FollowingWeight(start, dimensions, parameter)


def range_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The ranges that the model learns."""
    return [value for part in model.modules() if isinstance(part, TrainedQuantizer) for value in part.parameters()]


def _through(function: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """A step function with the gradient of the identity."""
    return values + (function(values) - values).detach()


def _round(values: torch.Tensor) -> torch.Tensor:
    return _through(torch.round, values)


def _ceil(values: torch.Tensor) -> torch.Tensor:
    return _through(torch.ceil, values)
