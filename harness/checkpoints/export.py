"""A checkpoint of a suite as a folder of its own, that plain transformers or ONNX Runtime loads."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from backends import BackendError, Precision, Quantize, get_backend
from harness.checkpoints.origin import read_origin
from harness.errors import QuantboardError
from harness.plan.sources import TOKENIZER_FILES
from harness.records.schema import Record
from harness.records.store import names_of, select

Format = Literal["onnx", "safetensors"]


_ABOUT = ("config.json", "ranges.json", "origin.json")


def find_checkpoint(
    records: Sequence[Record], name: str, tasks: Sequence[str], cache: Path
) -> tuple[Path, Record | None]:
    """The folder of a checkpoint, and a record that it belongs to; None where no cell of it was recorded.

    name: as `compare` takes it. A record id or MODEL/LABEL means what that cell ran, post-training ranges with it; a
    model's name means the model before. Where no record has that name it is that of a model in the cache (`run --until
    train` records nothing), or a checkpoint's key. Raises QuantboardError where it means several or none, or one that is not
    there.
    """
    if not any(name in (one.record_id, *names_of(one)) for one in records) and (
        unrecorded := _unrecorded(name, tasks, cache)
    ):
        return unrecorded, None
    for task in tasks:
        if task not in {entry.task for entry in records}:
            raise QuantboardError(
                f"--task: no record of '{task}'; there are {', '.join(sorted({e.task for e in records}))}"
            )
    asked = [entry for entry in records if not tasks or entry.task in tasks]
    usable, lacking = [one for one in asked if one.checkpoint], [one for one in asked if not one.checkpoint]
    found: dict[str, Record] = {}
    for entry in select(usable, name, lacking=lacking, what="checkpoint"):
        assert entry.checkpoint is not None
        own, below = entry.checkpoint.key, entry.checkpoint.parent
        before = entry.checkpoint.recipe == "ptq" and name == entry.model
        found.setdefault(below if before and below else own, entry)
    if len(found) > 1:
        each = ", ".join(f"{e.record_id} ({e.model} / {e.task} / {e.label} / seed {e.seed})" for e in found.values())
        raise QuantboardError(
            f"'{name}' is {len(found)} checkpoints: {each}; name one of these records, or give --task"
        )
    ((key, entry),) = found.items()
    folder = cache / "checkpoints" / key
    if not folder.is_dir():
        raise QuantboardError(f"{entry.record_id}: its checkpoint is not in the cache; make it again: {_again(entry)}")
    assert entry.checkpoint is not None
    weights = read_origin(folder)["weights_sha256"]
    if entry.checkpoint.lineage.get(key, weights) != weights:
        raise QuantboardError(
            f"{entry.record_id}: its checkpoint was trained anew since: what is in the cache is not what it ran; run the cell again with --fresh"
        )
    return folder, entry


def _unrecorded(name: str, tasks: Sequence[str], cache: Path) -> Path | None:
    found: dict[Path, dict[str, Any]] = {}
    for file in sorted((cache / "checkpoints").glob("*/origin.json")):
        origin = read_origin(file.parent)
        as_model = origin["model"] == name and origin["recipe"] not in ("ptq", "pretrained")
        if (as_model and (not tasks or origin["task"] in tasks)) or file.parent.name == name:
            found[file.parent] = origin
    if len(found) > 1:
        each = ", ".join(
            f"{folder.name} ({one['recipe']}, {one['task']}, seed {one['seed']})" for folder, one in found.items()
        )
        raise QuantboardError(f"'{name}' is {len(found)} checkpoints in the cache: {each}; name one of these keys")
    return next(iter(found), None)


def _again(entry: Record) -> str:
    """The command that makes a record's checkpoint and no more, where it can stop there: `rerun` goes to the end."""
    return f"{entry.command} --until quantize" if entry.command.startswith("quantboard run ") else entry.command


def export(checkpoint: Path, entry: Record | None, name: str, form: Format, target: Path) -> list[Path]:
    """Write a checkpoint into the new or empty folder `target`; returns the files. name: by which it was found.

    safetensors: a Hugging Face model folder; weights as they were trained, with `ranges.json`, which says how they and what
    they meet are rounded, where there is one. onnx: `model.onnx`. Of a cell it is the graph that its engine was given (of
    PyTorch, which is given none, the same computation): tensors in its precision, its quantizers, dynamic ones too. Of a
    model's name it is FP32, with Q/DQ where the checkpoint brings ranges. Q/DQ carry exactly those ranges, which lie beside
    them. Raises QuantboardError, BackendError.
    """
    from backends.export import export_onnx

    quantize: Quantize = "none"
    if form == "onnx":
        precision, quantize = _graph(checkpoint, entry, name)
        _check_engine(checkpoint, entry, name, quantize)
    there = target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise QuantboardError(f"{target}: is not empty; name a new folder")
        if form == "onnx":  # first: it may refuse, and is written whole or not at all
            export_onnx(checkpoint, target / "model.onnx", precision=precision, quantize=quantize)
        about = _ABOUT if form == "safetensors" or quantize in ("u8", "s8") else ("config.json", "origin.json")
        names = (*about, *TOKENIZER_FILES, *(("model.safetensors",) if form == "safetensors" else ()))
        for file in names:
            if (checkpoint / file).is_file():
                shutil.copyfile(checkpoint / file, target / file)
    except OSError as error:
        raise QuantboardError(f"{target}: cannot be written: {error.strerror}; name another folder") from None
    except BackendError:
        if not there:
            target.rmdir()
        raise
    return sorted(target.iterdir())


def computes_padding(checkpoint: Path) -> bool:
    """A checkpoint whose ranges are of a scheme in which padding takes part."""
    from backends.ranges import read_ranges

    return (checkpoint / "ranges.json").is_file() and read_ranges(checkpoint).scheme.computes_padding


def _check_engine(checkpoint: Path, entry: Record | None, name: str, quantize: Quantize) -> None:
    """Raises QuantboardError for ranges of a scheme that no engine, and so no ONNX file, computes."""
    from backends.ranges import read_ranges

    if quantize not in ("u8", "s8"):
        return
    scheme = read_ranges(checkpoint).scheme
    if scheme.simulation_only:
        plain = f", or '{entry.model}/torch_fp32': the weights without quantizers" if entry else ""
        raise QuantboardError(
            f"{name}: its ranges are of '{scheme.name}', which no engine computes ({scheme.simulation_only}); take --format"
            f" safetensors, whose ranges.json has them{plain}"
        )


def _graph(checkpoint: Path, entry: Record | None, name: str) -> tuple[Precision, Quantize]:
    """Of what a cell ran, or of a model's name."""
    ranges = (checkpoint / "ranges.json").is_file()
    if entry is None:
        return "fp32", "u8" if ranges else "none"
    backend = get_backend(entry.backend)
    if name == entry.model:
        return "fp32", ("s8" if backend.symmetric_only else "u8") if ranges else "none"
    if backend.graph is None:
        raise QuantboardError(
            f"{entry.record_id}: ONNX files are not written as {entry.backend} computes; export '{entry.model}',"
            " a record of another backend, or --format safetensors"
        )
    return backend.graph
