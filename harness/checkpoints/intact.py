"""Whether a checkpoint in the cache is what was written. What is broken is put aside, named, and made again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from backends import artefacts
from harness.checkpoints.origin import RECORDED_FIELDS, lineage_of, read_origin
from harness.errors import CheckpointError, disk_fault
from harness.plan.spec import CheckpointSpec, folder_of


def checkpoint_fault(folder: Path) -> str:
    """What is wrong with the folder of a checkpoint; empty where nothing is. An early one has no hashes but that of its weights:
    where these are right, it gets them."""
    try:
        origin = read_origin(folder)
    except CheckpointError as error:
        return str(error).removeprefix(f"{folder}: ").partition(";")[0]
    if lacking := [name for name in (*RECORDED_FIELDS, "task", "settings", "weights_sha256") if name not in origin]:
        return f"origin.json has no '{lacking[0]}'"
    memory = folder.parents[1] / "hashes"
    early = origin.get("format", 1) == 1
    if early and not (folder / artefacts.SUMS).exists():
        if fault := _weights_fault(folder, origin, memory):
            return fault
        with suppress(OSError):  # a read-only cache: checked so each time
            artefacts.seal_folder(folder)
        return ""
    return artefacts.folder_fault(folder, memory)


def _weights_fault(folder: Path, origin: dict[str, Any], memory: Path) -> str:
    from backends.onnx_file import FILE

    weights = next((folder / name for name in ("model.safetensors", FILE) if (folder / name).is_file()), None)
    if weights is None:
        return "it has no weights"
    return (
        ""
        if artefacts.sha256_of(weights, memory) == origin["weights_sha256"]
        else f"{weights.name}: {artefacts.DIFFERS}"
    )


def drop_broken(spec: CheckpointSpec, cache: Path) -> str:
    """Put the spec's checkpoint aside where it is broken, or made from one that was broken and has other weights now. Returns a
    sentence that says so; empty where it is whole or not there. Raises CheckpointError where it cannot be moved."""
    folder = folder_of(spec, cache)
    if not folder.is_dir():
        return ""
    fault = checkpoint_fault(folder) or _made_from_broken(folder, cache)
    if not fault:
        return ""
    try:
        aside = artefacts.put_aside(folder, cache / "broken")
    except OSError as error:
        raise CheckpointError(disk_fault(error, folder, "delete the folder", f"is damaged ({fault})")) from None
    return f"checkpoint {spec.model} ({spec.recipe}) {folder.name}: {fault}; it was put aside as {aside.name}"


def _made_from_broken(folder: Path, cache: Path) -> str:
    """A checkpoint that was made anew because it was damaged need not get the same weights. Then those that were made from it
    are made anew as well."""
    for key, weights in lineage_of(read_origin(folder)).items():
        parent = cache / "checkpoints" / key
        if key != folder.name and parent.is_dir() and any((cache / "broken").glob(f"{key}-*")):
            with suppress(CheckpointError):
                if read_origin(parent)["weights_sha256"] != weights:
                    return f"it was made from {key}, which was damaged and has been made again"
    return ""
