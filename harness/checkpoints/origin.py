"""origin.json, which says what a checkpoint was made from and how; and the part of it that records keep."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.plan.spec import CORPUS, CheckpointSpec
from tasks import Task

if TYPE_CHECKING:
    from backends.families import Family
    from harness.records.schema import Checkpoint, Quantization

SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")

TRAINING_FIELDS = (
    "train_seconds",
    "train_device",
    "train_devices",
    "train_threads",
    "train_examples",
    "train_windows",
    "train_steps",
    "train_precision",
    "loss_curve",
    "stages",
    "corpus",
)
"""What origin.json says of a training. A checkpoint that only adds ranges takes it over from its parent."""

RECORDED_FIELDS = (
    "key",
    "recipe",
    "source",
    "stand_in",
    "architecture",
    "parameters",
    "weights_bytes",
    "scheme",
    "parent",
    "made_by",
)
"""What a record takes over from every origin.json."""

RECORDED_TRAINING_FIELDS = (
    "train_seconds",
    "train_device",
    "train_devices",
    "train_threads",
    "train_precision",
    "train_examples",
    "calibration_seconds",
)
"""What a record takes over where the checkpoint was trained or calibrated."""

MADE_WITH = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
"""Distributions whose versions origin.json holds."""

SEALED_FORMAT = 2
"""The format of origin.json since checkpoints have their hashes beside them (`backends.artefacts.SUMS`)."""

WORST_TENSORS = 8
"""How many of the worst quantized tensors a record names."""


def build_origin(
    spec: CheckpointSpec, task: Task | None, folder: Path, parents: Mapping[str, str] | None
) -> dict[str, Any]:
    """The content of origin.json, without that of the training. It holds no path of this machine.

    task: None for a checkpoint on plain text. folder: holds the other files of the checkpoint. parents: what `parent_weights`
    returned before the checkpoint was made.
    """
    from safetensors import safe_open

    from backends.checkpoint import read_family
    from backends.onnx_file import FILE as ONNX_FILE
    from harness.machine import hardware, software

    config = json.loads((folder / "config.json").read_text())
    family = read_family(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        weights = folder / ONNX_FILE
    if task:
        parameters = parameter_count(folder)
    else:
        with safe_open(weights, framework="np") as stored:
            parameters = sum(prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118 (no dict)
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    machine = hardware.describe().as_dict()
    commit, dirty = software.commit()
    source = spec.root.source
    return {
        "format": SEALED_FORMAT,
        "key": spec.key,
        "model": spec.model,
        "task": spec.task,
        "source": _shown_source(source),
        "recipe": spec.recipe,
        "stand_in": source == "scratch" and spec.data.kind == "sample",
        "scheme": spec.scheme,
        "seed": spec.seed,
        "settings": _settings(spec),
        "data": {name: split.label for name, split in task.identity.splits.items()} if task else {},
        "data_sha256": {name: split.sha256 for name, split in task.identity.splits.items()} if task else {},
        "identity": dict(spec.identity or {}),
        "parent": spec.parent.key if spec.parent else None,
        "teacher": spec.teacher.key if spec.teacher else None,
        "architecture": {name: config[family.key(name)] for name in SIZES if family.key(name) in config}
        | _embedding_size(family, config)
        | ({"num_labels": len(config.get("id2label") or task.labels)} if task and task.labels else {}),
        "parameters": parameters,
        "weights_bytes": weights.stat().st_size,
        "weights_sha256": sha256,
        "lineage": {spec.key: sha256} | dict(parents) if parents is not None else {},
        "made_by": {
            "software": software.software(MADE_WITH),
            "machine": {name: machine[name] for name in ("cpu", "cores", "flags", "gpus")},
            "commit": commit,
            "dirty": dirty,
        },
    }


def _embedding_size(family: Family, config: Mapping[str, Any]) -> dict[str, int]:
    """The width of the embedding tables, for families in which it may be another than the encoder's."""
    width = config.get(family.key("embedding_size"), family.defaults.get("embedding_size"))
    return {"embedding_size": width} if width else {}


def _kind_of_layers(folder: Path) -> dict[str, int]:
    """Where layers or heads have more products than BERT's, what the formula of FLOPs needs to know."""
    from backends.architecture import Architecture
    from backends.checkpoint import read_encoder

    encoder = read_encoder(folder)
    if not isinstance(encoder, Architecture):
        return {}
    if how := encoder.disentangled:
        return {"relative_rows": 2 * how.span * len(how.parts)}
    return {"gated": 1, "dense_heads": 1} if encoder.layout == "modernbert" else {}


def _shown_source(source: str) -> str:
    if source.startswith("onnx:"):
        return f"onnx:{Path(source).name}"
    return "a local folder" if source.startswith("/") else source


def _settings(spec: CheckpointSpec) -> dict[str, Any]:
    """The settings of training, calibration and distillation in one table, as a record shows them."""
    tables: list[Any] = [{} if spec.recipe == "ptq" else spec.train, spec.calibration, spec.distill]
    settings = {name: value for table in tables for name, value in (table or {}).items()}
    if augment := settings.get("augment"):
        settings["augment"] = {name: Path(value).name if name == "glove" else value for name, value in augment.items()}
    return settings | {"seed": spec.seed}


def parameter_count(folder: Path) -> int:
    """The parameters that a task's model computes with. A loaded file may hold more: an unused pooler, or another head."""
    from backends.architecture import Architecture
    from backends.checkpoint import read_encoder
    from backends.model_files import stored_shapes, weight_files

    encoder = read_encoder(folder)
    shapes = encoder.tensors() if isinstance(encoder, Architecture) else stored_shapes(weight_files(folder))
    return sum(prod(shape) for shape in shapes.values())


def read_origin(folder: Path) -> dict[str, Any]:
    """The origin.json of a checkpoint's folder. Raises CheckpointError for one that is missing or damaged."""
    try:
        origin: Any = json.loads((folder / "origin.json").read_text())
    except FileNotFoundError:
        fault = "is missing"
    except (OSError, ValueError, RecursionError):
        fault = "cannot be read"
    else:
        if isinstance(origin, dict) and isinstance(origin.get("weights_sha256"), str):
            return origin
        fault = "is not that of a checkpoint"
    raise CheckpointError(f"{folder}: origin.json {fault}; delete the folder, and the next run makes it again")


def lineage_of(origin: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of the weights, by key, of a checkpoint and of all that it was made from or taught by.

    Early versions kept no lineage. Then it is known, and not empty, only for a checkpoint that was made from no other.
    """
    is_first = not origin.get("parent") and not origin.get("teacher")
    lineage: dict[str, str] = origin.get("lineage") or ({origin["key"]: origin["weights_sha256"]} if is_first else {})
    return lineage


def parent_weights(spec: CheckpointSpec, checkpoints: Path) -> dict[str, str] | None:
    """SHA-256 of the weights, by key, of all checkpoints that this one is made from or taught by; None where one is not known.
    A checkpoint that is trained again keeps its key but gets other weights, and children of the old weights are stale."""
    lineages = [lineage_of(read_origin(checkpoints / needed.key)) for needed in spec.needs]
    return {key: weights for lineage in lineages for key, weights in lineage.items()} if all(lineages) else None


def stale_parent(spec: CheckpointSpec, checkpoints: Path) -> tuple[str, str] | None:
    """(reason, remedy) where the checkpoint exists, but one that it was made from has been trained again since."""
    folder = checkpoints / spec.key
    lineage = lineage_of(read_origin(folder)) if folder.is_dir() else {}
    for key, weights in lineage.items():
        parent = read_origin(checkpoints / key) if (checkpoints / key).is_dir() else {"weights_sha256": weights}
        if parent["weights_sha256"] != weights:
            return (
                f"checkpoint {spec.model} ({spec.recipe}) was made from {parent['model']}, which has been trained again since",
                f"delete {folder}; the next run makes it again",
            )
    return None


def content_digest(folder: Path) -> str:
    """What tells checkpoints of the same key apart: the SHA-256 of the weights, and of the ranges where there are some."""
    ranges = folder / "ranges.json"
    ranges_sha256 = hashlib.sha256(ranges.read_bytes()).hexdigest() if ranges.is_file() else ""
    return f"{read_origin(folder)['weights_sha256']} {ranges_sha256}"


def describe_checkpoint(folder: Path) -> Checkpoint:
    """The part of a record that describes a checkpoint, from its folder."""
    from backends.checkpoint import read_family
    from harness.records.schema import Checkpoint

    origin = read_origin(folder)
    fields: dict[str, Any] = {name: origin[name] for name in RECORDED_FIELDS}
    fields |= {name: origin.get(name) for name in RECORDED_TRAINING_FIELDS}
    if origin["task"] != CORPUS:  # early versions counted every tensor of a loaded file
        fields["parameters"] = parameter_count(folder)
        fields["architecture"] = fields["architecture"] | _kind_of_layers(folder)
    return Checkpoint(
        **fields,
        generic=read_family(folder).generic,
        lineage=_recorded_lineage(origin, folder.parent),
        quantization=_quantization(folder) if (folder / "ranges.json").is_file() else None,
        train=origin["settings"],
        stages=origin.get("stages", []),
        corpus=_corpus(origin, folder.parent),
    )


def _recorded_lineage(origin: dict[str, Any], checkpoints: Path) -> dict[str, str]:
    """The checkpoint's lineage. Where an early version kept none, that of its parent serves if only ranges were added."""
    lineage, parent = lineage_of(origin), checkpoints / str(origin.get("parent"))
    if not lineage and origin["recipe"] == "ptq" and (parent / "origin.json").is_file():
        parent_origin = read_origin(parent)
        same_weights = parent_origin["weights_sha256"] == origin["weights_sha256"]
        if same_weights and (parent_lineage := lineage_of(parent_origin)):
            return {origin["key"]: origin["weights_sha256"]} | parent_lineage
    return lineage


def _corpus(origin: dict[str, Any], checkpoints: Path) -> dict[str, Any]:
    """The text that the checkpoint, or the nearest of its parents that are in the cache, was trained on."""
    while not origin.get("corpus") and (checkpoints / str(origin.get("parent")) / "origin.json").is_file():
        origin = read_origin(checkpoints / str(origin["parent"]))
    return origin.get("corpus") or {}


def _quantization(folder: Path) -> Quantization:
    from backends.checkpoint import read_architecture
    from backends.ranges import read_ranges
    from backends.tensor_names import coverage, source
    from harness.records.schema import Quantization

    ranges, architecture = read_ranges(folder), read_architecture(folder)
    quantized, tensors = coverage(architecture, ranges.scheme)
    noise = {name: value for name, value in ranges.calibration.get("sqnr_db", {}).items() if name == source(name)}
    worst = sorted(noise, key=lambda name: noise[name])[:WORST_TENSORS]
    return Quantization(
        tensors=tensors,
        quantized=quantized,
        share=quantized / tensors,
        worst={name: noise[name] for name in worst},
        noise={name: round(value, 1) for name, value in noise.items()},
        notes=list(ranges.calibration.get("notes", [])),
    )
