"""Fake quantization in PyTorch: values are rounded to a quantizer's grid and kept in float.

Results equal those of `torch.fake_quantize_per_tensor_affine` and `torch.fake_quantize_per_channel_affine` bit for bit: a value
is multiplied by the float32 reciprocal of the scale. ONNX's QuantizeLinear divides by the scale, so that a value within an ulp
of a tie may be rounded one step away. On a CPU the vector operations below, over blocks that fit into the processor's cache,
are several times faster than PyTorch's scalar kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from backends.ranges import TensorRange

BLOCK = 1 << 17
"""Elements that one thread rounds together: few enough to stay in its cache through all passes."""


def round_steps(values: torch.Tensor, scale: torch.Tensor, *, half_up: bool) -> torch.Tensor:
    """values in whole steps of the grid, float32, before the zero point is added and the ends are clamped."""
    steps = values.float() * scale.reciprocal()
    return steps.add_(0.5).floor_() if half_up else steps.round_()


def in_blocks(values: torch.Tensor, scale: torch.Tensor) -> bool:
    """Whether to work in blocks: on a CPU, with one scale. A GPU has no such cache, and reading numbers from it would wait for it."""
    return scale.numel() == 1 and values.device.type == "cpu"


def blocks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Tensors of one shape, split into the same blocks."""
    return zip(*(torch.split(tensor.view(-1), block_size()) for tensor in tensors), strict=True)


def block_size() -> int:
    return BLOCK * torch.get_num_threads()


def multiply_into(values: torch.Tensor, factor: float, out: torch.Tensor) -> torch.Tensor:
    """Write the float32 product into `out`."""
    # Products of half-precision values would be rounded to their own type.
    return torch.mul(values, factor, out=out) if values.dtype == out.dtype else out.copy_(values).mul_(factor)


def round_into(values: torch.Tensor, half_up: bool, out: torch.Tensor) -> torch.Tensor:
    """Round as `round_steps` does; write the result into `out`, which may be `values`."""
    return torch.add(values, 0.5, out=out).floor_() if half_up else torch.round(values, out=out)


@torch.no_grad()
def fake_quantize(
    values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, low: int, high: int, half_up: bool
) -> torch.Tensor:
    """values rounded to the grid, of the same shape and type, without a gradient. scale, zero_point: float32, one element or of a
    shape that broadcasts. low, high: lowest and highest code."""
    values = values.contiguous()
    least, most = low - zero_point, high - zero_point
    out = torch.empty_like(values)
    if not in_blocks(values, scale):
        return out.copy_(round_steps(values, scale, half_up=half_up).clamp_(least, most).mul_(scale))
    # PyTorch has vector code for numbers, but not for tensors of one element.
    inverse, step, first, last = (float(end) for end in (scale.reciprocal(), scale.detach(), least, most))
    buffer = None if out.dtype == torch.float32 else torch.empty(min(block_size(), out.numel()))
    for source, target in blocks(values, out):
        steps = multiply_into(source, inverse, target if buffer is None else buffer[: source.numel()])
        round_into(steps, half_up, steps).clamp_(first, last).mul_(step)
        if buffer is not None:
            target.copy_(steps)
    return out


class FakeQuantize(nn.Module):
    """Rounds a tensor to a grid, for inference: rounding has no gradient. scale and zero_point (integer values) are float32 buffers
    of shape (1,), or (channels, 1, ...) with `dimensions` axes, the first of which is quantized."""

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, tensor: TensorRange, dimensions: int = 1) -> None:
        super().__init__()
        shape = [1] * dimensions
        if tensor.axis is not None:
            shape[tensor.axis] = -1
        self.register_buffer("scale", torch.from_numpy(tensor.scale).reshape(shape))
        self.register_buffer("zero_point", torch.from_numpy(tensor.zero_point).float().reshape(shape))
        self.low, self.high, self.half_up = tensor.low, tensor.high, tensor.quantizer.rounding == "half_up"

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return fake_quantize(values, self.scale, self.zero_point, self.low, self.high, self.half_up)
