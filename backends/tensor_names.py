"""The tensors of an encoder that a scheme quantizes, by canonical name, in order of execution. Imports in milliseconds.

A name is a module's and one of `.weight`, `.bias`, `.input`, `.output`. Operators that are no modules have the names of their
nodes in the exported graph:

- `embeddings.words_and_types`, `embeddings.sum`
- in `attention` of each layer `scores`, `scale`, `mask` (the sum of scores and mask), `softmax`, `context`, `output.residual`
- in each layer `intermediate.activation`, `output.residual`
- `pooler.tanh`, or the pooler's other activation

ModernBERT has besides in `attention` of each layer `rotated_query` and `rotated_key`, in each layer `intermediate.gated`, and for a
classifier that reads the mean of all states `pooler.mean`. DeBERTa has in `attention` of each layer `content_to_position` and
`position_to_content`, and `.sum` of each: the scores with them.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from backends.architecture import HEAD_LINEARS, PROJECTION, QUERY_KEY_VALUE, Architecture
from backends.base import BackendError
from backends.schemes import Quantizer, Scheme


def weight_names(architecture: Architecture, scheme: Scheme) -> list[str]:
    """The linear layers whose weight is quantized. Raises BackendError for a pattern of the scheme's that no layer
    has, and for adjustments of a model whose linear layers read more than tokens."""
    if architecture.disentangled and (scheme.smoothing or scheme.bias_correction):
        raise BackendError(
            "smoothing and bias_correction: a model with attention by relative position, as DeBERTa has it, cannot have them; leave"
            " them out of the scheme"
        )
    names = list(architecture.linears())
    kept: set[str] = set()
    for pattern in scheme.keep_float:
        matched = {_shared(name) for name in names if fnmatchcase(name, pattern)}
        if not matched:
            raise BackendError(
                f"keep_float: no linear layer is called '{pattern}'; there are {', '.join(names[:6])} ... {names[-1]}"
            )
        kept |= matched
    return [
        name
        for name in names
        if (name.startswith("encoder.") or scheme.tensors != "encoder_linears") and _shared(name) not in kept
    ]


def _shared(name: str) -> str:
    """One name for query, key and value of a layer, whose input is one tensor."""
    layer, is_shared, _ = name.partition(".self.")
    return f"{layer}.self" if is_shared else name


def tensor_names(architecture: Architecture, scheme: Scheme) -> list[str]:
    """Every tensor that has a range in `ranges.json`."""
    names = [f"{table}.weight" for table in architecture.tables() if scheme.embeddings]
    for linear in weight_names(architecture, scheme):
        names.append(f"{linear}.weight")
        if isinstance(scheme.biases, Quantizer) and architecture.has_bias(linear):
            names.append(f"{linear}.bias")
        if scheme.tensors != "op_outputs":
            names.append(f"{linear}.input")
    if scheme.tensors == "op_outputs":
        names += [f"{operator}.output" for operator in operator_names(architecture, masked=scheme.mask is not None)]
    return names


def operator_names(architecture: Architecture, *, masked: bool) -> list[str]:
    """Every operator that computes new values. masked: the sum of scores and mask is among them."""
    names = ["embeddings.words_and_types"] if architecture.types else []
    if architecture.position_table:
        names.append("embeddings.sum")
    end = ["embeddings.LayerNorm", *([PROJECTION] if PROJECTION in architecture.linears() else [])]
    names += reversed(end) if architecture.norm_after_projection else end
    for layer in range(architecture.layers):
        names += _operators_of_layer(architecture, layer, masked)
    if architecture.layout == "modernbert":
        names.append("encoder.LayerNorm")
    if architecture.head == "embedding":
        return names
    if architecture.head == "classification" and architecture.head_pooling == "mean":
        names.append("pooler.mean")
    pooler = ["pooler.dense", f"pooler.{architecture.pooler}", "pooler.LayerNorm"] if architecture.pooler else []
    norms = architecture.norms()
    names += [name for name in pooler if name != "pooler.LayerNorm" or name in norms]
    return [*names, HEAD_LINEARS[architecture.head]]


def _operators_of_layer(architecture: Architecture, layer: int, masked: bool) -> list[str]:
    parts = architecture.disentangled.parts if architecture.disentangled else ()
    relative = [f"{part}{end}" for part in parts for end in ("", ".sum")]
    attention = ("scores", *relative, "scale", *(["mask"] if masked else []), "softmax", "context")
    if architecture.layout == "modernbert":
        names = ["attention.LayerNorm"] if layer else []
        names += [QUERY_KEY_VALUE, *(f"attention.{part}" for part in ("rotated_query", "rotated_key", *attention))]
        names += ["attention.output.dense", "attention.output.residual", "intermediate.LayerNorm"]
        names += [f"intermediate.{part}" for part in ("dense", "activation", "gated")]
        names += ["output.dense", "output.residual"]
    else:
        names = [f"attention.self.{part}" for part in ("query", "key", "value")]
        names += [f"attention.{part}" for part in attention]
        names += [f"attention.output.{part}" for part in ("dense", "residual", "LayerNorm")]
        names += [f"intermediate.{part}" for part in ("dense", "activation")]
        names += [f"output.{part}" for part in ("dense", "residual", "LayerNorm")]
    return [f"encoder.layer.{layer}.{name}" for name in names]


def coverage(architecture: Architecture, scheme: Scheme) -> tuple[int, int]:
    """How many of a model's tensors the scheme quantizes, and how many there are: tables, weights and biases of linear layers and of
    LayerNorm, and the outputs of operators. A quantized input counts as the operator's output that it is."""
    quantized = len({source(name) for name in tensor_names(architecture, scheme)})
    if scheme.biases == "int32":
        quantized += sum(map(architecture.has_bias, weight_names(architecture, scheme)))
    return quantized, len(architecture.tensors()) + len(operator_names(architecture, masked=True))


def source(name: str) -> str:
    """The name under which a tensor is calibrated: query's input for the inputs of key and value, which are the same tensor."""
    layer, _, part = name.rpartition(".self.")
    return f"{layer}.self.query.input" if part in ("key.input", "value.input") else name
