"""The graph of DeBERTa (He et al. 2021, arXiv 2006.03654): BERT's, with scores by relative position."""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.architecture import POSITION_LINEARS, RELATIVE_EMBEDDINGS, Disentangled, RelativePart
from backends.encoder_graph import EncoderGraph

Array = np.ndarray[Any, Any]


def relative_row(distances: Any, how: Disentangled) -> Array:
    """The row of the table of positions for distances from key to query, of any shape: one for each up to half of the span, then by the
    logarithm up to `farthest`. float32, as transformers computes it."""
    rows = np.asarray(distances, np.int64)
    if how.farthest:
        half = how.span // 2
        far = np.where(np.abs(rows) < half, half - 1, np.abs(rows)).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):  # where all distances have rows of their own
            whole = np.log(np.float32((how.farthest - 1) / half))
            steps = np.ceil(np.log(far / np.float32(half)) / whole * np.float32(half - 1)) + half
        rows = np.where(far <= half, rows, steps * np.sign(rows)).astype(np.int64)
    return np.clip(rows + how.span, 0, 2 * how.span - 1)


class DisentangledGraph(EncoderGraph):
    """The graph of one checkpoint whose attention has scores by relative position. What the linear layers make of the table of
    positions is computed here, and stored: it does not depend on a text."""

    def build(self) -> None:
        how = self._arch.disentangled
        assert how is not None
        self._how, self._summands = how, how.summands
        if how.parts:
            self._rows = self._row_of_each_pair()
            self._table = self._positions_normed()
        super().build()

    def _row_of_each_pair(self) -> str:
        """(batch, heads, sequence, sequence), int64: of each query and key, the row of the table."""
        graph, longest = self.graph, self._arch.positions
        row_of = self.integers("relative.rows", relative_row(-np.arange(1 - longest, longest), self._how))
        apart = graph.op("Add", "relative.indices", self._distances(), self.integers("relative.middle", [longest - 1]))
        rows = graph.op("Gather", "relative.picked", row_of, apart, axis=0)
        batch = graph.op("Shape", "relative.batch", "input_ids", start=0, end=1)
        length = graph.op("Shape", "relative.sequence", "input_ids", start=1, end=2)
        sizes = [batch, self.integers("relative.heads", [self._arch.heads]), length, length]
        return graph.op("Expand", "relative.expanded", rows, graph.op("Concat", "relative.shape", *sizes, axis=0))

    def _positions_normed(self) -> Array:
        """The table of positions, (rows, hidden size), after its LayerNorm where it has one."""
        table = self._weights[f"{RELATIVE_EMBEDDINGS}.weight"].astype(np.float64)
        if not self._how.normed:
            return table
        scale, bias = (self._weights[f"{RELATIVE_EMBEDDINGS}.LayerNorm.{part}"] for part in ("weight", "bias"))
        centred = table - table.mean(1, keepdims=True)
        normed: Array = centred / np.sqrt((centred**2).mean(1, keepdims=True) + self._arch.epsilon) * scale + bias
        return normed

    def _relative_scores(self, name: str, scores: str, query: str, key: str) -> str:
        for part in self._how.parts:
            values = self.rounded(f"{name}.{part}", self._scores_of(f"{name}.{part}", part, name, query, key))
            scores = self.add(f"{name}.{part}.sum", scores, values)
        return scores

    def _scores_of(self, at: str, part: RelativePart, name: str, query: str, key: str) -> str:
        """(batch, heads, sequence, sequence). at: of the node of the product with all rows, of which the pairs' own are picked."""
        graph, heads = self.graph, self._arch.heads
        linear = f"{name}.self.{POSITION_LINEARS[part][0 if self._how.shared else 1]}"
        table = self.projected(linear, self._table).reshape(len(self._table), heads, -1).transpose(1, 0, 2)
        if part == "content_to_position":
            positions = graph.constant(f"{at}.positions", table.transpose(0, 2, 1).astype(self.dtype))
            product, axis = graph.op("MatMul", at, query, positions), 3
        else:
            positions = graph.constant(f"{at}.positions", table.astype(self.dtype))
            product, axis = graph.op("MatMul", at, positions, key), 2
        return graph.op("GatherElements", f"{at}.pairs", product, self._rows, axis=axis)
