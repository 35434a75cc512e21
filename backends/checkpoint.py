"""A checkpoint folder: its architecture, and its weights as NumPy arrays by canonical name. Imports no engine, so that the process
of an engine holds that engine only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from backends.architecture import HEAD_LINEARS, TOKEN_CLASSIFIER, Activation, Architecture, Encoder, Head, Pooling
from backends.base import BackendError
from backends.families import FAMILIES, Family, family_names, get_family, untyped_family
from backends.families.generic import generic_family
from backends.model_files import (
    FLOATS,
    SAFETENSORS,
    data_start,
    first_not_finite,
    is_pickled,
    read_float,
    stored_shapes,
    tensor_headers,
    weight_files,
)
from backends.pooling import read_pooling

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "quick_gelu": "quick_gelu",
}
LARGEST = {
    "num_hidden_layers": 1000,
    "hidden_size": 1 << 17,
    "embedding_size": 1 << 17,
    "num_attention_heads": 1 << 12,
    "intermediate_size": 1 << 20,
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
    "type_vocab_size": 1 << 16,
    "relative_buckets": 1 << 16,
    "num_labels": 1 << 20,
}
"""Sizes far above those of any encoder. A damaged or hostile config.json may have greater ones, and who reads it next may make a
list of all layers."""
LARGEST_CONFIG = 16 << 20
HEADS: tuple[Head, ...] = ("question_answering", "classification", "token_classification", "embedding")
_OTHER_HEADS = {
    "ForQuestionAnswering": "question answering",
    "ForSequenceClassification": "sequence classification",
    "ForTokenClassification": "token classification",
    "ForMultipleChoice": "multiple choice",
}
"""How the names of transformers' classes with a task's head end."""


def read_config(checkpoint: Path) -> dict[str, Any]:
    """A folder's config.json. If it has no `model_type` but the keys of a known family, that `model_type` is added. Raises
    BackendError."""
    path = checkpoint / "config.json"
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"it is larger than {LARGEST_CONFIG >> 20} MiB")
        config = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise BackendError(f"{path}: cannot be read ({error}); name a Hugging Face model folder") from None
    if not isinstance(config, dict):
        raise BackendError(f"{path}: holds no JSON object; name a Hugging Face model folder")
    if "model_type" in config:
        return config
    try:
        return config | {"model_type": untyped_family(config).model_type}
    except BackendError as error:
        raise BackendError(f"{path}: {error}") from None


def _short(value: Any) -> str:
    """A value of the file as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read_family(checkpoint: Path) -> Family:
    """The family of a checkpoint folder, or a generic one. Raises BackendError where transformers has no such encoder."""
    return _family(checkpoint / "config.json", read_config(checkpoint))


def _family(path: Path, config: Mapping[str, Any]) -> Family:
    model_type = config["model_type"]
    if not isinstance(model_type, str):
        raise BackendError(f"{path}: model_type is {_short(model_type)}; it must be a name")
    family = get_family(model_type) if model_type in FAMILIES else generic_family(model_type)
    if family is None:
        raise BackendError(f"{path}: {_unknown(model_type, config)}")
    for size, largest in LARGEST.items():
        value = _value(config, family, size)
        if type(value) is int and value > largest:
            raise BackendError(f"{path}: {family.key(size)} is {_short(value)}; the largest that is read is {largest}")
    return family


def _unknown(model_type: object, config: Mapping[str, Any]) -> str:
    """What is wrong with a model that neither we nor transformers know, and what to do."""
    known = ", ".join(family_names())
    fault = f"model_type is {_short(model_type)}, which is no encoder of this transformers"
    if config.get("auto_map"):
        return (
            f"{fault}, and code that comes with a model is never run; name a model of a known family ({known}), or of any"
            " other encoder of transformers"
        )
    if near := get_close_matches(str(model_type), family_names(), 1):
        return f"{fault}; did you mean '{near[0]}'?"
    return f"{fault}; name a model of a known family ({known}), or of any other encoder of transformers"


def read_encoder(checkpoint: Path, pooling: Pooling | None = None) -> Encoder:
    """What a checkpoint folder computes. Raises BackendError unless it is an encoder with a head: for answers to questions, classes
    of a sequence or of its tokens, or, in the layout of sentence-transformers, one vector; and, in a known family, with absolute
    positions. pooling: whatever head the folder has, the encoder gives one vector."""
    path, config = checkpoint / "config.json", read_config(checkpoint)
    family = _family(path, config)
    head: Head = "embedding"
    try:
        if pooling is None:
            pooling = read_pooling(checkpoint)
            head = named_head(config, family, pooling) or _stored_head(checkpoint, family, pooling)
        return encoder_of(config, family, head, pooling)
    except BackendError as error:
        prefix = "" if str(error).startswith(str(checkpoint)) else f"{path}: "
        raise BackendError(f"{prefix}{error}") from None


def read_architecture(checkpoint: Path, pooling: Pooling | None = None) -> Architecture:
    """The same of an encoder of a known family, with its sizes. Raises BackendError for any other, too."""
    family = read_family(checkpoint)
    encoder = None if family.generic else read_encoder(checkpoint, pooling)
    if not isinstance(encoder, Architecture):
        raise BackendError(
            f"{checkpoint / 'config.json'}: model_type is {family.model_type!r}, which is no known family and runs the generic"
            f" way only; take another backend, or a model of a known family ({', '.join(family_names())})"
        )
    return encoder


def encoder_of(config: Mapping[str, Any], family: Family, head: Head, pooling: Pooling | None = None) -> Encoder:
    """What a configuration describes; an Architecture where its family is known. pooling: of an embedding. Raises BackendError,
    naming the key, for what is not supported."""
    if not family.generic:
        return architecture_of(config, family, head, pooling)
    _check_encoder(config)
    return Encoder(
        positions=longest_sequence(config, family),
        head=head,
        labels=_size(config, family, "hidden_size") if head == "embedding" else _labels(config, head),
        pooling=pooling if head == "embedding" else None,
    )


def _check_encoder(config: Mapping[str, Any]) -> None:
    for key in ("is_decoder", "add_cross_attention", "is_encoder_decoder"):
        if config.get(key):
            raise BackendError(f"{key} is true; only encoders are supported")


def _labels(config: Mapping[str, Any], head: Head) -> int:
    labels = len(config["id2label"]) if isinstance(config.get("id2label"), dict) else config.get("num_labels", 2)
    if type(labels) is not int or not 0 < labels <= LARGEST["num_labels"]:
        raise BackendError(f"num_labels is {_short(labels)}; it must be a positive integer")
    if head == "question_answering" and labels != 2:
        raise BackendError(f"a question answering head has 2 outputs (start, end), not {labels}")
    return labels


def architecture_of(
    config: Mapping[str, Any], family: Family, head: Head, pooling: Pooling | None = None
) -> Architecture:
    """The architecture that a configuration of a known family describes. pooling: of an embedding. Raises BackendError, naming the
    key, for one that is not supported."""
    _check_encoder(config)
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise BackendError(
            f"position_embedding_type is {_short(config['position_embedding_type'])}; only 'absolute' is supported"
        )
    activation = _activation(config, family, "hidden_act", _ACTIVATIONS)
    hidden, heads = _size(config, family, "hidden_size"), _size(config, family, "num_attention_heads")
    if hidden % heads:
        raise BackendError(
            f"{family.key('hidden_size')} {hidden} is no multiple of {family.key('num_attention_heads')} {heads}"
        )
    epsilon = _value(config, family, "layer_norm_eps")
    if not isinstance(epsilon, (int, float)) or not 0 < epsilon < 1:
        raise BackendError(f"{family.key('layer_norm_eps')} is {_short(epsilon)}; it must be a small positive number")
    has_width = family.key("embedding_size") in config or "embedding_size" in family.defaults
    layers, positions = _size(config, family, "num_hidden_layers"), longest_sequence(config, family)
    sizes = {"layers": layers, "hidden": hidden, "heads": heads, "positions": positions}
    per_token = head in ("question_answering", "token_classification")
    return Architecture(
        layers=layers,
        hidden=hidden,
        heads=heads,
        intermediate=_size(config, family, "intermediate_size"),
        vocabulary=_size(config, family, "vocab_size"),
        embedding=_size(config, family, "embedding_size") if has_width else hidden,
        positions=positions,
        first_position=_first_position(config, family),
        types=_size(config, family, "type_vocab_size", least=0 if family.defaults.get("type_vocab_size") == 0 else 1),
        epsilon=float(epsilon),
        activation=activation,
        head=head,
        pooler=_pooler(config, family)
        if head == "classification" or (per_token and family.pooler_of_every_head)
        else None,
        labels=hidden if head == "embedding" else _labels(config, head),
        pooling=pooling if head == "embedding" else None,
        relative_buckets=_size(config, family, "relative_buckets") if "relative_buckets" in family.defaults else 0,
        **(family.details(config, sizes) if family.details else {}),
    )


def _activation(config: Mapping[str, Any], family: Family, size: str, known: Mapping[str, Activation]) -> Activation:
    name = _value(config, family, size)
    if not isinstance(name, str) or name not in known:
        raise BackendError(f"{family.key(size)} is {_short(name)}; supported: {', '.join(known)}")
    return known[name]


def _pooler(config: Mapping[str, Any], family: Family) -> Activation | None:
    """The activation of the linear layer before the classifier."""
    if "pooler_act" in family.defaults:
        return _activation(config, family, "pooler_act", {**_ACTIVATIONS, "tanh": "tanh"})
    return family.pooler


def longest_sequence(config: Mapping[str, Any], family: Family) -> int:
    """Tokens of the longest sequence that a model takes. Raises BackendError, naming the key."""
    first = _first_position(config, family)
    return _size(config, family, "max_position_embeddings", least=first + 1) - first


def _first_position(config: Mapping[str, Any], family: Family) -> int:
    if family.positions_after_padding:
        return _size(config, family, "pad_token_id", least=0) + 1
    return family.first_position


def _value(config: Mapping[str, Any], family: Family, size: str) -> Any:
    return config.get(family.key(size), family.defaults.get(size))


def _size(config: Mapping[str, Any], family: Family, size: str, *, least: int = 1) -> int:
    value = _value(config, family, size)
    if type(value) is not int or value < least:
        what = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise BackendError(f"{family.key(size)} is {_short(value)}; it must be {what}")
    return value


def named_head(config: Mapping[str, Any], family: Family, pooling: Pooling | None = None) -> Head | None:
    """The head that `architectures` of config.json names; None for an encoder, and for a head of pretraining, since published
    models often still name the class of the model that they were made from. pooling: of a sentence encoder's folder. Raises
    BackendError for the head of another kind of task."""
    names = config.get("architectures")
    others: list[str] = []
    for name in names if isinstance(names, list) else []:
        for head in HEADS:
            if head != "embedding" and name == family.class_of(head):
                return head
        others += [f"{what} ({name})" for end, what in _OTHER_HEADS.items() if str(name).endswith(end)]
        if pooling and name == family.classes["encoder"]:
            return "embedding"
    if others:
        raise BackendError(
            f"architectures names a head for {others[0]}; fine-tune it (recipe = 'finetune'), or name a model for this kind of task"
        )
    return None


def stored_head(names: Iterable[str], family: Family, pooling: Pooling | None = None) -> Head | None:
    """The head of a model with these stored tensors; None for an encoder alone. pooling: of a sentence encoder's folder."""
    if family.generic:
        return "embedding" if pooling else None
    names = set(names)
    stored = {family.canonical(name) for name in names}
    if "qa_outputs.weight" in stored:
        return "question_answering"
    if {"classifier.weight", *(["pooler.dense.weight"] if family.pooler else [])} <= stored:
        return "classification"
    if f"{family.path(TOKEN_CLASSIFIER)}.weight" in names:
        return "token_classification"
    return "embedding" if pooling else None


def _stored_head(checkpoint: Path, family: Family, pooling: Pooling | None) -> Head:
    if head := stored_head(stored_shapes(_files(checkpoint)), family, pooling):
        return head
    raise BackendError(
        f"{checkpoint}: the model has no head for question answering or sequence classification; fine-tune it first"
    )


def _files(checkpoint: Path) -> list[Path]:
    files = weight_files(checkpoint)
    if not files or is_pickled(files[0]):
        raise BackendError(f"{checkpoint / SAFETENSORS} is missing; save the model with save_pretrained")
    return files


def canonical_names(names: Iterable[str], family: Family, head: Head) -> dict[str | None, str]:
    """Canonical name -> stored name, of the tensors of a model with a head; those of no known module are all at None."""
    own: dict[str, str] = {}
    if linear := HEAD_LINEARS.get(head):  # families may call the linear layers of several heads alike
        own = {str(family.path(f"{linear}.{part}")): f"{linear}.{part}" for part in ("weight", "bias")}
    return {own[name] if name in own else family.canonical(name): name for name in names}


class Weights:
    """The tensors of a checkpoint folder as float32 arrays by canonical name. They are read one at a time, so that a large model is
    never in memory twice. Raises BackendError for tensors that are missing, not finite, or of another shape than config.json
    asks for.
    """

    def __init__(self, checkpoint: Path, architecture: Architecture) -> None:
        family = read_family(checkpoint)
        self._shapes = architecture.tensors()
        self._stored: dict[str | None, tuple[Path, int, str, dict[str, Any]]] = {}
        for file in _files(checkpoint):
            start, headers = data_start(file), tensor_headers(file)
            for canonical, name in canonical_names(headers, family, architecture.head).items():
                self._stored[canonical] = file, start, name, headers[name]
        shapes = {name: tuple(entry["shape"]) for name, (*_, entry) in self._stored.items()}
        if fault := wrong_tensor(shapes, architecture):
            raise BackendError(f"{checkpoint / SAFETENSORS}: {fault}; save both files from the same model")

    def __getitem__(self, name: str) -> Array:
        file, start, stored, entry = self._stored[name]
        if entry["dtype"] not in FLOATS:
            raise BackendError(f"{file}: tensor '{name}' is stored as {entry['dtype']}; store it as a float type")
        values = read_float(file, entry, start)
        import numpy as np

        if not np.isfinite(values).all():
            raise BackendError(_not_finite(file, stored))
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __contains__(self, name: str) -> bool:
        return name in self._shapes


def wrong_tensor(stored: Mapping[str | None, tuple[int, ...]], architecture: Architecture) -> str:
    """What tells that tensors, by canonical name, are not those of an architecture; empty where they are."""
    for name, shape in architecture.tensors().items():
        if name not in stored:
            return f"tensor '{name}' is missing: the folder holds another model than config.json describes"
        if stored[name] != shape:
            return f"tensor '{name}' is {list(stored[name])}, but config.json asks for {list(shape)}"
    return ""


def check_finite(checkpoint: Path) -> None:
    """Read every float tensor of a folder, whatever its head. Raises BackendError for a tensor that is not finite."""
    for file in _files(checkpoint):
        if name := first_not_finite(file):
            raise BackendError(_not_finite(file, name))


def not_finite(file: str, name: str) -> tuple[str, str]:
    """(reason, remedy) for a tensor with values that are not finite: the training diverged, or half precision overflowed."""
    return f"{file}: tensor '{name}' holds values that are not finite", "train or export the model again"


def _not_finite(file: Path, name: str) -> str:
    return "; ".join(not_finite(str(file), name))
