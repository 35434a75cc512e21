"""The graph of an encoder, from its inputs to logits, in the form that the attention fusions of engines recognise: reshape with
known head sizes, transpose, scaled product, additive mask, softmax. Nodes have the names of their modules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import TensorProto

from backends.adjusted import Tensors
from backends.architecture import HEAD_LINEARS, PROJECTION, RELATIVE_BIAS, Architecture, Pooling
from backends.base import Precision, Quantize
from backends.quantized_graph import QuantizedGraph
from backends.ranges import Ranges

_MASKED = -10000.0
"""Added to the attention scores of padding: low enough for a probability of 0 beside any token, and
finite, so that no row becomes NaN."""


def relative_bucket(distances: Any) -> Any:
    """The bucket of a distance from query to key, of any shape, as T5 has it (Raffel et al., arXiv 1910.10683): 16 buckets for each
    direction, one for each distance below 8, then wider ones by the logarithm up to 128. float32, as transformers computes it."""
    after = np.where(distances > 0, 16, 0)
    far = np.abs(distances)
    steps = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(8)) / np.float32(math.log(16)) * np.float32(8)
    return after + np.where(far < 8, far, np.minimum(8 + steps.astype(np.int64), 15))


class EncoderGraph(QuantizedGraph):
    """The graph of one checkpoint. Call `build` once; then `graph` holds it."""

    def __init__(
        self,
        architecture: Architecture,
        weights: Tensors,
        precision: Precision,
        quantize: Quantize,
        ranges: Ranges | None,
    ) -> None:
        super().__init__(
            weights, precision, quantize, ranges, ranges.adjustments.multipliers(architecture) if ranges else {}
        )
        self._arch = architecture
        mask = ranges.scheme.mask if ranges else None
        self._masked = _MASKED if mask is None else mask

    def build(self) -> None:
        mask = self._mask()
        if self._arch.relative_buckets:
            mask = self.graph.op("Add", "mask.biased", self._relative_bias(), mask)
        states = self._embeddings()
        for layer in range(self._arch.layers):
            states = self._layer(f"encoder.layer.{layer}", states, mask)
        self._head(states)

    def _mask(self) -> str:
        """(batch, 1, 1, sequence): 0 for tokens, for padding the scheme's mask or _MASKED."""
        graph = self.graph
        mask = graph.op("Unsqueeze", "mask.heads", "attention_mask", self.integers("one", [1]))
        mask = graph.op("Unsqueeze", "mask.queries", mask, self.integers("two", [2]))
        mask = graph.op("Cast", "mask.cast", mask, to=TensorProto.FLOAT)
        mask = graph.op("Sub", "mask.padding", self.scalar("mask.one", 1.0), mask)
        return graph.op("Mul", "mask.additive", mask, self.scalar("mask.masked", self._masked))

    def _relative_bias(self) -> str:
        """(1, heads, sequence, sequence): what attention scores get by the distance from query to key."""
        graph, longest = self.graph, self._arch.positions
        table = self._weights[f"{RELATIVE_BIAS}.weight"][relative_bucket(np.arange(1 - longest, longest))].T
        apart = self._distances()
        rows = graph.op("Add", "relative.rows", apart, self.integers("relative.middle", [longest - 1]))
        bias = graph.op("Gather", "relative.bias", graph.constant("relative.table", table), rows, axis=1)
        return graph.op("Unsqueeze", "relative.batch", bias, self.integers("zero", [0]))

    def _distances(self) -> str:
        """(sequence, sequence), int64: of each query, in rows, how far each key is behind it."""
        graph = self.graph
        length = graph.op("Shape", "relative.length", "input_ids", start=1, end=2)
        zero, axes = self.integers("zero", [0]), self.integers("zero", [0])
        steps = self.integers("relative.positions", np.arange(self._arch.positions))
        keys = graph.op("Slice", "relative.keys", steps, zero, length, axes)
        queries = graph.op("Unsqueeze", "relative.queries", keys, self.integers("one", [1]))
        return graph.op("Sub", "relative.distances", keys, queries)

    def _embeddings(self) -> str:
        graph = self.graph
        total = self.table_rows(
            "embeddings.word_embeddings.weight",
            lambda table: graph.op("Gather", "embeddings.words", table, "input_ids"),
        )
        types = self._types() if self._arch.types else None
        positions = self._positions() if self._arch.position_table else None
        if types:
            total = self.add("embeddings.words_and_types", total, types)
        if positions:
            total = self.add("embeddings.sum", total, positions)
        projects = PROJECTION in self._arch.linears()
        if projects and self._arch.norm_after_projection:
            return self._norm("embeddings.LayerNorm", self.linear(PROJECTION, total))
        states = self._norm("embeddings.LayerNorm", total)
        return self.linear(PROJECTION, states) if projects else states

    def _types(self) -> str:
        """Rows by token_type_ids; for a table of one row that row, which all tokens share."""
        return self.table_rows(
            "embeddings.token_type_embeddings.weight",
            lambda table: (
                self.graph.op("Gather", "embeddings.types", table, "token_type_ids") if self._arch.types > 1 else table
            ),
        )

    def _positions(self) -> str:
        """One row per token, padding included."""
        graph, first = self.graph, self._arch.first_position
        length = graph.op("Shape", "embeddings.length", "input_ids", start=1, end=2)

        def pick(table: str) -> str:
            axis = self.integers("zero", [0])
            start = self.integers("embeddings.first_position", [first]) if first else axis
            stop = graph.op("Add", "embeddings.end", length, start) if first else length
            return graph.op("Slice", "embeddings.positions", table, start, stop, axis)

        return self.table_rows("embeddings.position_embeddings.weight", pick)

    def _layer(self, name: str, states: str, mask: str) -> str:
        attended = self._attention(f"{name}.attention", states, mask)
        attended = self.linear(f"{name}.attention.output.dense", attended)
        attended = self.add(f"{name}.attention.output.residual", attended, states)
        attended = self._norm(f"{name}.attention.output.LayerNorm", attended)
        wide = self.linear(f"{name}.intermediate.dense", attended)
        wide = self.activation(f"{name}.intermediate.activation", self._arch.activation, wide)
        narrow = self.linear(f"{name}.output.dense", wide)
        narrow = self.add(f"{name}.output.residual", narrow, attended)
        return self._norm(f"{name}.output.LayerNorm", narrow)

    def _attention(self, name: str, states: str, mask: str) -> str:
        graph = self.graph
        size = self._arch.hidden // self._arch.heads
        split = self.integers("attention.split", [0, 0, self._arch.heads, size])

        def heads(part: str, order: list[int]) -> str:
            projected = self.linear(f"{name}.self.{part}", states)
            apart = graph.op("Reshape", f"{name}.self.{part}.split", projected, split)
            return graph.op("Transpose", f"{name}.self.{part}.transpose", apart, perm=order)

        query, key, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
        return self._attend(name, query, key, value, mask)

    def _attend(self, name: str, query: str, key: str, value: str, mask: str) -> str:
        """query, value: (batch, heads, sequence, width of a head); key with its last two axes swapped. (batch, sequence, hidden)."""
        graph = self.graph
        scores = self.rounded(f"{name}.scores", graph.op("MatMul", f"{name}.scores", query, key))
        scores = self._relative_scores(name, scores, query, key)
        root = self.scalar(
            "attention.root", (self._arch.hidden // self._arch.heads * self._summands) ** 0.5, self.dtype
        )
        scores = self.rounded(f"{name}.scale", graph.op("Div", f"{name}.scale", scores, root))
        scores = self.add(f"{name}.mask", self.full(f"{name}.mask", scores), mask)
        shares = self.narrow(f"{name}.softmax", graph.op("Softmax", f"{name}.softmax", scores, axis=-1))
        shares = self.rounded(f"{name}.softmax", shares)
        context = self.rounded(f"{name}.context", graph.op("MatMul", f"{name}.context", shares, value))
        context = graph.op("Transpose", f"{name}.context.transpose", context, perm=[0, 2, 1, 3])
        return graph.op(
            "Reshape", f"{name}.context.join", context, self.integers("attention.join", [0, 0, self._arch.hidden])
        )

    _summands = 1
    """How many products a score is the sum of."""

    def _relative_scores(self, name: str, scores: str, query: str, key: str) -> str:
        """The scores of a layer's content, with what is added to them."""
        return scores

    def _head(self, states: str) -> None:
        head = self._arch.head
        if head == "embedding":
            self._named_logits(self._pooled("pooling", self.full("pooling", states), self._arch.pooling or "cls"))
            return
        if head == "classification":
            states = self._classified(states)
        if kind := self._arch.pooler:
            states = self.activation(f"pooler.{kind}", kind, self.linear("pooler.dense", states))
            if "pooler.LayerNorm" in self._arch.norms():
                states = self._norm("pooler.LayerNorm", states)
        self._named_logits(self.full("logits", self.linear(HEAD_LINEARS[head], states)))

    def _classified(self, states: str) -> str:
        """(batch, hidden size): what a classifier of sequences reads."""
        if self._arch.head_pooling == "cls":
            return self._pooled("pooler", states, "cls")
        mean = self._pooled("pooler", self.full("pooler.states", states), "mean")
        return self.rounded("pooler.mean", self.narrow("pooler.mean", mean))

    def _named_logits(self, values: str) -> None:
        """Give a tensor, the last node's output, the name of the model's."""
        assert self.graph.nodes[-1].output[0] == values
        self.graph.nodes[-1].output[0] = "logits"

    def _pooled(self, name: str, states: str, pooling: Pooling) -> str:
        """(batch, hidden size) from (batch, sequence, hidden size): the state of the first token, or the mean over real tokens, which
        takes float32."""
        graph = self.graph
        if pooling == "cls":
            return graph.op("Gather", f"{name}.first", states, self.integers("zero.scalar", 0), axis=1)
        mask = graph.op("Cast", f"{name}.mask", "attention_mask", to=TensorProto.FLOAT)
        mask = graph.op("Unsqueeze", f"{name}.weights", mask, self.integers("two", [2]))
        real = graph.op("Mul", f"{name}.real", states, mask)
        total = graph.op("ReduceSum", f"{name}.sum", real, self.integers("one", [1]), keepdims=0)
        count = graph.op("ReduceSum", f"{name}.count", mask, self.integers("one", [1]), keepdims=0)
        return graph.op("Div", f"{name}.mean", total, count)

    def _norm(self, name: str, values: str) -> str:
        return self.layer_norm(name, values, self._arch.epsilon)
