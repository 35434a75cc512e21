"""Checkpoint folder -> ONNX file, built operator by operator from the weights.

Exporters that trace a framework copy its guards for masks and softmax into the graph (`Where`, `IsNaN`). These cost time and
keep the attention fusions of engines from matching. `encoder_graph` builds the form that the fusions were written for. No
framework is imported.

Inputs: `input_ids`, `attention_mask`, `token_type_ids`, int64 (batch, sequence), both sizes free. Output: `logits`, float32:
(batch, sequence, 2) for question answering, (batch, sequence, labels) for classes of tokens, (batch, hidden size) for an embedding,
otherwise (batch, labels).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from onnx import TensorProto, helper

from backends.adjusted import AdjustedWeights, Tensors
from backends.architecture import Architecture, Encoder
from backends.artefacts import move_sealed, sha256_of, usable
from backends.base import INPUTS, BackendError, Precision, Quantize
from backends.checkpoint import Weights, read_architecture, read_family
from backends.disentangled_graph import DisentangledGraph
from backends.encoder_graph import EncoderGraph
from backends.model_files import SAFETENSORS
from backends.pooling import FILES as POOLING_FILES
from backends.ranges import FILE_NAME, Ranges, read_ranges
from backends.rotary_graph import RotaryGraph
from backends.traced import counted_products, trace_id, write_dynamic, write_traced

EXPORT_VERSION = 2
"""Part of the key under which exported graphs are cached. Raise it whenever exported graphs change."""

_OPSET: Mapping[Precision, int] = {"fp32": 17, "fp16": 19}
"""Opset 19 is the first in which Q/DQ can have float16 scales."""


@dataclass(frozen=True)
class ExportInfo:
    """What was written. nodes: number of nodes of the graph. quantized: names of the linear layers with integer weights."""

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

    precision: with fp16, tensors are float16, but LayerNorm, softmax and GELU compute in float32, and logits are float32. Scales
    are then rounded to float16, since the scale of a Q/DQ has the type of its tensor.

    quantize:
    - u8, s8: the tensors that `ranges.json` names get Q/DQ with exactly its ranges; embedding tables and biases are stored as
      integers where the scheme rounds them. u8 has activations on the unsigned grid (zero point + 128), which x86's integer
      products need. s8 has them on the signed grid and uses only what TensorRT supports: tables are dequantized before the
      look-up, and biases, which TensorRT adds in float, are stored as the values of their integers.
    - dynamic: weights of the encoder's linear layers are INT8, scaled by max-abs per output channel; their inputs are quantized
      at run time (ONNX DynamicQuantizeLinear).

    Raises BackendError for a checkpoint that cannot be exported so, or if the file cannot be written.
    """
    architecture = read_architecture(checkpoint)
    weights: Tensors = Weights(checkpoint, architecture)
    ranges = read_ranges(checkpoint) if quantize in ("u8", "s8") else None
    if ranges:
        _check_ranges(checkpoint, ranges, precision, quantize)
        weights = AdjustedWeights(weights, ranges.adjustments) if ranges.adjustments else weights
    kind = RotaryGraph if architecture.rotary else DisentangledGraph if architecture.disentangled else EncoderGraph
    encoder = kind(architecture, weights, precision, quantize, ranges)
    encoder.build()
    model = encoder.graph.model(
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in INPUTS],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, architecture.logits_shape)],
        opset=_OPSET[precision],
        ir_version=9,
        producer=f"quantboard export {EXPORT_VERSION}",
    )
    _write(target, model.SerializeToString(deterministic=True))
    return ExportInfo(target, len(encoder.graph.nodes), architecture, tuple(encoder.quantized))


def _check_ranges(checkpoint: Path, ranges: Ranges, precision: Precision, quantize: Quantize) -> None:
    """Raises BackendError for ranges that this kind of graph cannot express."""
    if reason := ranges.scheme.simulation_only:
        raise BackendError(
            f"{checkpoint}: its ranges are of '{ranges.scheme.name}', which can only be simulated ({reason}); run it on"
            " fake_quant_w8a8"
        )
    if precision == "fp16" and ranges.scheme.tensors == "op_outputs":
        raise BackendError(
            f"{checkpoint}: float16 cannot hold all operators' outputs, which its ranges quantize; export it as fp32"
        )
    if quantize == "s8" and any(tensor.zero_point.any() for tensor in ranges.tensors.values()):
        raise BackendError(
            f"{checkpoint}: its ranges are asymmetric, but INT8 without zero points is symmetric; calibrate or train it with a"
            " symmetric scheme"
        )


def _write(target: Path, content: bytes) -> None:
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BackendError(
            f"{target}: cannot be written ({error.strerror}); free some space or name another folder"
        ) from None


def write_onnx(checkpoint: Path, target: Path, *, precision: Precision = "fp32", quantize: Quantize = "none") -> None:
    """The same as `export_onnx` of any encoder: one whose family is not known here goes the generic way, with `fp32` and `none` or
    `dynamic` only. Raises BackendError."""
    if not read_family(checkpoint).generic or precision != "fp32" or quantize not in ("none", "dynamic"):
        export_onnx(checkpoint, target, precision=precision, quantize=quantize)
    elif quantize == "none":
        write_traced(checkpoint, target)
    else:
        with TemporaryDirectory() as folder:
            write_traced(checkpoint, Path(folder) / "traced.onnx")
            write_dynamic(Path(folder) / "traced.onnx", target)


def export_cached(
    checkpoint: Path, cache: Path, *, precision: Precision = "fp32", quantize: Quantize = "none"
) -> tuple[Path, bool]:
    """The ONNX file of a checkpoint, and whether it was made now. It is made once, under a lock, and cached under the hash of the
    checkpoint's content, so that equal checkpoints share it. Raises BackendError.
    """
    from filelock import FileLock

    generic = read_family(checkpoint).generic
    maker = trace_id() if generic else str(EXPORT_VERSION)
    digest = hashlib.sha256(f"{maker} {precision} {quantize}".encode())
    pooling = [name for name in POOLING_FILES if (checkpoint / name).is_file()]
    for name in ("config.json", SAFETENSORS, *pooling, *([FILE_NAME] if quantize in ("u8", "s8") else [])):
        digest.update(_file_digest(checkpoint / name, cache / "hashes"))
    path = cache / "onnx" / f"{precision}-{quantize}-{digest.hexdigest()[:16]}.onnx"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if usable(path, cache):
                return path, False
            part = path.with_suffix(".part")
            if generic and quantize == "dynamic":
                write_dynamic(export_cached(checkpoint, cache)[0], part)
            else:
                write_onnx(checkpoint, part, precision=precision, quantize=quantize)
            move_sealed(part, path, cache / "hashes")
    except OSError as error:
        raise BackendError(
            f"{path.parent}: cannot be written ({error.strerror}); free some space or move the cache"
        ) from None
    return path, True


def _file_digest(path: Path, memory: Path) -> bytes:
    try:
        return bytes.fromhex(sha256_of(path, memory))
    except OSError as error:
        fix = (
            "calibrate the checkpoint with a post-training scheme" if path.name == FILE_NAME else "name a model folder"
        )
        raise BackendError(f"{path}: cannot be read ({error.strerror}); {fix}") from None


def graph_macs(path: Path, encoder: Encoder, length: int) -> dict[str, int]:
    """The same as `product_macs` of any encoder's graph: where its family is not known, the graph is run to count them."""
    return product_macs(encoder, length) if isinstance(encoder, Architecture) else counted_products(path, length)


def product_macs(architecture: Architecture, length: int) -> dict[str, int]:
    """Multiply-accumulates of every matrix product of the graph for one sequence of `length` tokens, by name of its node."""
    macs = {f"{name}.product": architecture.linear_macs(name, length) for name in architecture.linears()}
    for layer in range(architecture.layers):
        at = f"encoder.layer.{layer}.attention"
        macs |= {f"{at}.{part}": count for part, count in architecture.attention_macs(length).items()}
    return macs


_PASSED_THROUGH = ("Reshape", "Transpose")
"""Operators past which engines move a DequantizeLinear."""


def promised_macs(path: Path, macs: Mapping[str, int]) -> int:
    """Multiply-accumulates of the products that a graph asks an engine to run in integers: MatMulInteger, and MatMul of two
    dequantized tensors. macs: of each product, by name of its node."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    made_by = {output: node for node in nodes for output in node.output}

    def is_dequantized(tensor: str) -> bool:
        node = made_by.get(tensor)
        while node is not None and node.op_type in _PASSED_THROUGH:
            node = made_by.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    return sum(
        macs.get(node.name, 0)
        for node in nodes
        if node.op_type == "MatMulInteger" or (node.op_type == "MatMul" and all(map(is_dequantized, node.input)))
    )
