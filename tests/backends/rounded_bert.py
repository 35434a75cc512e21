"""BERT in NumPy and float64, with every tensor that `ranges.json` names rounded to its grid: a second implementation of schemes,
which reads nothing but the files of the checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

Array = np.ndarray[Any, Any]


class RoundedBert:
    """The model of a checkpoint folder with ranges. Quantization divides by the scale, as in ONNX; ties are rounded as each tensor's
    `rounding` says."""

    def __init__(self, folder: Path) -> None:
        stored = load_file(folder / "model.safetensors")
        self._weights = {name.removeprefix("bert."): value.astype(np.float64) for name, value in stored.items()}
        self._file = json.loads((folder / "ranges.json").read_text())
        self._config = json.loads((folder / "config.json").read_text())

    def on_grid(self, values: Array, name: str) -> Array:
        """values rounded to the grid of that name; unchanged if the file has none."""
        if name not in self._file["tensors"]:
            return values
        tensor = self._file["tensors"][name]
        shape = (-1,) + (1,) * (values.ndim - 1) if tensor["axis"] == 0 else (1,)
        scale, zero = (np.array(tensor[key], np.float64).reshape(shape) for key in ("scale", "zero_point"))
        steps = values / scale
        rounded = np.rint(steps) if tensor["rounding"] == "half_even" else np.floor(steps + 0.5)
        lowest = -127 if tensor["narrow"] else -128
        return np.asarray((np.clip(rounded + zero, lowest, 127) - zero) * scale)

    def bias(self, name: str) -> Array:
        bias = self._weights[f"{name}.bias"]
        tensors, kind = self._file["tensors"], self._file["scheme"].get("biases")
        if kind == "int32" and f"{name}.weight" in tensors:
            scale = np.array(tensors[f"{name}.weight"]["scale"]) * tensors[f"{name}.input"]["scale"]
            return np.asarray(np.rint(bias / scale) * scale)
        return self.on_grid(bias, f"{name}.bias")

    def linear(self, values: Array, name: str) -> Array:
        weight = self.on_grid(self._weights[f"{name}.weight"], f"{name}.weight")
        product = self.on_grid(values, f"{name}.input") @ weight.T + self.bias(name)
        return self.on_grid(product, f"{name}.output")

    def norm(self, values: Array, name: str) -> Array:
        centred = values - values.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self._config["layer_norm_eps"])
        return self.on_grid(unit * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"], f"{name}.output")

    def table(self, name: str) -> Array:
        return self.on_grid(self._weights[f"embeddings.{name}.weight"], f"embeddings.{name}.weight")

    def attention(self, values: Array, mask: Array, at: str) -> Array:
        heads = self._config["num_attention_heads"]

        def split(part: str) -> Array:
            return self.linear(values, f"{at}.self.{part}").reshape(*values.shape[:2], heads, -1).transpose(0, 2, 1, 3)

        query, key, value = split("query"), split("key"), split("value")
        scores = self.on_grid(query @ key.transpose(0, 1, 3, 2), f"{at}.scores.output")
        scores = self.on_grid(scores / math.sqrt(query.shape[-1]), f"{at}.scale.output")
        lowest = self._file["scheme"].get("mask") or -np.inf
        scores = self.on_grid(scores + np.where(mask[:, None, None] == 1, 0.0, lowest), f"{at}.mask.output")
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares = self.on_grid(shares / shares.sum(-1, keepdims=True), f"{at}.softmax.output")
        return self.on_grid((shares @ value).transpose(0, 2, 1, 3).reshape(values.shape), f"{at}.context.output")

    def layer(self, states: Array, mask: Array, at: str) -> Array:
        attended = self.linear(self.attention(states, mask, f"{at}.attention"), f"{at}.attention.output.dense")
        total = self.on_grid(attended + states, f"{at}.attention.output.residual.output")
        states = self.norm(total, f"{at}.attention.output.LayerNorm")
        wide = self.linear(states, f"{at}.intermediate.dense")
        wide = wide / 2 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        wide = self.on_grid(wide, f"{at}.intermediate.activation.output")
        total = self.on_grid(self.linear(wide, f"{at}.output.dense") + states, f"{at}.output.residual.output")
        return self.norm(total, f"{at}.output.LayerNorm")

    def logits(self, batch: Mapping[str, Array]) -> Array:
        """(batch, length, 2) or (batch, labels), float64."""
        length = batch["input_ids"].shape[1]
        total = self.table("word_embeddings")[batch["input_ids"]]
        total = total + self.table("token_type_embeddings")[batch["token_type_ids"]]
        total = self.on_grid(total, "embeddings.words_and_types.output")
        total = self.on_grid(total + self.table("position_embeddings")[:length], "embeddings.sum.output")
        states = self.norm(total, "embeddings.LayerNorm")
        for layer in range(self._config["num_hidden_layers"]):
            states = self.layer(states, batch["attention_mask"], f"encoder.layer.{layer}")
        if "qa_outputs.weight" in self._weights:
            return self.linear(states, "qa_outputs")
        pooled = self.on_grid(np.tanh(self.linear(states[:, 0], "pooler.dense")), "pooler.tanh.output")
        return self.linear(pooled, "classifier")
