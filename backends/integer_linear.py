"""Linear layers that multiply 8-bit integers in PyTorch, with the integers and ranges of the simulation. Imports torch."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from backends.architecture import Architecture
from backends.fake_quant.adjust import adjust, carry_smoothing
from backends.ranges import Ranges, TensorRange, integer_bias
from backends.tensor_names import source, weight_names
from backends.torch_models import find_module, module_path, read_model_architecture

Products = Literal["onednn", "int_mm"]
"""oneDNN multiplies uint8 with int8 (CPUs); `torch._int_mm` int8 with int8 (cuBLAS on GPUs; on CPUs exact and slow)."""
ROWS, COLUMNS = 17, 8
"""cuBLAS needs at least so many rows, and a multiple of so many columns."""


class IntegerLinear(nn.Module):
    """A linear layer on integers: round the input, multiply, sum in 32 bits, scale the sum and add the bias.

    weight: int8 codes (outputs, inputs), with scales (outputs,) or (1,). inputs: the grid of the input. bias: float32 (outputs,).
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor
    weight_zero_point: torch.Tensor

    def __init__(
        self,
        weight: np.ndarray[Any, Any],
        weight_scale: np.ndarray[Any, Any],
        inputs: TensorRange,
        bias: np.ndarray[Any, Any],
        products: Products,
    ) -> None:
        super().__init__()
        self._products = products
        self._outputs = outputs = len(weight)
        self._low, self._high = inputs.low, inputs.high
        self._scale, self._zero_point = float(inputs.scale[0]), int(inputs.zero_point[0])
        self._inverse = float(np.float32(1) / inputs.scale[0])
        scales = np.broadcast_to(weight_scale, outputs).astype(np.float32)
        if products == "onednn":
            self._keep("weight", weight)
            self.weight = torch.ops.onednn.qlinear_prepack(self.weight, None)
            self._keep("scale", scales)
            self._keep("weight_zero_point", np.zeros(outputs, np.int32))
            self._keep("bias", bias.astype(np.float32))
        else:
            scale = scales * inputs.scale[0]
            offset = bias - self._zero_point * weight.sum(1, dtype=np.int64) * scale
            self._keep("weight", np.pad(weight, [(0, -outputs % COLUMNS), (0, 0)]))
            self._keep("scale", scale)
            self._keep("bias", offset.astype(np.float32))

    def _keep(self, name: str, values: np.ndarray[Any, Any]) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)), persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (..., outputs), of the same type."""
        rows = values.reshape(-1, values.shape[-1]).float()
        steps = torch.round(rows * self._inverse) + self._zero_point
        multiply = self._onednn if self._products == "onednn" else self._int_mm
        out = multiply(steps.clamp(self._low, self._high), values.dtype)
        return out.reshape(*values.shape[:-1], self._outputs)

    def _onednn(self, codes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        out: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            (codes + 128).to(torch.uint8), self._scale, self._zero_point + 128,
            self.weight, self.scale, self.weight_zero_point, self.bias,
            1.0, 0, dtype, "none", [], "",
        )  # fmt: skip
        return out

    def _int_mm(self, codes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        count = codes.shape[0]
        wide = nn.functional.pad(codes.to(torch.int8), (0, 0, 0, ROWS - 1))
        sums = torch._int_mm(wide, self.weight.t())[:count, : self._outputs]
        return (sums.float() * self.scale + self.bias).to(dtype)


def install(model: nn.Module, ranges: Ranges, products: Products | None = None) -> list[str]:
    """Put integers into a model of transformers, at the linear layers that the scheme of these ranges quantizes; returns their
    names. Embedding tables and biases are rounded as the scheme says. products: None takes those of the model's device."""
    adjust(model, ranges.adjustments)
    architecture, scheme = read_model_architecture(model), ranges.scheme
    device = next(model.parameters()).device
    products = products or ("int_mm" if device.type == "cuda" else "onednn")
    for table in architecture.tables() if scheme.embeddings else ():
        _round(find_module(model, table).weight, ranges.tensors[f"{table}.weight"])
    names = weight_names(architecture, scheme)
    for name in names:
        plain, path = find_module(model, name), module_path(model, name)
        assert path is not None
        integer = _integer(plain, name, ranges, architecture, products).to(device)
        carry_smoothing(plain, integer)
        parent, _, attribute = path.rpartition(".")
        setattr(model.get_submodule(parent), attribute, integer)
    return names


def _integer(
    plain: nn.Linear, name: str, ranges: Ranges, architecture: Architecture, products: Products
) -> IntegerLinear:
    weight, inputs = ranges.tensors[f"{name}.weight"], ranges.tensors[source(f"{name}.input")]
    bias = np.zeros(plain.out_features, np.float32)
    if architecture.has_bias(name):
        bias = plain.bias.detach().float().cpu().numpy()
        if ranges.scheme.biases == "int32":
            codes, scale = integer_bias(bias, weight, inputs)
            bias = codes * scale
    codes = weight.quantize(plain.weight.detach().float().cpu().numpy())
    return IntegerLinear(codes, weight.scale, inputs, bias, products)


def _round(table: nn.Parameter, tensor: TensorRange) -> None:
    values = tensor.dequantize(tensor.quantize(table.detach().float().cpu().numpy()))
    with torch.no_grad():
        table.copy_(torch.from_numpy(values))
