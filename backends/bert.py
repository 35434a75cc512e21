"""A checkpoint folder as its files describe it: the sizes of a BERT-family encoder, its weights as NumPy arrays, its
products. Imports no engine, so that an engine's process holds that engine only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backends.base import BackendError

Array = np.ndarray[Any, Any]
Activation = Literal["gelu", "gelu_tanh", "relu"]
Head = Literal["question_answering", "classification"]

LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""A layer's linear layers, in order of execution."""

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_HEADS: Mapping[str, Head] = {
    "BertForQuestionAnswering": "question_answering",
    "BertForSequenceClassification": "classification",
}


@dataclass(frozen=True)
class Architecture:
    """Sizes of a BERT encoder and its head. labels: outputs of the head; 2 (start, end) for question answering."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float
    activation: Activation
    head: Head
    labels: int

    def linear_macs(self, name: str, length: int) -> int:
        """Multiply-accumulates of one linear layer for one sequence of `length` tokens; `name` as in `linears`.

        The pooler and a classifier see the first token only."""
        rows, columns = self.linears()[name]
        return rows * columns * (1 if name.startswith(("pooler", "classifier")) else length)

    def total_macs(self, length: int) -> int:
        """Multiply-accumulates of all matrix products for one sequence: linear layers, attention products, the head.

        For the encoder this is layers * (12 H^2 S + 2 S^2 H) when the intermediate size is 4 H.
        """
        linears = sum(self.linear_macs(name, length) for name in self.linears())
        return linears + self.layers * 2 * length * length * self.hidden

    def linears(self) -> dict[str, tuple[int, int]]:
        """Path of every linear layer -> (outputs, inputs), in order of execution; head included."""
        hidden, wide = self.hidden, self.intermediate
        shapes = [(hidden, hidden)] * 4 + [(wide, hidden), (hidden, wide)]
        found = {
            f"encoder.layer.{layer}.{name}": shape
            for layer in range(self.layers)
            for name, shape in zip(LINEARS, shapes, strict=True)
        }
        if self.head == "question_answering":
            return found | {"qa_outputs": (self.labels, hidden)}
        return found | {"pooler.dense": (hidden, hidden), "classifier": (self.labels, hidden)}

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name (without the leading `bert.`) -> shape of every tensor that the architecture needs."""
        hidden = self.hidden
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocabulary, hidden),
            "embeddings.position_embeddings.weight": (self.positions, hidden),
            "embeddings.token_type_embeddings.weight": (self.types, hidden),
        }
        norms = ["embeddings.LayerNorm"]
        for layer in range(self.layers):
            norms += [f"encoder.layer.{layer}.{part}.LayerNorm" for part in ("attention.output", "output")]
        for name in norms:
            shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
        for name, shape in self.linears().items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        return shapes


def read_architecture(checkpoint: Path) -> Architecture:
    """The architecture of a checkpoint folder. Raises BackendError for anything but a BERT encoder with absolute positions
    and a question answering or sequence classification head."""
    path = checkpoint / "config.json"
    config = read_config(checkpoint)
    if config["model_type"] != "bert":
        raise BackendError(f"{path}: model_type is {config['model_type']!r}; only 'bert' encoders are supported")
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise BackendError(f"{path}: {key} is true; only encoders are supported")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise BackendError(
            f"{path}: position_embedding_type is {config['position_embedding_type']!r}; only 'absolute' is supported"
        )
    activation = config.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise BackendError(f"{path}: hidden_act is {activation!r}; supported: {', '.join(_ACTIVATIONS)}")
    head = _head(checkpoint, config)
    sizes = {key: _size(path, config, key, default) for key, default in _SIZES.items()}
    if sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise BackendError(
            f"{path}: hidden_size {sizes['hidden_size']} is no multiple of num_attention_heads"
            f" {sizes['num_attention_heads']}"
        )
    epsilon = config.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, (int, float)) or not 0 < epsilon < 1:
        raise BackendError(f"{path}: layer_norm_eps is {epsilon!r}; it must be a small positive number")
    labels = len(config["id2label"]) if isinstance(config.get("id2label"), dict) else config.get("num_labels", 2)
    if head == "question_answering" and labels != 2:
        raise BackendError(f"{path}: a question answering head has 2 outputs (start, end), not {labels}")
    return Architecture(
        sizes["num_hidden_layers"], sizes["hidden_size"], sizes["num_attention_heads"], sizes["intermediate_size"],
        sizes["vocab_size"], sizes["max_position_embeddings"], sizes["type_vocab_size"],
        float(epsilon), _ACTIVATIONS[activation], head, labels,
    )  # fmt: skip


def read_config(checkpoint: Path) -> dict[str, Any]:
    """A folder's config.json. BERT's first repositories lack `model_type`: what has BERT's sizes, and names no other model as
    its architecture, is completed. Raises BackendError."""
    path = checkpoint / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BackendError(f"{path}: cannot be read ({error}); name a Hugging Face model folder") from None
    if not isinstance(config, dict):
        raise BackendError(f"{path}: holds no JSON object; name a Hugging Face model folder")
    if "model_type" in config:
        return config
    named = all(str(name).startswith("Bert") for name in config.get("architectures") or [])
    if not named or not {"hidden_size", "num_hidden_layers", "type_vocab_size"} <= set(config):
        raise BackendError(f'{path}: has no model_type; where it is a BERT encoder, add "model_type": "bert"')
    return config | {"model_type": "bert"}


def _head(checkpoint: Path, config: Mapping[str, Any]) -> Head:
    """By the configuration, else by the weights: published models often keep the name of their parent's."""
    named = config.get("architectures")
    for name in named if isinstance(named, list) else []:
        if name in _HEADS:
            return _HEADS[name]
    stored = _open(checkpoint / "model.safetensors").keys()
    if "qa_outputs.weight" in stored:
        return "question_answering"
    if "classifier.weight" in stored and "pooler.dense.weight" in (_plain_name(name) for name in stored):
        return "classification"
    raise BackendError(
        f"{checkpoint}: the model has no head for question answering or sequence classification; fine-tune it first"
    )


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise BackendError(f"{path} is missing; save the model in one safetensors file")
    try:
        return safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        raise BackendError(f"{path}: cannot be read ({error}); save the model again") from None


# transformers leaves values that equal its defaults out of some configurations.
_SIZES = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


def _size(path: Path, config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    if type(value) is not int or value < 1:
        raise BackendError(f"{path}: {key} is {value!r}; it must be a positive integer")
    return value


class Weights:
    """The tensors of a checkpoint folder as float32 arrays, read one at a time (a large model is never held twice).

    Tensors stored as float16 or bfloat16 are up-cast. Names are without the leading `bert.`. Raises BackendError for
    tensors that are missing, of another shape than the configuration says, or not finite.
    """

    def __init__(self, checkpoint: Path, architecture: Architecture) -> None:
        self._path = checkpoint / "model.safetensors"
        self._file = _open(self._path)
        self._shapes = architecture.tensors()
        self._stored = {_plain_name(name): name for name in self._file.keys()}  # noqa: SIM118 (it is no mapping)
        for name, shape in self._shapes.items():
            if name not in self._stored:
                raise BackendError(
                    f"{self._path}: tensor '{name}' is missing; the folder holds another model than config.json says"
                )
            found = tuple(self._file.get_slice(self._stored[name]).get_shape())
            if found != shape:
                raise BackendError(
                    f"{self._path}: tensor '{name}' is {list(found)}, but config.json asks for {list(shape)}"
                )

    def __getitem__(self, name: str) -> Array:
        values: Array = self._file.get_tensor(self._stored[name])
        if values.dtype.name not in ("float32", "float16", "bfloat16", "float64"):
            raise BackendError(
                f"{self._path}: tensor '{name}' is stored as {values.dtype.name}; store it as a float type"
            )
        return _finite(self._path, name, values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)


def check_finite(checkpoint: Path) -> None:
    """Read every float tensor of a folder once, whatever its head. Raises BackendError for one that is not finite."""
    path = checkpoint / "model.safetensors"
    file = _open(path)
    for name in file.keys():  # noqa: SIM118 (it is no mapping)
        if file.get_slice(name).get_dtype() in ("F64", "F32", "F16", "BF16"):
            _finite(path, _plain_name(name), file.get_tensor(name))


def _finite(path: Path, name: str, values: Array) -> Array:
    """As float32. What is too large for it is infinite then."""
    with np.errstate(over="ignore"):
        values = np.asarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise BackendError(f"{path}: tensor '{name}' holds values that are not finite; train or export the model again")
    return values


def _plain_name(name: str) -> str:
    """Checkpoints converted from TensorFlow call LayerNorm's weight and bias gamma and beta, as transformers knows too."""
    name = name.removeprefix("bert.")
    if name.endswith((".gamma", ".beta")):
        name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
    return name
