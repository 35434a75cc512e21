"""Checkpoint folder -> the clean encoder graph that engines fuse, built operator by operator from the weights.

Exporters trace a framework's guards for masks and softmax into the graph (`Where`, `IsNaN`), which cost time and keep
the engines' attention fusions from matching. Here is the classic form that they were written for: reshape with known head
sizes, transpose, scaled product, additive mask, softmax. No framework is imported.

Inputs: `input_ids`, `attention_mask`, `token_type_ids`, int64 (batch, sequence), both free. Output: `logits`, float32,
(batch, sequence, 2) for question answering, (batch, labels) else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from onnx import TensorProto, helper

from backends.base import BackendError
from backends.bert import Architecture, Weights, read_architecture
from backends.graph import GraphBuilder

EXPORT_VERSION = 1
"""Raised on purpose when exported graphs change: part of the key under which backends keep them."""

Precision = Literal["fp32", "fp16"]
Quantize = Literal["none", "u8", "s8", "dynamic"]

_OPSET = 17
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

    Raises BackendError for a checkpoint that this export cannot express, or when the file cannot be written.
    """
    if precision != "fp32" or quantize != "none":
        raise BackendError(f"export at {precision} with {quantize} quantization is not there yet; use fp32")
    architecture = read_architecture(checkpoint)
    weights = Weights(checkpoint, architecture)
    encoder = _Encoder(architecture, weights)
    encoder.build()
    model = encoder.graph.model(
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in _INPUTS],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, _logits_shape(architecture))],
        opset=_OPSET,
        ir_version=8,
        producer=f"quantboard export {EXPORT_VERSION}",
    )
    _write(target, model.SerializeToString(deterministic=True))
    return ExportInfo(target, len(encoder.graph.nodes), architecture, ())


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


class _Encoder:
    """The graph of one checkpoint, from embeddings to logits; every node is named after its module."""

    def __init__(self, architecture: Architecture, weights: Weights) -> None:
        self.graph = GraphBuilder()
        self._arch = architecture
        self._weights = weights

    def build(self) -> None:
        mask = self._mask()
        states = self._embeddings()
        for layer in range(self._arch.layers):
            states = self._layer(f"encoder.layer.{layer}", states, mask)
        self._head(states)

    def _embeddings(self) -> str:
        graph = self.graph
        words = graph.op("Gather", "embeddings.words", self._weight("embeddings.word_embeddings.weight"), "input_ids")
        types = graph.op(
            "Gather", "embeddings.types", self._weight("embeddings.token_type_embeddings.weight"), "token_type_ids"
        )
        shape = graph.op("Shape", "embeddings.length", "input_ids", start=1, end=2)
        positions = graph.op(
            "Slice", "embeddings.positions", self._weight("embeddings.position_embeddings.weight"),
            self._ints("zero", [0]), shape, self._ints("zero", [0]),
        )  # fmt: skip
        total = graph.op("Add", "embeddings.words_and_types", words, types)
        total = graph.op("Add", "embeddings.sum", total, positions)
        return self._layer_norm("embeddings.LayerNorm", total)

    def _mask(self) -> str:
        """(batch, 1, 1, sequence): 0 for tokens, a large negative number for padding."""
        graph = self.graph
        mask = graph.op("Unsqueeze", "mask.heads", "attention_mask", self._ints("one", [1]))
        mask = graph.op("Unsqueeze", "mask.queries", mask, self._ints("two", [2]))
        mask = graph.op("Cast", "mask.cast", mask, to=TensorProto.FLOAT)
        mask = graph.op("Sub", "mask.padding", self._float("mask.one", 1.0), mask)
        return graph.op("Mul", "mask.additive", mask, self._float("mask.masked", _MASKED))

    def _layer(self, name: str, states: str, mask: str) -> str:
        graph = self.graph
        attended = self._attention(f"{name}.attention", states, mask)
        attended = self._linear(f"{name}.attention.output.dense", attended)
        attended = graph.op("Add", f"{name}.attention.output.residual", attended, states)
        attended = self._layer_norm(f"{name}.attention.output.LayerNorm", attended)
        wide = self._linear(f"{name}.intermediate.dense", attended)
        wide = self._activation(f"{name}.intermediate.activation", wide)
        narrow = self._linear(f"{name}.output.dense", wide)
        narrow = graph.op("Add", f"{name}.output.residual", narrow, attended)
        return self._layer_norm(f"{name}.output.LayerNorm", narrow)

    def _attention(self, name: str, states: str, mask: str) -> str:
        graph = self.graph
        size = self._arch.hidden // self._arch.heads
        split = self._ints("attention.split", [0, 0, self._arch.heads, size])

        def heads(part: str, order: list[int]) -> str:
            projected = self._linear(f"{name}.self.{part}", states)
            apart = graph.op("Reshape", f"{name}.self.{part}.split", projected, split)
            return graph.op("Transpose", f"{name}.self.{part}.transpose", apart, perm=order)

        query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
        scores = graph.op("MatMul", f"{name}.scores", query, key)
        scores = graph.op("Div", f"{name}.scale", scores, self._float("attention.root", size**0.5))
        scores = graph.op("Add", f"{name}.mask", scores, mask)
        shares = graph.op("Softmax", f"{name}.softmax", scores, axis=-1)
        context = graph.op("MatMul", f"{name}.context", shares, value)
        context = graph.op("Transpose", f"{name}.context.transpose", context, perm=[0, 2, 1, 3])
        return graph.op(
            "Reshape", f"{name}.context.join", context, self._ints("attention.join", [0, 0, self._arch.hidden])
        )

    def _activation(self, name: str, values: str) -> str:
        """GELU as the error function has it (the cheaper tanh form only where the model was trained with it), or ReLU."""
        graph = self.graph
        kind = self._arch.activation
        if kind == "relu":
            return graph.op("Relu", name, values)
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
            logits = self._linear("classifier", pooled)
        graph.nodes[-1].output[0] = "logits"
        assert logits

    def _linear(self, name: str, values: str) -> str:
        """values (..., inputs) -> (..., outputs). ONNX has weights as (inputs, outputs), PyTorch transposed."""
        weight = self.graph.constant(f"{name}.weight", self._weights[f"{name}.weight"].T)
        product = self.graph.op("MatMul", f"{name}.product", values, weight)
        return self.graph.op("Add", name, product, self._weight(f"{name}.bias"))

    def _layer_norm(self, name: str, values: str) -> str:
        scale, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self.graph.op("LayerNormalization", name, values, scale, bias, axis=-1, epsilon=self._arch.epsilon)

    def _weight(self, name: str) -> str:
        return self.graph.constant(name, self._weights[name])

    def _float(self, name: str, value: float) -> str:
        return self.graph.constant(name, np.array(value, np.float32))

    def _ints(self, name: str, values: Any) -> str:
        return self.graph.constant(name, np.array(values, np.int64))
