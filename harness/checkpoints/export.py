"""Export a checkpoint as a folder that transformers, ONNX Runtime or TensorRT for RTX loads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from backends import FOR_ONNX_FILES, BackendError, Precision, Quantize, get_backend
from backends.artefacts import copy_file, is_free, whole_folder
from backends.onnx_file import DATA_ENDS, FILE
from backends.pooling import FILES as POOLING_FILES
from harness.checkpoints.intact import checkpoint_fault
from harness.checkpoints.origin import read_origin
from harness.errors import QuantboardError
from harness.plan.sources import TOKENIZER_FILES
from harness.records.schema import Record
from harness.records.store import names_of, select

Format = Literal["onnx", "safetensors", "tensorrt-rtx"]
ENGINE = "model.engine"
ENGINE_BATCH = 32
"""Largest batch of an engine whose checkpoint has no record."""


def find_checkpoint(
    records: Sequence[Record], name: str, tasks: Sequence[str], cache: Path
) -> tuple[Path, Record | None]:
    """The folder of a checkpoint in the cache, and a record of a cell that ran it; None where it has no record.

    name: a record id, MODEL/LABEL, a model or a checkpoint's key. A record id or MODEL/LABEL gives what that cell ran, with its
    post-training ranges; a model gives its weights without them. A model that was trained but not recorded (`run --until
    train`) is found in the cache. tasks: where there are some, only theirs count.

    Raises QuantboardError where there is no such checkpoint, or more than one.
    """
    recorded = any(name in (record.record_id, *names_of(record)) for record in records)
    if not recorded and (unrecorded := _find_in_cache(name, tasks, cache)):
        return unrecorded, None
    for task in tasks:
        if task not in {record.task for record in records}:
            known = ", ".join(sorted({record.task for record in records}))
            raise QuantboardError(f"--task: no record of '{task}'; there are {known}")
    of_tasks = [record for record in records if not tasks or record.task in tasks]
    usable = [record for record in of_tasks if record.checkpoint]
    unusable = [record for record in of_tasks if not record.checkpoint]
    record_of: dict[str, Record] = {}  # by the key of the checkpoint
    for record in select(usable, name, lacking=unusable, what="checkpoint"):
        assert record.checkpoint is not None
        without_ranges = (
            record.checkpoint.parent if record.checkpoint.recipe == "ptq" and name == record.model else None
        )
        record_of.setdefault(without_ranges or record.checkpoint.key, record)
    if len(record_of) > 1:
        each = ", ".join(
            f"{record.record_id} ({record.model} / {record.task} / {record.label} / seed {record.seed})"
            for record in record_of.values()
        )
        raise QuantboardError(
            f"'{name}' is {len(record_of)} checkpoints: {each}; name one of these records, or give --task"
        )
    ((key, record),) = record_of.items()
    if record.speed_only:
        raise QuantboardError(f"{name}: has random weights, for speed alone; name a model that was loaded or trained")
    folder = cache / "checkpoints" / key
    if not folder.is_dir():
        raise QuantboardError(
            f"{record.record_id}: its checkpoint is not in the cache; make it again: {_make_command(record)}"
        )
    assert record.checkpoint is not None
    if fault := checkpoint_fault(folder):
        raise QuantboardError(
            f"{record.record_id}: its checkpoint in the cache is damaged ({fault}); make it again: {_make_command(record)}"
        )
    weights = read_origin(folder)["weights_sha256"]
    if record.checkpoint.lineage.get(key, weights) != weights:
        raise QuantboardError(
            f"{record.record_id}: its checkpoint has been trained again since, so the cache holds other weights; run the cell"
            " again with --fresh"
        )
    return folder, record


def _find_in_cache(name: str, tasks: Sequence[str], cache: Path) -> Path | None:
    """The folder of the checkpoint that has this model name or this key."""
    origins: dict[Path, dict[str, Any]] = {}
    for file in sorted((cache / "checkpoints").glob("*/origin.json")):
        if checkpoint_fault(file.parent):
            continue
        origin = read_origin(file.parent)
        is_model = origin["model"] == name and origin["recipe"] not in ("ptq", "pretrained")
        if (is_model and (not tasks or origin["task"] in tasks)) or file.parent.name == name:
            origins[file.parent] = origin
    if len(origins) > 1:
        each = ", ".join(
            f"{folder.name} ({origin['recipe']}, {origin['task']}, seed {origin['seed']})"
            for folder, origin in origins.items()
        )
        raise QuantboardError(f"'{name}' is {len(origins)} checkpoints in the cache: {each}; name one of these keys")
    return next(iter(origins), None)


def _make_command(record: Record) -> str:
    """The command that makes a record's checkpoint. `run` can stop there, `rerun` cannot."""
    until = " --until quantize" if record.command.startswith("quantboard run ") else ""
    return record.command + until


def export(
    checkpoint: Path,
    record: Record | None,
    name: str,
    form: Format,
    target: Path,
    more: Callable[[Path], None] = lambda folder: None,
) -> list[Path]:
    """Write a checkpoint into the new or empty folder `target`, all of it or nothing; returns the files. name: by which it was
    found. more: writes what else belongs into the folder, which has another name until then.

    safetensors: a Hugging Face model folder with the weights as they were trained, and `ranges.json` where there is one.

    onnx: `model.onnx`. For a cell it is the graph that the cell's engine ran, in its precision and with its quantizers; for a
    PyTorch cell, whose engine runs no graph, it computes the same. For a model it is FP32, with Q/DQ nodes where the checkpoint
    has ranges. Q/DQ nodes hold exactly the ranges in `ranges.json`, which lies beside the graph.

    tensorrt-rtx: `model.onnx`, the FP16 graph that TensorRT is given, with Q/DQ nodes where there are ranges;
    `model.engine`, compiled from it for every kind of GPU that TensorRT for RTX knows; and `engine.json`, which says what it takes.

    Raises QuantboardError, BackendError.
    """
    from backends.export import write_onnx

    quantize: Quantize = "none"
    given = _given_files(checkpoint, record)
    if given and form != "onnx":
        raise QuantboardError(f"{name}: is an ONNX file that was made elsewhere; use --format onnx")
    if form != "safetensors" and not given:
        precision, quantize = _graph_kind(checkpoint, record, name, form)
        _check_engine(checkpoint, record, name, quantize)
    if form == "tensorrt-rtx":
        _check_builder()
    part = target
    try:
        if not is_free(target):
            raise QuantboardError(f"{target}: is not empty; name a new folder")
        with whole_folder(target) as part:
            for path in given:
                copy_file(path, part / path.name)
            if form != "safetensors" and not given:
                write_onnx(checkpoint, part / "model.onnx", precision=precision, quantize=quantize)
            if form == "tensorrt-rtx":
                _write_engine(checkpoint, record, part)
            for file in _copied(form, quantize):
                if (checkpoint / file).is_file():
                    (part / file).parent.mkdir(exist_ok=True)
                    copy_file(checkpoint / file, part / file)
            more(part)
    except OSError as error:
        raise QuantboardError(f"{target}: cannot be written: {error.strerror}; name another folder") from None
    except BackendError as error:
        raise BackendError(str(error).replace(str(part), str(target))) from None
    return sorted(target.iterdir())


def _given_files(checkpoint: Path, record: Record | None) -> list[Path]:
    """The ONNX file of a cell that ran one as it was given, and the files that hold its tensors."""
    if record is None or record.backend != FOR_ONNX_FILES:
        return []
    return [checkpoint / FILE, *(file for file in checkpoint.iterdir() if file.name.endswith(DATA_ENDS))]


def _copied(form: Format, quantize: Quantize) -> list[str]:
    """Names of the checkpoint's files that go into the folder as they are."""
    names = ["config.json", "origin.json", *TOKENIZER_FILES, *POOLING_FILES]
    if form == "safetensors":
        names.append("model.safetensors")
    if form == "safetensors" or quantize in ("u8", "s8"):
        names.append("ranges.json")
    return names


def computes_padding(checkpoint: Path) -> bool:
    """Whether the checkpoint has ranges of a scheme in which padding takes part."""
    from backends.ranges import read_ranges

    return (checkpoint / "ranges.json").is_file() and read_ranges(checkpoint).scheme.computes_padding


def _check_builder() -> None:
    """Raises QuantboardError where TensorRT for RTX cannot be loaded."""
    from backends.tensor_rt_build import load

    try:
        load("tensorrt_rtx")
    except (ImportError, OSError) as error:
        raise QuantboardError(
            f"--format tensorrt-rtx: TensorRT for RTX does not load ({error}); python -m pip install tensorrt-rtx"
        ) from None


def _write_engine(checkpoint: Path, record: Record | None, target: Path) -> None:
    """Compile `model.onnx` of the folder for batches as large as the record's, and say beside it what the engine takes."""
    from backends.checkpoint import read_architecture
    from backends.tensor_rt_build import COMPUTE_CAPABILITIES, build, load

    shape = record.settings.get("shape", {}) if record else {}
    batch = max(shape.get("batch_sizes", [ENGINE_BATCH]))
    length = shape.get("max_length") or read_architecture(checkpoint).positions
    plan = build(target / "model.onnx", batch, length, "tensorrt_rtx", COMPUTE_CAPABILITIES)
    (target / ENGINE).write_bytes(plan)
    facts = {
        "runtime": f"tensorrt_rtx {load('tensorrt_rtx').__version__}",
        "compute_capabilities": COMPUTE_CAPABILITIES,
        "max_batch": batch,
        "max_length": length,
    }
    (target / "engine.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _graph_kind(checkpoint: Path, record: Record | None, name: str, form: Format) -> tuple[Precision, Quantize]:
    """Precision and quantization of the ONNX graph, as `export` describes them."""
    has_ranges = (checkpoint / "ranges.json").is_file()
    if form == "tensorrt-rtx":
        quantizes = get_backend(record.backend).quantizes if record and name != record.model else "static"
        if quantizes == "dynamic":
            raise QuantboardError(
                f"{name}: dynamic quantization has no ranges, which TensorRT needs; export a cell of static INT8"
            )
        return "fp16", "s8" if has_ranges and quantizes == "static" else "none"
    if record is None:
        return "fp32", "u8" if has_ranges else "none"
    backend = get_backend(record.backend)
    if name == record.model:
        return "fp32", ("s8" if backend.symmetric_only else "u8") if has_ranges else "none"
    if backend.graph is None:
        raise QuantboardError(
            f"{record.record_id}: {record.backend} cannot be exported to ONNX; export '{record.model}' or a record of another"
            " backend, or use --format safetensors"
        )
    return backend.graph


def _check_engine(checkpoint: Path, record: Record | None, name: str, quantize: Quantize) -> None:
    """Raises QuantboardError for ranges of a scheme that only the simulation computes: an ONNX graph cannot."""
    from backends.ranges import read_ranges

    if quantize not in ("u8", "s8"):
        return
    scheme = read_ranges(checkpoint).scheme
    if scheme.simulation_only:
        unquantized = f", or export '{record.model}/torch_fp32', the weights without quantizers" if record else ""
        raise QuantboardError(
            f"{name}: its scheme '{scheme.name}' can only be simulated ({scheme.simulation_only}); use --format safetensors,"
            f" which keeps the ranges in ranges.json{unquantized}"
        )
