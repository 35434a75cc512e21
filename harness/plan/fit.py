"""Whether a model's files fit a task: what `run` would refuse, `plan` says first. Reads files only, and imports no engine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from backends import BackendError
from backends.architecture import Architecture, Head
from backends.checkpoint import (
    canonical_names,
    encoder_of,
    longest_sequence,
    named_head,
    not_finite,
    read_config,
    read_family,
    stored_head,
    wrong_tensor,
)
from backends.families import Family, family_names
from backends.families.generic import NOTE, why_no_graph, why_refused
from backends.model_files import clean_names, first_not_finite, is_pickled, pickle_fault, stored_shapes, weight_files
from backends.pooling import read_pooling
from backends.schemes import get_scheme
from backends.tensor_names import weight_names
from harness.machine import paths
from harness.machine.digests import digest, file_hash, read_text
from harness.plan.heads import HEADS
from harness.plan.spec import Blocked
from harness.suite.train import own_attention, unlike_layers
from tasks import Shape, TaskError
from tasks.base import Kind
from tasks.class_names import output_classes, output_tags
from tasks.definitions import Definition

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "spm.model")
"""A model folder must have at least one of these."""

FINETUNE = "fine-tune it (recipe = 'finetune')"
ELSEWHERE = "fine-tune it with transformers and load the result"
"""The same of a model whose family is not known here."""
UNNAMED = "LABEL_"
"""How transformers calls the classes of a model whose author gave them no names: LABEL_0, LABEL_1 ..."""

_PROBLEMS: Mapping[str, tuple[Kind, str]] = {
    "regression": ("regression", "a score"),
    "single_label_classification": ("classification", "one class of several"),
    "multi_label_classification": ("multi_label", "any number of classes"),
}


@dataclass(frozen=True)
class Wanted:
    """What a task needs of a model. kind: None where it is not known. definition: None for an installed package's task."""

    task: str
    kind: Kind | None
    definition: Definition | None
    shape: Shape


class _Fault(Exception):
    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def why_unfit(folder: Path, wanted: Wanted, *, loads: bool, labels: Sequence[str] = ()) -> Blocked:
    """Why a folder's model cannot be used for a task, and what to do.

    loads: the weights are used as they are, so that head and classes must be the task's. labels: names of the model's classes
    that replace those in its config.json.
    """
    try:
        _check(folder, wanted, loads, labels)
    except _Fault as fault:
        return fault.reason, fault.remedy if not unknown_family(folder) else fault.remedy.replace(FINETUNE, ELSEWHERE)
    except BackendError as error:
        text = str(error).replace(f"{folder}/", "")
        named = re.match(r"[\w.-]+\.(json|safetensors|bin)\b", text)  # else it is of the configuration
        reason, _, remedy = (text if named else f"config.json: {text}").partition("; ")
        return reason, remedy or "use another model"
    return None


def _check(folder: Path, wanted: Wanted, loads: bool, labels: Sequence[str]) -> None:
    config, family = read_config(folder), read_family(folder)
    if family.generic and not loads:
        raise _Fault(_untrained(family), ELSEWHERE)
    if family.generic and (refused := why_refused(config, wanted.shape.max_length)):
        raise _Fault(*refused)
    files = weight_files(folder)
    shapes = {} if not files or is_pickled(files[0]) else _clean(stored_shapes(files))
    pooling = read_pooling(folder)
    head: Head | None = None
    if loads and wanted.kind == "similarity":  # of any model the encoder
        head, pooling = "embedding", pooling or "mean"
    elif loads:
        head = named_head(config, family, pooling)
    if loads and not head and shapes:
        head = stored_head(shapes, family, pooling)
        if head is None:
            raise _Fault("it is an encoder without a head for a task", FINETUNE)
    if loads and not head and not files:
        raise _Fault(
            "config.json names no class of a model with a head in architectures", "copy the model's own config.json"
        )
    if loads and head:
        _check_head(head, config, wanted)
        _check_classes(config, wanted, labels)
    if loads and (made_for := _task_in_origin(folder)) not in (None, wanted.task):
        raise _Fault(f"its origin.json says that it was made for {made_for}", FINETUNE)
    _check_sizes(config, family, wanted.shape)
    head = head or "embedding"  # of a model that is to be trained, the encoder
    encoder = encoder_of(config, family, head, pooling or "mean")
    canonical = {new: shapes[old] for new, old in canonical_names(shapes, family, head).items()}
    if shapes and isinstance(encoder, Architecture) and (fault := wrong_tensor(canonical, encoder)):
        raise _Fault(f"{files[0].name}: {fault}", "save config.json and the weights from the same model")
    _check_tokenizer(folder, config, family)
    for file in files:
        if is_pickled(file):
            if unread := _remembered(file, "pickle", partial(pickle_fault, file)):
                raise _Fault(*f"{file.name}: {unread}".split("; "))
        elif name := _remembered(file, "not finite", partial(first_not_finite, file)):
            raise _Fault(*not_finite(file.name, name))


def _clean(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    names = clean_names(shapes)
    return {names[name]: shape for name, shape in shapes.items()}


def _check_head(head: Head, config: Mapping[str, Any], wanted: Wanted) -> None:
    if wanted.kind is None:
        return
    needed = HEADS[wanted.kind]
    if head != needed:
        raise _Fault(
            f"it has a head for {head.replace('_', ' ')}, and the task needs one for {needed.replace('_', ' ')}",
            f"{FINETUNE}, or name a model that was made for such a task",
        )
    kind, what = _PROBLEMS.get(str(config.get("problem_type")), (wanted.kind, ""))
    if kind != wanted.kind:
        raise _Fault(
            f"its config.json says problem_type {config['problem_type']!r}: it answers with {what}",
            f"{FINETUNE}, or use it for a task of kind '{kind}'",
        )


def _check_classes(config: Mapping[str, Any], wanted: Wanted, labels: Sequence[str]) -> None:
    definition = wanted.definition
    if definition is None or wanted.kind in (None, "question_answering", "similarity"):
        return
    names = tuple(labels) or class_names(config)
    if wanted.kind != "token_classification" and len(names) != len(definition.labels):
        raise _Fault(
            f"it has {len(names)} outputs, and the task {len(definition.labels)} ({', '.join(definition.labels)[:200]})",
            f"{FINETUNE}, or load a model that was fine-tuned on {wanted.task}",
        )
    if wanted.kind == "regression":
        return
    try:
        (output_tags if wanted.kind == "token_classification" else output_classes)(definition, names)
    except TaskError:
        order = ", ".join(f'"{label}"' for label in definition.labels)
        if is_unnamed(names):
            raise _Fault(
                f"it calls its classes {', '.join(names)[:100]}, which says nothing of the order",
                f"name them in the order of its outputs, such as labels = [{order}] in the model's table (with pick: --labels)",
            ) from None
        raise _Fault(
            f"it calls its classes {', '.join(names)[:200]}, which are not the task's {', '.join(definition.labels)[:200]}",
            f"load a model that was fine-tuned on {wanted.task}, {FINETUNE}, or if they are the same classes in other words,"
            f" name them in the order of its outputs: labels = [{order}]",
        ) from None


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """A configuration's names of its outputs, in their order. Raises BackendError where `id2label` does not name 0, 1 ..."""
    if "id2label" not in config:
        return tuple(f"{UNNAMED}{number}" for number in range(config.get("num_labels", 2)))
    id2label = config["id2label"]
    numbers = [str(number) for number in range(len(id2label))] if isinstance(id2label, dict) else []
    if not numbers or set(id2label) != set(numbers) or not all(isinstance(name, str) for name in id2label.values()):
        raise _Fault(
            f"config.json: id2label is {json.dumps(id2label)[:200]}",
            'it must name every class by its number, as {"0": "negative", "1": "positive"}',
        )
    return tuple(id2label[number] for number in numbers)


def has_unnamed_classes(folder: Path) -> bool:
    """Whether the author of a folder's model gave its classes no names."""
    try:
        return is_unnamed(class_names(read_config(folder)))
    except (BackendError, _Fault):
        return False


def is_unnamed(names: Sequence[str]) -> bool:
    """Whether these are the names that transformers gives where the author gave none."""
    return tuple(names) == tuple(f"{UNNAMED}{number}" for number in range(len(names)))


def _task_in_origin(folder: Path) -> str | None:
    """The task of a checkpoint that Quantboard made: its classes may have the names of another task's. None of any other
    folder."""
    try:
        name = json.loads((folder / "origin.json").read_text())["task"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


def _check_sizes(config: Mapping[str, Any], family: Family, shape: Shape) -> None:
    positions = longest_sequence(config, family)
    if shape.max_length > positions:
        raise _Fault(
            f"shape.max_length {shape.max_length} is more than its {positions} positions",
            f"lower shape.max_length to {positions} or name another source",
        )


def _check_tokenizer(folder: Path, config: Mapping[str, Any], family: Family) -> None:
    present = [folder / name for name in VOCABULARIES if (folder / name).is_file()]
    if not present:
        raise _Fault("there is no tokenizer.json or vocab.txt", "save the tokenizer beside the model")
    if present[0].suffix == ".model" and find_spec("sentencepiece") is None:
        raise _Fault(
            f"its tokenizer is {present[0].name}, and the package that reads it is not installed",
            "python -m pip install sentencepiece, or save the tokenizer as tokenizer.json",
        )
    count = _remembered(present[0], "tokens", lambda: _token_count(present[0]))
    if count is None:
        raise _Fault(f"{present[0].name} cannot be read", "save the tokenizer again")
    vocabulary = config.get(family.key("vocab_size"), family.defaults.get("vocab_size"))
    if isinstance(vocabulary, int) and int(count) > vocabulary:
        raise _Fault(
            f"the tokenizer has {int(count):,} tokens, but the model only {vocabulary:,}",
            "use the model's own tokenizer",
        )


def _token_count(file: Path) -> str | None:
    """The tokens of a vocabulary file; 0 where its form is not read here; None where it is broken."""
    try:
        if file.name == "vocab.txt":
            return str(sum(1 for line in file.read_bytes().splitlines() if line))
        if file.name != "tokenizer.json":
            return "0"
        content = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        unigram = isinstance(vocabulary, list)
        tokens = {entry[0] for entry in vocabulary} if unigram else set(vocabulary)
        return str(len(tokens | {token["content"] for token in content.get("added_tokens") or ()}))
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def _remembered(file: Path, what: str, compute: Callable[[], str | None]) -> str | None:
    """What `compute` finds in a file, from the cache where the same content was read before."""
    cached = paths.cache() / "hashes" / digest(["fit 1", what, file_hash(file)])
    if (known := read_text(cached)) is not None:
        return known or None
    found = compute()
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_text(found or "")
    except OSError:
        pass  # a full or read-only cache: the file is read again next time
    return found


def why_not_trained(folder: Path, *, scores: bool = False, kept: bool = False) -> Blocked:
    """Why a folder's model can be no parent, teacher or student of a training. scores: its attention scores are learnt from. kept: some
    of its layers are kept."""
    try:
        family = read_family(folder)
    except BackendError:
        return None  # said where the model is looked up
    if family.generic:
        return _untrained(family), _of_a_family()
    if scores and family.own_attention:
        return own_attention(family.model_type)
    if (scores or kept) and not family.layers_alike:
        return unlike_layers(family.model_type, kept=kept and not scores)
    return None


def _of_a_family() -> str:
    return f"name a model of a known family: {', '.join(family_names())}"


def _untrained(family: Family) -> str:
    return f"{family.model_type!r} is no model family that is trained here"


def why_scheme_unfit(folder: Path, scheme: str, kind: Kind, *, linears_only: bool = False) -> Blocked:
    """Why a folder's model cannot be quantized so: the scheme names a layer that the model does not have, or what its kind of
    attention cannot have. linears_only: as the backend has it."""
    from backends.torch_int8 import NO_POSITIONS

    chosen = get_scheme(scheme)
    try:
        config, family = read_config(folder) | {"id2label": {"0": "", "1": ""}}, read_family(folder)
        encoder = encoder_of(config, family, HEADS[kind], "mean")
        if isinstance(encoder, Architecture):
            weight_names(encoder, chosen)
            if linears_only and encoder.disentangled:
                return NO_POSITIONS
    except BackendError as error:
        reason, _, remedy = str(error).partition("; ")
        return reason, remedy or "use another model"
    return None


def why_no_masked_lm(folder: Path) -> Blocked:
    """Why a folder's model cannot propose words for masked tokens."""
    try:
        family, files = read_family(folder), weight_files(folder)
        if family.generic:
            return _untrained(family), _of_a_family()
        names = [] if not files or is_pickled(files[0]) else _clean(stored_shapes(files))
    except BackendError as error:
        reason, _, remedy = str(error).replace(f"{folder}/", "").partition("; ")
        return reason, remedy or "use another model"
    if names and not any(name.startswith(f"{family.masked_lm[-1]}.") for name in names):
        return "it has no head that predicts masked tokens", "name a masked language model, or give augment.train"
    return None


def unknown_family(folder: Path) -> str:
    """The `model_type` of a folder whose model runs the generic way only; empty where its family is known, or cannot be read."""
    try:
        family = read_family(folder)
    except BackendError:
        return ""
    return family.model_type if family.generic else ""


def notes_on(folder: Path) -> list[str]:
    """What a user should know of a folder's files although they can be used."""
    model_type = unknown_family(folder)
    why = why_no_graph(model_type)
    runs = [f"{model_type!r} is no family known here: it runs {NOTE}"] if model_type else []
    return [*runs, *([why] if why else []), *_casing(folder)]


def _casing(folder: Path) -> list[str]:
    vocabulary = folder / "vocab.txt"
    if (folder / "tokenizer.json").is_file() or not vocabulary.is_file():
        return []
    try:
        settings = json.loads(read_text(folder / "tokenizer_config.json") or "{}")
        if "do_lower_case" in settings:
            return []
        tokens = [line for line in vocabulary.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError, RecursionError, TypeError):
        return []
    capitals = sum(token != token.lower() and not (token[0] == "[" and token[-1] == "]") for token in tokens)
    if not capitals:
        return []
    return [
        f"vocab.txt: {capitals} of its {len(tokens)} tokens have capitals, but nothing says that the tokenizer keeps them, so"
        ' text is lower-cased; if the model is cased, write {"do_lower_case": false} to tokenizer_config.json'
    ]
