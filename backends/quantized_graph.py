"""The operators of an encoder's graph with their quantizers: linear layers, look-ups, sums, LayerNorm, activations.

A quantized tensor gets a pair of QuantizeLinear and DequantizeLinear (Q/DQ), which engines fuse with the operators around it into
integer operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from backends.adjusted import Tensors
from backends.architecture import Activation
from backends.base import Precision, Quantize
from backends.graph import GraphBuilder
from backends.ranges import Ranges, TensorRange, integer_bias
from backends.tensor_names import source

Array = np.ndarray[Any, Any]


class QuantizedGraph:
    """A graph builder that knows a checkpoint's weights and ranges. Nodes have the names of the tensors that they compute."""

    def __init__(
        self,
        weights: Tensors,
        precision: Precision,
        quantize: Quantize,
        ranges: Ranges | None,
        multipliers: Mapping[str, Array],
    ) -> None:
        self.graph = GraphBuilder()
        self.quantized: list[str] = []
        """Names of the linear layers with integer weights."""
        self._weights = weights
        self._half = precision == "fp16"
        self._quantize = quantize
        self._ranges: Mapping[str, TensorRange] = ranges.tensors if ranges else {}
        self._multipliers = multipliers
        self._integer_biases = ranges is not None and ranges.scheme.biases == "int32"
        self._shared: dict[tuple[str, bytes], str] = {}
        """(tensor, grid) -> quantized tensor: query, key and value read the same one."""

    def linear(self, name: str, values: str) -> str:
        """values (..., inputs) -> (..., outputs). Weights are (inputs, outputs) in ONNX, and transposed in PyTorch."""
        if self._quantize == "dynamic" and name.startswith("encoder."):
            product = self._dynamic_product(name, values)
        elif f"{name}.weight" in self._ranges:
            product = self._static_product(name, values)
        else:
            weight = self.graph.constant(f"{name}.weight", self._weights[f"{name}.weight"].T.astype(self.dtype))
            product = self.graph.op("MatMul", f"{name}.product", values, weight)
        if f"{name}.bias" not in self._weights:
            return self.rounded(name, product)
        return self.add(name, product, self._bias(name))

    def projected(self, name: str, rows: Array) -> Array:
        """What a linear layer makes of constant rows (rows, inputs): (rows, outputs), float32, with the values of its integers where it
        is quantized statically."""
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        if tensor := self._ranges.get(f"{name}.weight"):
            if self._integer_biases:
                codes, scale = integer_bias(bias, tensor, self._ranges[f"{name}.input"])
                bias = codes * scale
            weight = tensor.dequantize(tensor.quantize(weight))
        if tensor := self._ranges.get(f"{name}.bias"):
            bias = tensor.dequantize(tensor.quantize(bias))
        out: Array = rows.astype(np.float64) @ weight.astype(np.float64).T + bias
        return out.astype(np.float32)

    def table_rows(self, name: str, pick: Callable[[str], str]) -> str:
        """Rows of a table, selected by the operator that `pick` adds: from its codes if it is quantized, but for TensorRT, which
        dequantizes constants only, from its dequantized values."""
        if name not in self._ranges:
            return pick(self._weight(name))
        tensor = self._ranges[name]
        codes = self.graph.constant(f"{name}.codes", tensor.quantize(self._weights[name]))
        if self._quantize == "s8":
            return pick(self._dequantized(name, codes, tensor))
        return self._dequantized(name, pick(codes), tensor)

    def add(self, name: str, left: str, right: str) -> str:
        return self.rounded(name, self.graph.op("Add", name, left, right))

    def rounded(self, name: str, values: str) -> str:
        """The output of the operator `name`, quantized if it has a range."""
        return self._on_grid(f"{name}.output", values) if f"{name}.output" in self._ranges else values

    def layer_norm(self, name: str, values: str, epsilon: float) -> str:
        weight = self._weights[f"{name}.weight"]
        bias = self._weights[f"{name}.bias"] if f"{name}.bias" in self._weights else np.zeros_like(weight)
        parts = self.graph.constant(f"{name}.weight", weight), self.graph.constant(f"{name}.bias", bias)
        values = self.full(name, values)
        out = self.graph.op("LayerNormalization", name, values, *parts, axis=-1, epsilon=epsilon)
        return self.rounded(name, self.narrow(name, out))

    def activation(self, name: str, kind: Activation, values: str) -> str:
        """GELU by the error function (by its approximations only for models that were trained so), SiLU, ReLU, or tanh."""
        if kind in ("relu", "tanh"):
            return self.rounded(name, self.graph.op("Relu" if kind == "relu" else "Tanh", name, values))
        values = self.full(name, values)
        if kind in ("silu", "quick_gelu"):
            return self.rounded(
                name, self.narrow(name, self._times_sigmoid(name, values, 1.702 if kind == "quick_gelu" else 1.0))
            )
        gelu = self._gelu if kind == "gelu" else self._gelu_tanh
        return self.rounded(name, self.narrow(name, gelu(name, values)))

    def _times_sigmoid(self, name: str, values: str, slope: float) -> str:
        """x * sigmoid(slope * x): SiLU, or with 1.702 an approximation of GELU (Hendrycks and Gimpel, arXiv 1606.08415)."""
        inner = values
        if slope != 1:
            inner = self.graph.op("Mul", f"{name}.scaled", values, self.scalar("gelu.slope", slope))
        return self.graph.op("Mul", name, values, self.graph.op("Sigmoid", f"{name}.sigmoid", inner))

    def _gelu(self, name: str, values: str) -> str:
        graph = self.graph
        half, one = self.scalar("half", 0.5), self.scalar("one.float", 1.0)
        inner = graph.op("Div", f"{name}.scaled", values, self.scalar("root_two", 2**0.5))
        inner = graph.op("Erf", f"{name}.erf", inner)
        inner = graph.op("Add", f"{name}.shifted", inner, one)
        inner = graph.op("Mul", f"{name}.product", values, inner)
        return graph.op("Mul", name, inner, half)

    def _gelu_tanh(self, name: str, values: str) -> str:
        graph = self.graph
        half, one = self.scalar("half", 0.5), self.scalar("one.float", 1.0)
        cube = graph.op("Mul", f"{name}.square", values, values)
        cube = graph.op("Mul", f"{name}.cube", values, cube)
        cube = graph.op("Mul", f"{name}.cubic", cube, self.scalar("gelu.cubic", 0.044715))
        inner = graph.op("Add", f"{name}.sum", values, cube)
        inner = graph.op("Mul", f"{name}.scaled", inner, self.scalar("gelu.root", (2 / np.pi) ** 0.5))
        inner = graph.op("Tanh", f"{name}.tanh", inner)
        inner = graph.op("Add", f"{name}.shifted", inner, one)
        inner = graph.op("Mul", f"{name}.product", values, inner)
        return graph.op("Mul", name, inner, half)

    def _bias(self, name: str) -> str:
        """The bias of a linear layer: float, int32 at the scale of the products, or on the grid of its own range. For TensorRT, which
        adds biases in float, the values of the integers."""
        bias = self._weights[f"{name}.bias"]
        if tensor := self._ranges.get(f"{name}.bias"):
            codes = tensor.quantize(bias)
            if self._quantize == "s8":
                return self.graph.constant(f"{name}.bias", tensor.dequantize(codes).astype(self.dtype))
            return self._dequantized(f"{name}.bias", self.graph.constant(f"{name}.bias.codes", codes), tensor)
        integer = self._integer_biases and f"{name}.weight" in self._ranges
        return self._integer_bias(name) if integer else self._weight(f"{name}.bias")

    def _integer_bias(self, name: str) -> str:
        codes, scale = integer_bias(
            self._weights[f"{name}.bias"], self._ranges[f"{name}.weight"], self._ranges[f"{name}.input"]
        )
        if self._quantize == "s8":
            return self.graph.constant(f"{name}.bias", (codes * scale).astype(self.dtype))
        return self.graph.op(
            "DequantizeLinear",
            f"{name}.bias.dequantize",
            self.graph.constant(f"{name}.bias.codes", codes),
            self.graph.constant(f"{name}.bias.scale", scale.reshape(-1 if len(scale) > 1 else ()).astype(self.dtype)),
            axis=0,
        )

    def _static_product(self, name: str, values: str) -> str:
        """A MatMul that engines run as an integer product: Q/DQ of the input, if it has a range, and DQ of the integer weight."""
        graph, weight = self.graph, self._ranges[f"{name}.weight"]
        self.quantized.append(name)
        codes = graph.constant(f"{name}.weight.codes", weight.quantize(self._weights[f"{name}.weight"]).T)
        dequantized = self._dequantized(f"{name}.weight", codes, weight)
        if f"{name}.input" in self._ranges:
            values = self._on_grid(f"{name}.input", self._smoothed(source(f"{name}.input"), values))
        return graph.op("MatMul", f"{name}.product", values, dequantized)

    def _smoothed(self, name: str, values: str) -> str:
        """The input `name` times its multiplier, if it has one. Added once if several layers read it."""
        if (multiplier := self._multipliers.get(name)) is None:
            return values
        if (values, b"smoothed") not in self._shared:
            constant = self.graph.constant(f"{name}.multiplier", multiplier.astype(self.dtype))
            self._shared[values, b"smoothed"] = self.graph.op("Mul", f"{name}.smoothed", values, constant)
        return self._shared[values, b"smoothed"]

    def _dynamic_product(self, name: str, values: str) -> str:
        """An integer product: of a weight with one scale per output channel, by max-abs, and an input that is quantized at run time."""
        graph = self.graph
        self.quantized.append(name)
        weight = self._weights[f"{name}.weight"]
        largest = np.abs(weight).max(axis=1)
        scale = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(127)
        codes = np.clip(np.rint(weight / scale[:, None]), -127, 127).astype(np.int8).T
        if (values, b"") not in self._shared:
            outputs = [f"{name}.input.{part}" for part in ("codes", "scale", "zero_point")]
            graph.nodes.append(
                helper.make_node("DynamicQuantizeLinear", [values], outputs, name=f"{name}.input.quantize")
            )
            self._shared[values, b""] = f"{name}.input"
        source = self._shared[values, b""]
        product = graph.op(
            "MatMulInteger",
            f"{name}.product",
            f"{source}.codes",
            graph.constant(f"{name}.weight.codes", codes),
            f"{source}.zero_point",
            graph.constant(f"{name}.weight.zero_point", np.zeros(len(scale), np.int8)),
        )
        product = graph.op("Cast", f"{name}.cast", product, to=TensorProto.FLOAT)
        weight_scale = graph.constant(f"{name}.weight.scale", scale)
        return graph.op(
            "Mul", f"{name}.scaled", product, graph.op("Mul", f"{name}.scale", f"{source}.scale", weight_scale)
        )

    def _dequantized(self, name: str, codes: str, tensor: TensorRange) -> str:
        """The values of a constant's int8 codes. The output channels of a weight are its second axis here."""
        scale, zero = tensor.scale, tensor.zero_point.astype(np.int8)
        if tensor.axis is None:
            scale, zero = scale.reshape(()), zero.reshape(())
        return self.graph.op(
            "DequantizeLinear",
            f"{name}.dequantize",
            codes,
            self.graph.constant(f"{name}.scale", scale.astype(self.dtype)),
            self.graph.constant(f"{name}.zero_point", zero),
            axis=1,
        )

    def _on_grid(self, name: str, values: str) -> str:
        """A tensor with Q/DQ on the grid of that name. Added once if several layers read it on the same grid."""
        graph, tensor = self.graph, self._ranges[name]
        grid = (values, tensor.scale.tobytes() + tensor.zero_point.tobytes())
        if grid in self._shared:
            return self._shared[grid]
        scale = tensor.scale.reshape(()).astype(self.dtype)
        signed = int(tensor.zero_point[0])
        if tensor.low > -128:  # ONNX would use lower codes, too
            ends = [np.array((code - signed) * tensor.scale[0], self.dtype) for code in (tensor.low, tensor.high)]
            low, high = (graph.constant(f"{name}.{end}", at) for end, at in zip(("low", "high"), ends, strict=True))
            values = graph.op("Clip", f"{name}.clip", values, low, high)
        zero = np.array(signed + 128, np.uint8) if self._quantize == "u8" else np.array(signed, np.int8)
        parts = graph.constant(f"{name}.scale", scale), graph.constant(f"{name}.zero_point", zero)
        codes = graph.op("QuantizeLinear", f"{name}.quantize", values, *parts)
        self._shared[grid] = graph.op("DequantizeLinear", f"{name}.dequantize", codes, *parts)
        return self._shared[grid]

    @property
    def dtype(self) -> type[np.floating[Any]]:
        """The type of the graph's tensors."""
        return np.float16 if self._half else np.float32

    def full(self, name: str, values: str) -> str:
        """values as float32, for operators that overflow or lose too much precision in float16."""
        return self.graph.op("Cast", f"{name}.to_float32", values, to=TensorProto.FLOAT) if self._half else values

    def narrow(self, name: str, values: str) -> str:
        """values back in the graph's own type."""
        return self.graph.op("Cast", f"{name}.to_float16", values, to=TensorProto.FLOAT16) if self._half else values

    def scalar(self, name: str, value: float, kind: type[np.floating[Any]] = np.float32) -> str:
        return self.graph.constant(name, np.array(value, kind))

    def integers(self, name: str, values: Any) -> str:
        return self.graph.constant(name, np.array(values, np.int64))

    def _weight(self, name: str) -> str:
        return self.graph.constant(name, self._weights[name].astype(self.dtype))
