"""origin.json: what made a checkpoint, and a checkpoint as a record keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.plan.spec import CORPUS, CheckpointSpec
from tasks import Task

if TYPE_CHECKING:
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
"""What origin.json says of a training; a checkpoint that only adds ranges inherits it."""


MADE_WITH = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
"""Distributions whose versions are kept with a checkpoint."""


WORST = 8
"""Tensors that a record names as the worst quantized."""


def origin(spec: CheckpointSpec, task: Task | None, folder: Path, before: Mapping[str, str] | None) -> dict[str, Any]:
    """What made the checkpoint; names no folder of the machine. before: `parent_weights` of what it was made from."""
    from math import prod

    from safetensors import safe_open

    from harness.machine import hardware, software

    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    if task:
        parameters = parameters_of(folder)
    else:
        with safe_open(weights, framework="np") as stored:
            parameters = sum(prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118 (no dict)
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    machine = hardware.describe().as_dict()
    commit, dirty = software.commit()
    return {
        "format": 1,
        "key": spec.key,
        "model": spec.model,
        "task": spec.task,
        "source": "a local folder" if root(spec).source.startswith("/") else root(spec).source,
        "recipe": spec.recipe,
        "stand_in": root(spec).source == "scratch" and spec.data.kind == "sample",
        "scheme": spec.scheme,
        "seed": spec.seed,
        "settings": _settings(spec),
        "data": {name: split.label for name, split in task.identity.splits.items()} if task else {},
        "data_sha256": {name: split.sha256 for name, split in task.identity.splits.items()} if task else {},
        "identity": dict(spec.identity or {}),
        "parent": spec.parent.key if spec.parent else None,
        "teacher": spec.teacher.key if spec.teacher else None,
        "architecture": {name: config[name] for name in SIZES if name in config}
        | ({"num_labels": len(task.labels)} if task and task.labels else {}),
        "parameters": parameters,
        "weights_bytes": weights.stat().st_size,
        "weights_sha256": sha256,
        "lineage": {spec.key: sha256} | dict(before) if before is not None else {},
        "made_by": {
            "software": software.software(MADE_WITH),
            "machine": {name: machine[name] for name in ("cpu", "cores", "flags", "gpus")},
            "commit": commit,
            "dirty": dirty,
        },
    }


def parameters_of(folder: Path) -> int:
    """What a task's model computes with: a file that was loaded may hold more, an unused pooler or another head."""
    from math import prod

    from backends.checkpoint import read_architecture

    return sum(prod(shape) for shape in read_architecture(folder).tensors().values())


def parent_weights(spec: CheckpointSpec, checkpoints: Path) -> dict[str, str] | None:
    """Weights (SHA-256), by checkpoint keys, of all that it is made from or taught by; None where that of one of them is not
    known. A checkpoint that is trained anew keeps its key, not its weights, and what was made from the old ones is no kin of
    the new."""
    before = [lineage_of(read_origin(checkpoints / one.key)) for one in spec.needs]
    return {key: value for one in before for key, value in one.items()} if all(before) else None


def lineage_of(origin: dict[str, Any]) -> dict[str, str]:
    """Of a checkpoint of before lineages were kept its own weights, if it was made from no other; else nothing."""
    alone = not origin.get("parent") and not origin.get("teacher")
    kept: dict[str, str] = origin.get("lineage") or ({origin["key"]: origin["weights_sha256"]} if alone else {})
    return kept


def read_origin(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "origin.json").read_text())
    return found


def stale_parent(spec: CheckpointSpec, checkpoints: Path) -> tuple[str, str] | None:
    """What to say, and the remedy, of a checkpoint that is there but comes of another training of one that is there too."""
    folder = checkpoints / spec.key
    kept = lineage_of(read_origin(folder)) if folder.is_dir() else {}
    for key, weights in kept.items():
        there = read_origin(checkpoints / key) if (checkpoints / key).is_dir() else {"weights_sha256": weights}
        if there["weights_sha256"] != weights:
            return (
                f"checkpoint {spec.model} ({spec.recipe}) comes of another training of {there['model']} than the one that is there",
                f"delete {folder} and it is made anew",
            )
    return None


def content(folder: Path) -> str:
    """What tells a checkpoint from another of its key: its weights, and its ranges where it has some."""
    ranges = folder / "ranges.json"
    of_ranges = hashlib.sha256(ranges.read_bytes()).hexdigest() if ranges.is_file() else ""
    return f"{read_origin(folder)['weights_sha256']} {of_ranges}"


def _settings(spec: CheckpointSpec) -> dict[str, Any]:
    """Of making it, as one table: a record shows them so."""
    parts: list[Any] = [{} if spec.recipe == "ptq" else spec.train, spec.calibration, spec.distill]
    found = {name: value for part in parts for name, value in (part or {}).items()}
    if augment := found.get("augment"):
        found["augment"] = {name: Path(value).name if name == "glove" else value for name, value in augment.items()}
    return found | {"seed": spec.seed}


def root(spec: CheckpointSpec) -> CheckpointSpec:
    return root(spec.parent) if spec.parent else spec


def describe(folder: Path) -> Checkpoint:
    """A checkpoint folder as a record keeps it."""
    from harness.records.schema import Checkpoint

    origin = read_origin(folder)
    lineage, parent = lineage_of(origin), folder.parent / str(origin.get("parent"))
    if not lineage and origin["recipe"] == "ptq" and (parent / "origin.json").is_file():  # of before lineages were kept
        above = read_origin(parent)
        if above["weights_sha256"] == origin["weights_sha256"] and (older := lineage_of(above)):
            lineage = {origin["key"]: origin["weights_sha256"]} | older
    same = (
        "key", "recipe", "source", "stand_in", "architecture", "parameters", "weights_bytes", "scheme", "parent", "made_by"
    )  # fmt: skip
    of_making = (
        "train_seconds",
        "train_device",
        "train_devices",
        "train_threads",
        "train_precision",
        "train_examples",
        "calibration_seconds",
    )
    values: dict[str, Any] = {name: origin[name] for name in same} | {name: origin.get(name) for name in of_making}
    if origin["task"] != CORPUS:  # older caches counted all that a loaded file holds
        values["parameters"] = parameters_of(folder)
    return Checkpoint(
        **values,
        lineage=lineage,
        quantization=_quantization(folder) if (folder / "ranges.json").is_file() else None,
        train=origin["settings"],
        stages=origin.get("stages", []),
        corpus=_text(origin, folder.parent),
    )


def _text(origin: dict[str, Any], checkpoints: Path) -> dict[str, Any]:
    """What the general stage read: its own, or that of the model which this one was made from, as long as the cache has it."""
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
    return Quantization(
        tensors=tensors,
        quantized=quantized,
        share=quantized / tensors,
        worst={name: noise[name] for name in sorted(noise, key=lambda name: noise[name])[:WORST]},
        notes=list(ranges.calibration.get("notes", [])),
    )
