"""Fake quantization in PyTorch: values rounded to a quantizer's grid and kept in float.

Order of operations: PyTorch's own. A value is multiplied by the float32 reciprocal of the scale, as
`torch.fake_quantize_per_tensor_affine` and its per-channel sibling do, and results equal theirs bit for bit. ONNX's
QuantizeLinear divides instead: for the same input, a value that lies within an ulp of a tie may land one step away. The
chain of in-place vector operations below is three to ten times faster on a CPU than PyTorch's scalar kernel.
"""

from __future__ import annotations

import torch
from torch import nn

from backends.ranges import TensorRange


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
        self.low, self.high, self.rounding = tensor.low, tensor.high, tensor.quantizer.rounding
        self.symmetric = tensor.quantizer.symmetric

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        steps = values * self.scale.reciprocal()
        steps = steps.round_() if self.rounding == "half_even" else steps.add_(0.5).floor_()
        if self.symmetric:
            return steps.clamp_(self.low, self.high).mul_(self.scale)
        steps = steps.add_(self.zero_point).clamp_(self.low, self.high)
        return steps.sub_(self.zero_point).mul_(self.scale)


class FakeQuantLinear(nn.Module):
    """A linear layer whose input and weight are rounded to their grids; the weight once, here. The bias stays float.

    An engine multiplies the integers, sums exactly in 32 bits, and scales the sum; this multiplies the values that the
    integers stand for, so results differ by float32 rounding alone.
    """

    weight: torch.Tensor

    def __init__(self, linear: nn.Linear, weight: TensorRange, inputs: TensorRange) -> None:
        super().__init__()
        device = linear.weight.device
        with torch.no_grad():
            self.register_buffer("weight", FakeQuantize(weight, 2).to(device)(linear.weight.float()))
        self.bias = linear.bias
        self.quantize_input = FakeQuantize(inputs).to(device)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.quantize_input(values), self.weight, self.bias)
