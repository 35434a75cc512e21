"""Fake quantization in PyTorch: values rounded to a quantizer's grid and kept in float.

Order of operations: PyTorch's own. A value is multiplied by the float32 reciprocal of the scale, as
`torch.fake_quantize_per_tensor_affine` and its per-channel sibling do, and results equal theirs bit for bit. ONNX's
QuantizeLinear divides instead: for the same input, a value that lies within an ulp of a tie may land one step away. The
chains of vector operations below, over blocks that a processor's cache holds, are several times faster on a CPU than
PyTorch's scalar kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from backends.ranges import TensorRange

BLOCK = 1 << 17
"""Elements that each of a processor's threads rounds together, so that all passes over them find them in its cache."""


def round_steps(values: torch.Tensor, scale: torch.Tensor, *, half_up: bool) -> torch.Tensor:
    """values in whole steps of a grid, float32, before the zero point is added and the ends are clamped."""
    steps = values.float() * scale.reciprocal()
    return steps.add_(0.5).floor_() if half_up else steps.round_()


def in_blocks(values: torch.Tensor, scale: torch.Tensor) -> bool:
    """Not where a scale belongs to a row, nor on a GPU, which has no such cache and is not to be waited for."""
    return scale.numel() == 1 and values.device.type == "cpu"


def blocks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Tensors of one shape, cut alike."""
    return zip(*(torch.split(tensor.view(-1), block_size()) for tensor in tensors), strict=True)


def block_size() -> int:
    return BLOCK * torch.get_num_threads()


def multiply_into(values: torch.Tensor, factor: float, out: torch.Tensor) -> torch.Tensor:
    """The float32 product, into `out`."""
    # Products of half-precision values would be rounded to their own type.
    return torch.mul(values, factor, out=out) if values.dtype == out.dtype else out.copy_(values).mul_(factor)


def round_into(values: torch.Tensor, half_up: bool, out: torch.Tensor) -> torch.Tensor:
    """As `round_steps` rounds, into `out`, which may be `values`."""
    return torch.add(values, 0.5, out=out).floor_() if half_up else torch.round(values, out=out)


@torch.no_grad()
def fake_quantize(
    values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, low: int, high: int, half_up: bool
) -> torch.Tensor:
    """values rounded to the grid, in their own type. scale and zero_point: float32, of one element, or of a shape that
    broadcasts; low and high: the ends in whole steps. Without a gradient."""
    values = values.contiguous()
    least, most = low - zero_point, high - zero_point
    out = torch.empty_like(values)
    if not in_blocks(values, scale):
        return out.copy_(round_steps(values, scale, half_up=half_up).clamp_(least, most).mul_(scale))
    # Numbers instead of tensors of one element: PyTorch's vector code is for those.
    inverse, step, first, last = (float(one) for one in (scale.reciprocal(), scale.detach(), least, most))
    spare = None if out.dtype == torch.float32 else torch.empty(min(block_size(), out.numel()))
    for source, goes in blocks(values, out):
        steps = multiply_into(source, inverse, goes if spare is None else spare[: source.numel()])
        round_into(steps, half_up, steps).clamp_(first, last).mul_(step)
        if spare is not None:
            goes.copy_(steps)
    return out


class FakeQuantize(nn.Module):
    """Rounds a tensor to a grid. scale (float32) and zero_point (float32, integer values) are buffers of shape (1,), or
    (channels, 1, ...) that broadcasts along the quantized axis of a tensor with `dimensions` axes. For inference:
    rounding has no gradient."""

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
