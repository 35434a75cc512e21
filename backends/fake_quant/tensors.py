"""The tensors of a BERT that a scheme quantizes, by name, in order of execution. Imports in milliseconds.

A name is a module's path inside the encoder model and what of it is meant: `.weight`, `.bias`, `.input` or `.output`.
Operators that are no modules have names of their own, the exported graph's: `embeddings.words_and_types`, `embeddings.sum`;
in each layer's `attention` `scores`, `scale`, `mask` (the sum with it), `softmax`, `context` and `output.residual`; in each
layer `intermediate.activation` and `output.residual`; `pooler.tanh`.
"""

from __future__ import annotations

from backends.bert import LINEARS, Head
from backends.fake_quant.schemes import Quantizer, Scheme

EMBEDDINGS = tuple(f"embeddings.{kind}_embeddings" for kind in ("word", "position", "token_type"))


def linear_names(layers: int, head: Head) -> list[str]:
    """Every linear layer, in order of execution."""
    heads = ["qa_outputs"] if head == "question_answering" else ["pooler.dense", "classifier"]
    return [f"encoder.layer.{layer}.{name}" for layer in range(layers) for name in LINEARS] + heads


def weight_names(layers: int, head: Head, scheme: Scheme) -> list[str]:
    """Linear layers whose weight is quantized."""
    names = linear_names(layers, head)
    return [name for name in names if name.startswith("encoder.") or scheme.tensors != "encoder_linears"]


def tensor_names(layers: int, head: Head, scheme: Scheme) -> list[str]:
    """Every tensor that has a range in `ranges.json`."""
    names = [f"{table}.weight" for table in EMBEDDINGS if scheme.embeddings]
    for linear in weight_names(layers, head, scheme):
        names.append(f"{linear}.weight")
        if isinstance(scheme.biases, Quantizer):
            names.append(f"{linear}.bias")
        if scheme.tensors != "op_outputs":
            names.append(f"{linear}.input")
    if scheme.tensors == "op_outputs":
        names += [f"{operator}.output" for operator in operator_names(layers, head, masked=scheme.mask is not None)]
    return names


def operator_names(layers: int, head: Head, *, masked: bool) -> list[str]:
    """Every operator that computes new values. masked: the sum of scores and mask among them."""
    names = ["embeddings.words_and_types", "embeddings.sum", "embeddings.LayerNorm"]
    for layer in range(layers):
        at = f"encoder.layer.{layer}"
        attention = ("scores", "scale", *(["mask"] if masked else []), "softmax", "context")
        names += [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
        names += [f"{at}.attention.{part}" for part in attention]
        names += [f"{at}.attention.output.{part}" for part in ("dense", "residual", "LayerNorm")]
        names += [f"{at}.intermediate.{part}" for part in ("dense", "activation")]
        names += [f"{at}.output.{part}" for part in ("dense", "residual", "LayerNorm")]
    return names + (["qa_outputs"] if head == "question_answering" else ["pooler.dense", "pooler.tanh", "classifier"])


def coverage(layers: int, head: Head, scheme: Scheme) -> tuple[int, int]:
    """How many of a model's tensors the scheme quantizes, and how many it has: tables, weights and biases of linear layers and of
    LayerNorm, and what each operator computes. An input that a scheme rounds is some operator's output."""
    names = tensor_names(layers, head, scheme)
    linears = len(linear_names(layers, head))
    norms = 1 + 2 * layers
    constants = len(EMBEDDINGS) + 2 * linears + 2 * norms
    quantized = len({source(name) for name in names})
    if scheme.biases == "int32":
        quantized += len(weight_names(layers, head, scheme))
    return quantized, constants + len(operator_names(layers, head, masked=True))


def source(name: str) -> str:
    """The tensor that a linear layer's input is: query's for key and value, which read the same one."""
    layer, _, part = name.rpartition(".self.")
    return f"{layer}.self.query.input" if part in ("key.input", "value.input") else name
