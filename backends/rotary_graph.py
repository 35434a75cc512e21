"""The graph of ModernBERT (Warner et al. 2024, arXiv 2412.13663): LayerNorm before each part, rotated queries and keys, layers that see
a window, a feed-forward part with a gate."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from backends.architecture import QUERY_KEY_VALUE
from backends.encoder_graph import EncoderGraph


class RotaryGraph(EncoderGraph):
    """The graph of one checkpoint in the layout of ModernBERT. States are (batch, sequence, hidden size)."""

    def build(self) -> None:
        rotary = self._arch.rotary
        assert rotary is not None
        mask = self._mask()
        narrow = min((window for window in rotary.windows if window is not None), default=self._arch.positions)
        distances = self._distances() if narrow < self._arch.positions - 1 else ""
        masks: dict[int | None, str] = {None: mask}
        angles: dict[float, tuple[str, str]] = {}
        states = self._embeddings()
        for layer, (theta, window) in enumerate(zip(rotary.thetas, rotary.windows, strict=True)):
            if window not in masks:
                masks[window] = self._windowed(window, distances, mask) if distances else mask
            if theta not in angles:
                angles[theta] = self._angles(theta)
            states = self._rotary_layer(layer, states, masks[window], angles[theta])
        self._head(self._norm("encoder.LayerNorm", states))

    def _windowed(self, window: int | None, distances: str, mask: str) -> str:
        """(batch, 1, sequence, sequence): the mask, and the same number for tokens that are farther away than `window`."""
        graph, name = self.graph, f"mask.window.{window}"
        far = graph.op("Abs", f"{name}.distances", distances)
        far = graph.op("Greater", f"{name}.far", far, self.integers(name, [window]))
        far = graph.op("Cast", f"{name}.cast", far, to=TensorProto.FLOAT)
        far = graph.op("Mul", f"{name}.masked", far, self.scalar("mask.masked", self._masked))
        return graph.op("Min", f"{name}.mask", mask, far)

    def _angles(self, theta: float) -> tuple[str, str]:
        """Cosine and sine of each position's angles, (sequence, half the width of a head), computed in float32."""
        graph, name = self.graph, f"rotary.{theta:g}"
        width = self._arch.hidden // self._arch.heads
        speeds = 1 / np.float32(theta) ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
        length = graph.op("Shape", f"{name}.length", "input_ids", start=1, end=2)
        axis = self.integers("zero", [0])
        steps = graph.constant("rotary.positions", np.arange(self._arch.positions, dtype=np.float32)[:, None])
        steps = graph.op("Slice", f"{name}.positions", steps, axis, length, axis)
        turns = graph.op("Mul", f"{name}.angles", steps, graph.constant(f"{name}.speeds", speeds[None]))
        cosine, sine = (graph.op(part, f"{name}.{part.lower()}", turns) for part in ("Cos", "Sin"))
        return self.narrow(f"{name}.cos", cosine), self.narrow(f"{name}.sin", sine)

    def _rotary_layer(self, layer: int, states: str, mask: str, angles: tuple[str, str]) -> str:
        name, normed = f"encoder.layer.{layer}", states
        if layer:
            normed = self._norm(f"{name}.attention.LayerNorm", states)
        attended = self._rotary_attention(name, normed, mask, angles)
        attended = self.linear(f"{name}.attention.output.dense", attended)
        states = self.add(f"{name}.attention.output.residual", attended, states)
        wide = self.linear(f"{name}.intermediate.dense", self._norm(f"{name}.intermediate.LayerNorm", states))
        values, gate = self.graph.split(f"{name}.intermediate.split", wide, [self._arch.intermediate] * 2, axis=2)
        values = self.activation(f"{name}.intermediate.activation", self._arch.activation, values)
        gated = self.graph.op("Mul", f"{name}.intermediate.gated", values, gate)
        narrow = self.linear(f"{name}.output.dense", self.rounded(f"{name}.intermediate.gated", gated))
        return self.add(f"{name}.output.residual", narrow, states)

    def _rotary_attention(self, layer: str, states: str, mask: str, angles: tuple[str, str]) -> str:
        """(batch, sequence, hidden size). Query and key are rotated in one."""
        graph, heads, name = self.graph, self._arch.heads, f"{layer}.attention"
        width = self._arch.hidden // heads
        apart = self.integers("attention.split", [0, 0, 3 * heads, width])
        joined = graph.op("Reshape", f"{name}.self.split", self.linear(f"{layer}.{QUERY_KEY_VALUE}", states), apart)
        joined = graph.op("Transpose", f"{name}.self.transpose", joined, perm=[0, 2, 1, 3])
        turning, value = graph.split(f"{name}.self.heads", joined, [2 * heads, heads], axis=1)
        turned = self._rotated(f"{name}.rotated", turning, width, angles)
        query, key = graph.split(f"{name}.rotated.heads", turned, [heads, heads], axis=1)
        query, key = self.rounded(f"{name}.rotated_query", query), self.rounded(f"{name}.rotated_key", key)
        key = graph.op("Transpose", f"{name}.self.key.transpose", key, perm=[0, 1, 3, 2])
        return self._attend(name, query, key, value, mask)

    def _rotated(self, name: str, values: str, width: int, angles: tuple[str, str]) -> str:
        """(batch, heads, sequence, width): of each pair of a first-half and a second-half value, the pair turned by its angle."""
        graph, (cosine, sine) = self.graph, angles
        first, second = graph.split(f"{name}.halves", values, [width // 2] * 2, axis=3)

        def times(part: str, half: str, angle: str) -> str:
            return graph.op("Mul", f"{name}.{part}", half, angle)

        left = graph.op("Sub", f"{name}.left", times("first_cos", first, cosine), times("second_sin", second, sine))
        right = graph.op("Add", f"{name}.right", times("second_cos", second, cosine), times("first_sin", first, sine))
        return graph.op("Concat", f"{name}.joined", left, right, axis=3)
