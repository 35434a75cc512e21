"""Checkpoint folder -> the clean encoder graph that engines fuse, built operator by operator from the weights.

Exporters trace a framework's guards for masks and softmax into the graph (`Where`, `IsNaN`), which cost time and keep
the engines' attention fusions from matching. Here is the classic form that they were written for: reshape with known head
sizes, transpose, scaled product, additive mask, softmax. No framework is imported.

Inputs: `input_ids`, `attention_mask`, `token_type_ids`, int64 (batch, sequence), both free. Output: `logits`, float32,
(batch, sequence, 2) for question answering, (batch, labels) else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from backends.base import BackendError, Precision, Quantize
from backends.bert import Architecture, Weights, read_architecture
from backends.graph import GraphBuilder
from backends.ranges import Ranges, TensorRange, integer_bias, read_ranges

EXPORT_VERSION = 2
"""Raised on purpose when exported graphs change: part of the key under which backends keep them."""

_OPSET: Mapping[Precision, int] = {"fp32": 17, "fp16": 19}
"""19 is the first in which Q/DQ take float16 scales."""
_MASKED = -10000.0
"""Added to the scores of padding. Its exponential is 0 beside any real score, and padding alone stays finite."""


@dataclass(frozen=True)
class ExportInfo:
    """What was written. nodes: of the graph as exported. quantized: names of the linear layers with integer weights."""

    path: Path
    nodes: int
    architecture: Architecture
    quantized: tuple[str, ...]


def export_onnx(
    checkpoint: Path,
    target: Path,
    *,
    precision: Precision = "fp32",
    quantize: Quantize = "none",
) -> ExportInfo:
    """Write the ONNX model of a checkpoint folder to `target`, whole or not at all; equal checkpoints give equal bytes.

    precision fp16: tensors are float16, but LayerNorm, softmax and GELU compute in float32, and logits are float32.
    quantize u8, s8: Q/DQ around the inputs and weights of the layers that `ranges.json` names, with exactly its ranges; tables
    and biases as integers where its scheme rounds them. u8 writes activations on the unsigned grid (zero point + 128), as
    x86's products want them, s8 on the signed one, with nothing but what TensorRT takes (tables are dequantized before the
    look-up, and biases, which it adds in float, are written as the values that their integers stand for). At fp16 scales are
    rounded to float16, since a Q/DQ's scale has its tensor's type. dynamic: encoder weights to INT8 by max-abs per output
    channel, inputs by their own range as they come (ONNX DynamicQuantizeLinear).

    Raises BackendError for a checkpoint that this export cannot express, or when the file cannot be written.
    """
    architecture = read_architecture(checkpoint)
    weights = Weights(checkpoint, architecture)
    ranges = read_ranges(checkpoint) if quantize in ("u8", "s8") else None
    if ranges and (why := ranges.scheme.simulation_only):
        raise BackendError(
            f"{checkpoint}: its ranges are of '{ranges.scheme.name}', which can only be simulated ({why}); run it on fake_quant_w8a8"
        )
    if ranges and precision == "fp16" and ranges.scheme.tensors == "op_outputs":
        raise BackendError(
            f"{checkpoint}: its ranges are of every operator's output, some of which float16 cannot hold; take fp32"
        )
    if ranges and quantize == "s8" and any(tensor.zero_point.any() for tensor in ranges.tensors.values()):
        raise BackendError(
            f"{checkpoint}: its ranges are asymmetric; int8 without zero points needs a symmetric scheme"
        )
    encoder = _Encoder(architecture, weights, precision, quantize, ranges)
    encoder.build()
    model = encoder.graph.model(
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in _INPUTS],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, _logits_shape(architecture))],
        opset=_OPSET[precision],
        ir_version=9,
        producer=f"quantboard export {EXPORT_VERSION}",
    )
    _write(target, model.SerializeToString(deterministic=True))
    return ExportInfo(target, len(encoder.graph.nodes), architecture, tuple(encoder.quantized))


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def _logits_shape(architecture: Architecture) -> list[str | int]:
    return ["batch", *(["sequence"] if architecture.head == "question_answering" else []), architecture.labels]


def _write(target: Path, content: bytes) -> None:
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BackendError(
            f"{target}: cannot be written ({error.strerror}); free some space or name another cache"
        ) from None


def export_cached(
    checkpoint: Path, cache: Path, *, precision: Precision = "fp32", quantize: Quantize = "none"
) -> tuple[Path, bool]:
    """The ONNX file of a checkpoint, from the cache or made now under a lock, and whether it was made now.

    It is kept by the content of the checkpoint, so equal ones share it. Raises BackendError.
    """
    from filelock import FileLock

    digest = hashlib.sha256(f"{EXPORT_VERSION} {precision} {quantize}".encode())
    for name in ("config.json", "model.safetensors", *(["ranges.json"] if quantize in ("u8", "s8") else [])):
        digest.update(_file_digest(checkpoint / name))
    path = cache / "onnx" / f"{precision}-{quantize}-{digest.hexdigest()[:16]}.onnx"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if path.exists():
                return path, False
            export_onnx(checkpoint, path, precision=precision, quantize=quantize)
    except OSError as error:
        raise BackendError(f"{path.parent}: cannot be written ({error.strerror}); name another cache") from None
    return path, True


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        remedy = (
            "calibrate the checkpoint with a post-training scheme first"
            if path.name == "ranges.json"
            else "name a model folder"
        )
        raise BackendError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None


def product_macs(architecture: Architecture, length: int) -> dict[str, int]:
    """Multiply-accumulates of every matrix product of the graph for one sequence of `length`, by node name."""
    macs = {f"{name}.product": architecture.linear_macs(name, length) for name in architecture.linears()}
    attention = length * length * architecture.hidden
    for layer in range(architecture.layers):
        macs |= {f"encoder.layer.{layer}.attention.{part}": attention for part in ("scores", "context")}
    return macs


class _Encoder:
    """The graph of one checkpoint, from embeddings to logits; every node is named after its module."""

    def __init__(
        self,
        architecture: Architecture,
        weights: Weights,
        precision: Precision,
        quantize: Quantize,
        ranges: Ranges | None,
    ) -> None:
        self.graph = GraphBuilder()
        self.quantized: list[str] = []
        self._arch = architecture
        self._weights = weights
        self._half = precision == "fp16"
        self._quantize = quantize
        self._ranges: Mapping[str, TensorRange] = ranges.tensors if ranges else {}
        self._integer_biases = ranges is not None and ranges.scheme.biases == "int32"
        mask = ranges.scheme.mask if ranges else None
        self._masked = _MASKED if mask is None else mask
        self._shared: dict[tuple[str, bytes], str] = {}
        """Quantized tensors by (tensor, grid): query, key and value read the same one."""

    def build(self) -> None:
        mask = self._mask()
        states = self._embeddings()
        for layer in range(self._arch.layers):
            states = self._layer(f"encoder.layer.{layer}", states, mask)
        self._head(states)

    def _embeddings(self) -> str:
        graph = self.graph
        words = self._rows(
            "embeddings.word_embeddings.weight",
            lambda table: graph.op("Gather", "embeddings.words", table, "input_ids"),
        )
        types = self._rows(
            "embeddings.token_type_embeddings.weight",
            lambda table: graph.op("Gather", "embeddings.types", table, "token_type_ids"),
        )
        shape = graph.op("Shape", "embeddings.length", "input_ids", start=1, end=2)
        positions = self._rows(
            "embeddings.position_embeddings.weight",
            lambda table: graph.op(
                "Slice", "embeddings.positions", table, self._ints("zero", [0]), shape, self._ints("zero", [0])
            ),
        )
        total = self._add("embeddings.words_and_types", words, types)
        return self._layer_norm("embeddings.LayerNorm", self._add("embeddings.sum", total, positions))

    def _rows(self, name: str, pick: Callable[[str], str]) -> str:
        """Rows of a table: picked from its integers where it has any, but for TensorRT, which dequantizes constants only."""
        if name not in self._ranges:
            return pick(self._weight(name))
        tensor = self._ranges[name]
        codes = self.graph.constant(f"{name}.codes", tensor.quantize(self._weights[name]))
        if self._quantize == "s8":
            return pick(self._dequantized(name, codes, tensor))
        return self._dequantized(name, pick(codes), tensor)

    def _mask(self) -> str:
        """(batch, 1, 1, sequence): 0 for tokens, the scheme's or a large negative number for padding."""
        graph = self.graph
        mask = graph.op("Unsqueeze", "mask.heads", "attention_mask", self._ints("one", [1]))
        mask = graph.op("Unsqueeze", "mask.queries", mask, self._ints("two", [2]))
        mask = graph.op("Cast", "mask.cast", mask, to=TensorProto.FLOAT)
        mask = graph.op("Sub", "mask.padding", self._float("mask.one", 1.0), mask)
        return graph.op("Mul", "mask.additive", mask, self._float("mask.masked", self._masked))

    def _layer(self, name: str, states: str, mask: str) -> str:
        attended = self._attention(f"{name}.attention", states, mask)
        attended = self._linear(f"{name}.attention.output.dense", attended)
        attended = self._add(f"{name}.attention.output.residual", attended, states)
        attended = self._layer_norm(f"{name}.attention.output.LayerNorm", attended)
        wide = self._linear(f"{name}.intermediate.dense", attended)
        wide = self._activation(f"{name}.intermediate.activation", wide)
        narrow = self._linear(f"{name}.output.dense", wide)
        narrow = self._add(f"{name}.output.residual", narrow, attended)
        return self._layer_norm(f"{name}.output.LayerNorm", narrow)

    def _add(self, name: str, one: str, other: str) -> str:
        return self._rounded(name, self.graph.op("Add", name, one, other))

    def _attention(self, name: str, states: str, mask: str) -> str:
        graph = self.graph
        size = self._arch.hidden // self._arch.heads
        split = self._ints("attention.split", [0, 0, self._arch.heads, size])

        def heads(part: str, order: list[int]) -> str:
            projected = self._linear(f"{name}.self.{part}", states)
            apart = graph.op("Reshape", f"{name}.self.{part}.split", projected, split)
            return graph.op("Transpose", f"{name}.self.{part}.transpose", apart, perm=order)

        query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
        scores = self._rounded(f"{name}.scores", graph.op("MatMul", f"{name}.scores", query, key))
        root = self._float("attention.root", size**0.5, self._type)
        scores = self._rounded(f"{name}.scale", graph.op("Div", f"{name}.scale", scores, root))
        scores = self._add(f"{name}.mask", self._full(f"{name}.mask", scores), mask)
        shares = self._narrow(f"{name}.softmax", graph.op("Softmax", f"{name}.softmax", scores, axis=-1))
        shares = self._rounded(f"{name}.softmax", shares)
        context = self._rounded(f"{name}.context", graph.op("MatMul", f"{name}.context", shares, value))
        context = graph.op("Transpose", f"{name}.context.transpose", context, perm=[0, 2, 1, 3])
        return graph.op(
            "Reshape", f"{name}.context.join", context, self._ints("attention.join", [0, 0, self._arch.hidden])
        )

    def _activation(self, name: str, values: str) -> str:
        """GELU as the error function has it (the cheaper tanh form only where the model was trained with it), or ReLU."""
        if self._arch.activation == "relu":
            return self._rounded(name, self.graph.op("Relu", name, values))
        return self._rounded(name, self._narrow(name, self._gelu(name, self._full(name, values))))

    def _gelu(self, name: str, values: str) -> str:
        graph = self.graph
        kind = self._arch.activation
        half, one = self._float("half", 0.5), self._float("one.float", 1.0)
        if kind == "gelu":
            inner = graph.op("Div", f"{name}.scaled", values, self._float("root_two", 2**0.5))
            inner = graph.op("Erf", f"{name}.erf", inner)
            inner = graph.op("Add", f"{name}.shifted", inner, one)
            inner = graph.op("Mul", f"{name}.product", values, inner)
            return graph.op("Mul", name, inner, half)
        cube = graph.op("Mul", f"{name}.square", values, values)
        cube = graph.op("Mul", f"{name}.cube", values, cube)
        cube = graph.op("Mul", f"{name}.cubic", cube, self._float("gelu.cubic", 0.044715))
        inner = graph.op("Add", f"{name}.sum", values, cube)
        inner = graph.op("Mul", f"{name}.scaled", inner, self._float("gelu.root", (2 / np.pi) ** 0.5))
        inner = graph.op("Tanh", f"{name}.tanh", inner)
        inner = graph.op("Add", f"{name}.shifted", inner, one)
        inner = graph.op("Mul", f"{name}.product", values, inner)
        return graph.op("Mul", name, inner, half)

    def _head(self, states: str) -> None:
        graph = self.graph
        if self._arch.head == "question_answering":
            logits = self._linear("qa_outputs", states)
        else:
            first = graph.op("Gather", "pooler.first", states, self._ints("zero.scalar", 0), axis=1)
            pooled = graph.op("Tanh", "pooler.tanh", self._linear("pooler.dense", first))
            logits = self._linear("classifier", self._rounded("pooler.tanh", pooled))
        self._full("logits", logits)
        graph.nodes[-1].output[0] = "logits"

    def _linear(self, name: str, values: str) -> str:
        """values (..., inputs) -> (..., outputs). ONNX has weights as (inputs, outputs), PyTorch transposed."""
        if self._quantize == "dynamic" and name.startswith("encoder."):
            product = self._dynamic_product(name, values)
        elif f"{name}.weight" in self._ranges:
            product = self._static_product(name, values)
        else:
            weight = self.graph.constant(f"{name}.weight", self._weights[f"{name}.weight"].T.astype(self._type))
            product = self.graph.op("MatMul", f"{name}.product", values, weight)
        return self._add(name, product, self._bias(name))

    def _bias(self, name: str) -> str:
        """A linear layer's: float, int32 at the scale of its products, or on the grid of its own range. TensorRT adds biases in
        float and gets the values that their integers stand for."""
        bias = self._weights[f"{name}.bias"]
        if tensor := self._ranges.get(f"{name}.bias"):
            codes = tensor.quantize(bias)
            if self._quantize == "s8":
                return self.graph.constant(f"{name}.bias", tensor.dequantize(codes).astype(self._type))
            return self._dequantized(f"{name}.bias", self.graph.constant(f"{name}.bias.codes", codes), tensor)
        return self._integer_bias(name) if self._integer_biases else self._weight(f"{name}.bias")

    def _static_product(self, name: str, values: str) -> str:
        """Q and DQ of the input, unless it is an operator's output that has them, DQ of an integer weight, and the product
        that engines turn into an integer one."""
        graph, weight = self.graph, self._ranges[f"{name}.weight"]
        self.quantized.append(name)
        codes = graph.constant(f"{name}.weight.codes", weight.quantize(self._weights[f"{name}.weight"]).T)
        dequantized = self._dequantized(f"{name}.weight", codes, weight)
        if f"{name}.input" in self._ranges:
            values = self._on_grid(f"{name}.input", values)
        return graph.op("MatMul", f"{name}.product", values, dequantized)

    def _dequantized(self, name: str, codes: str, tensor: TensorRange) -> str:
        """What int8 codes of a constant stand for; the channels of a weight are its second axis here."""
        scale, zero = tensor.scale, tensor.zero_point.astype(np.int8)
        if tensor.axis is None:
            scale, zero = scale.reshape(()), zero.reshape(())
        return self.graph.op(
            "DequantizeLinear",
            f"{name}.dequantize",
            codes,
            self.graph.constant(f"{name}.scale", scale.astype(self._type)),
            self.graph.constant(f"{name}.zero_point", zero),
            axis=1,
        )

    def _integer_bias(self, name: str) -> str:
        codes, scale = integer_bias(
            self._weights[f"{name}.bias"], self._ranges[f"{name}.weight"], self._ranges[f"{name}.input"]
        )
        if self._quantize == "s8":
            return self.graph.constant(f"{name}.bias", (codes * scale).astype(self._type))
        return self.graph.op(
            "DequantizeLinear",
            f"{name}.bias.dequantize",
            self.graph.constant(f"{name}.bias.codes", codes),
            self.graph.constant(f"{name}.bias.scale", scale.reshape(-1 if len(scale) > 1 else ()).astype(self._type)),
            axis=0,
        )

    def _rounded(self, name: str, values: str) -> str:
        """What an operator puts out, on its grid where the scheme gives it one."""
        return self._on_grid(f"{name}.output", values) if f"{name}.output" in self._ranges else values

    def _on_grid(self, name: str, values: str) -> str:
        """A tensor rounded to the grid of that name; made once where several layers read it on the same grid."""
        graph, tensor = self.graph, self._ranges[name]
        grid = (values, tensor.scale.tobytes() + tensor.zero_point.tobytes())
        if grid in self._shared:
            return self._shared[grid]
        scale = tensor.scale.reshape(()).astype(self._type)
        signed = int(tensor.zero_point[0])
        if tensor.low > -128:  # ONNX's grid has more codes
            ends = [np.array((code - signed) * tensor.scale[0], self._type) for code in (tensor.low, tensor.high)]
            low, high = (graph.constant(f"{name}.{end}", at) for end, at in zip(("low", "high"), ends, strict=True))
            values = graph.op("Clip", f"{name}.clip", values, low, high)
        zero = np.array(signed + 128, np.uint8) if self._quantize == "u8" else np.array(signed, np.int8)
        parts = graph.constant(f"{name}.scale", scale), graph.constant(f"{name}.zero_point", zero)
        codes = graph.op("QuantizeLinear", f"{name}.quantize", values, *parts)
        self._shared[grid] = graph.op("DequantizeLinear", f"{name}.dequantize", codes, *parts)
        return self._shared[grid]

    def _dynamic_product(self, name: str, values: str) -> str:
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

    def _layer_norm(self, name: str, values: str) -> str:
        scale, bias = (
            self.graph.constant(f"{name}.{part}", self._weights[f"{name}.{part}"]) for part in ("weight", "bias")
        )
        values = self._full(name, values)
        out = self.graph.op("LayerNormalization", name, values, scale, bias, axis=-1, epsilon=self._arch.epsilon)
        return self._rounded(name, self._narrow(name, out))

    @property
    def _type(self) -> type[np.floating[Any]]:
        return np.float16 if self._half else np.float32

    def _full(self, name: str, values: str) -> str:
        """float32, for what overflows or loses too much in float16."""
        return self.graph.op("Cast", f"{name}.to_float32", values, to=TensorProto.FLOAT) if self._half else values

    def _narrow(self, name: str, values: str) -> str:
        return self.graph.op("Cast", f"{name}.to_float16", values, to=TensorProto.FLOAT16) if self._half else values

    def _weight(self, name: str) -> str:
        return self.graph.constant(name, self._weights[name].astype(self._type))

    def _float(self, name: str, value: float, kind: type[np.floating[Any]] = np.float32) -> str:
        return self.graph.constant(name, np.array(value, kind))

    def _ints(self, name: str, values: Any) -> str:
        return self.graph.constant(name, np.array(values, np.int64))
