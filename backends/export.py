"""Checkpoint folder -> ONNX file: the clean encoder graph that engines fuse, built operator by operator from the weights.

Exporters trace a framework's guards for masks and softmax into the graph (`Where`, `IsNaN`), which cost time and keep
the engines' attention fusions from matching. `encoder_graph` builds the classic form that they were written for. No framework
is imported.

Inputs: `input_ids`, `attention_mask`, `token_type_ids`, int64 (batch, sequence), both free. Output: `logits`, float32,
(batch, sequence, 2) for question answering, (batch, labels) else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto, helper

from backends.architecture import Architecture
from backends.base import INPUTS, BackendError, Precision, Quantize
from backends.checkpoint import WEIGHTS, Weights, read_architecture
from backends.encoder_graph import EncoderGraph
from backends.ranges import FILE_NAME, Ranges, read_ranges

EXPORT_VERSION = 2
"""Raised on purpose when exported graphs change: part of the key under which backends keep them."""

_OPSET: Mapping[Precision, int] = {"fp32": 17, "fp16": 19}
"""19 is the first in which Q/DQ take float16 scales."""


@dataclass(frozen=True)
class ExportInfo:
    """What was written. nodes: of the graph as exported. quantized: names of the linear layers with integer weights."""

    path: Path
    nodes: int
    architecture: Architecture
    quantized: tuple[str, ...]


def export_onnx(
    checkpoint: Path,
    target: Path,
    *,
    precision: Precision = "fp32",
    quantize: Quantize = "none",
) -> ExportInfo:
    """Write the ONNX model of a checkpoint folder to `target`, whole or not at all; equal checkpoints give equal bytes.

    precision fp16: tensors are float16, but LayerNorm, softmax and GELU compute in float32, and logits are float32.
    quantize u8, s8: Q/DQ around the inputs and weights of the layers that `ranges.json` names, with exactly its ranges; tables
    and biases as integers where its scheme rounds them. u8 writes activations on the unsigned grid (zero point + 128), as
    x86's products want them, s8 on the signed one, with nothing but what TensorRT takes (tables are dequantized before the
    look-up, and biases, which it adds in float, are written as the values that their integers stand for). At fp16 scales are
    rounded to float16, since a Q/DQ's scale has its tensor's type. dynamic: encoder weights to INT8 by max-abs per output
    channel, inputs by their own range as they come (ONNX DynamicQuantizeLinear).

    Raises BackendError for a checkpoint that this export cannot express, or when the file cannot be written.
    """
    architecture = read_architecture(checkpoint)
    weights = Weights(checkpoint, architecture)
    ranges = read_ranges(checkpoint) if quantize in ("u8", "s8") else None
    if ranges:
        _check_ranges(checkpoint, ranges, precision, quantize)
    encoder = EncoderGraph(architecture, weights, precision, quantize, ranges)
    encoder.build()
    model = encoder.graph.model(
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in INPUTS],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, _logits_shape(architecture))],
        opset=_OPSET[precision],
        ir_version=9,
        producer=f"quantboard export {EXPORT_VERSION}",
    )
    _write(target, model.SerializeToString(deterministic=True))
    return ExportInfo(target, len(encoder.graph.nodes), architecture, tuple(encoder.quantized))


def _check_ranges(checkpoint: Path, ranges: Ranges, precision: Precision, quantize: Quantize) -> None:
    """Raises BackendError for ranges that this kind of graph cannot express."""
    if why := ranges.scheme.simulation_only:
        raise BackendError(
            f"{checkpoint}: its ranges are of '{ranges.scheme.name}', which can only be simulated ({why}); run it on fake_quant_w8a8"
        )
    if precision == "fp16" and ranges.scheme.tensors == "op_outputs":
        raise BackendError(
            f"{checkpoint}: its ranges are of every operator's output, some of which float16 cannot hold; take fp32"
        )
    if quantize == "s8" and any(tensor.zero_point.any() for tensor in ranges.tensors.values()):
        raise BackendError(
            f"{checkpoint}: its ranges are asymmetric; int8 without zero points needs a symmetric scheme"
        )


def _logits_shape(architecture: Architecture) -> list[str | int]:
    return ["batch", *(["sequence"] if architecture.head == "question_answering" else []), architecture.labels]


def _write(target: Path, content: bytes) -> None:
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BackendError(
            f"{target}: cannot be written ({error.strerror}); free some space or name another cache"
        ) from None


def export_cached(
    checkpoint: Path, cache: Path, *, precision: Precision = "fp32", quantize: Quantize = "none"
) -> tuple[Path, bool]:
    """The ONNX file of a checkpoint, from the cache or made now under a lock, and whether it was made now.

    It is kept by the content of the checkpoint, so equal ones share it. Raises BackendError.
    """
    from filelock import FileLock

    digest = hashlib.sha256(f"{EXPORT_VERSION} {precision} {quantize}".encode())
    for name in ("config.json", WEIGHTS, *([FILE_NAME] if quantize in ("u8", "s8") else [])):
        digest.update(_file_digest(checkpoint / name))
    path = cache / "onnx" / f"{precision}-{quantize}-{digest.hexdigest()[:16]}.onnx"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if path.exists():
                return path, False
            export_onnx(checkpoint, path, precision=precision, quantize=quantize)
    except OSError as error:
        raise BackendError(f"{path.parent}: cannot be written ({error.strerror}); name another cache") from None
    return path, True


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        remedy = (
            "calibrate the checkpoint with a post-training scheme first"
            if path.name == FILE_NAME
            else "name a model folder"
        )
        raise BackendError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None


def product_macs(architecture: Architecture, length: int) -> dict[str, int]:
    """Multiply-accumulates of every matrix product of the graph for one sequence of `length`, by node name."""
    macs = {f"{name}.product": architecture.linear_macs(name, length) for name in architecture.linears()}
    attention = length * length * architecture.hidden
    for layer in range(architecture.layers):
        macs |= {f"encoder.layer.{layer}.attention.{part}": attention for part in ("scores", "context")}
    return macs
