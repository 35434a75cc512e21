"""OpenVINO on the CPU, on the graph of `backends.export`: float32, bfloat16, and static INT8 from the very file that ONNX Runtime
runs, with float32 or bfloat16 around its integer products.

OpenVINO chooses precisions itself where nobody says what is wanted: bfloat16 where the processor has it, and activations
quantized at run time where weights are integers. Both are set here, and what it did in the end is read from its runtime model.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from backends.architecture import Architecture, Encoder
from backends.base import (
    INPUTS,
    Availability,
    BackendError,
    BackendFields,
    Batch,
    Device,
    Placement,
    Precision,
    Quantize,
    Settings,
    check_length,
    installed,
)
from backends.checkpoint import read_encoder
from backends.families.generic import NOTE
from backends.processor import multiplies_bfloat16, saturates_integer_products

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class OpenVino(BackendFields):
    """The backend for one kind of graph. floats: the type that whatever is not integer is computed in."""

    floats: Literal["f32", "bf16"]
    graph: tuple[Precision, Quantize]
    distributions: tuple[str, ...] = ("openvino",)

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        if not installed("openvino", machine):
            return Availability(False, "OpenVINO is not installed", "python -m pip install openvino")
        if self.floats == "bf16" and not multiplies_bfloat16(machine):
            return Availability(
                False,
                "this processor has no bfloat16 arithmetic, and OpenVINO would run float32 instead",
                "run it on a processor with AVX512-BF16 or AMX",
            )
        return Availability(True)

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> OpenVinoSession:
        """Export the checkpoint, or take the file from the cache, and compile it. Raises BackendError."""
        if device != "cpu":
            raise BackendError(f"{self.name}: runs on the CPU only, not on '{device}'")
        encoder = read_encoder(checkpoint)
        check_length(settings, encoder.positions)
        from backends.export import export_cached

        precision, quantize = self.graph
        started = time.perf_counter()
        path, built = export_cached(checkpoint, settings.cache, precision=precision, quantize=quantize)
        seconds = time.perf_counter() - started
        session = OpenVinoSession(path, encoder, settings, self.floats, integer=quantize != "none")
        session.built, session.build_seconds = built, seconds if built else 0.0
        return session


class OpenVinoSession:
    """One inference at a time on `settings.threads` threads. Batches may be of any size up to `max_batch` x `max_length`."""

    built = False
    build_seconds = 0.0

    def __init__(self, path: Path, encoder: Encoder, settings: Settings, floats: str, *, integer: bool) -> None:
        openvino = _load()
        self._path = path
        self._integer = integer
        self._encoder = encoder
        self._settings = settings
        self.artifact_bytes = path.stat().st_size
        core = openvino.Core()
        try:
            model = core.read_model(path)
            sizes = [openvino.Dimension(1, largest) for largest in (settings.max_batch, settings.max_length)]
            model.reshape({name: openvino.PartialShape(sizes) for name in INPUTS})
            self._compiled = core.compile_model(model, "CPU", _properties(settings.threads, floats))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise BackendError(f"{path}: OpenVINO cannot load it ({reason}); delete the file and run again") from None
        realised = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if realised != floats:  # OpenVINO takes the nearest that the processor has, silently
            raise BackendError(
                f"OpenVINO computes in {realised} on this processor, not in {floats}; take another backend"
            )
        self._request = self._compiled.create_infer_request()

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        outputs = self._request.infer({name: batch[name] for name in INPUTS}, share_inputs=True)
        logits: np.ndarray[Any, Any] = outputs["logits"]
        return logits

    def placement(self) -> Placement:
        """From OpenVINO's runtime model after one run of a sequence of max_length, in which all shapes are known."""
        import numpy as np

        from backends.export import graph_macs, promised_macs

        ids = np.zeros((1, self._settings.max_length), np.int64)
        self.run({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": ids})
        nodes = list(_kernels(self._compiled.get_runtime_model().get_ordered_ops()))
        macs = graph_macs(self._path, self._encoder, self._settings.max_length)
        return Placement(
            claimed="CPU",
            nodes=dict(Counter(f"CPU {node.precision}" for node in nodes)),
            int8_macs=sum(node.int8_macs for node in nodes),
            total_macs=sum(macs.values()),
            detail=tuple((node.name, node.operator, node.kernel) for node in nodes),
            notes=tuple(self._notes()),
            promised_macs=promised_macs(self._path, macs) if self._integer else None,
        )

    def _notes(self) -> Iterator[str]:
        if not isinstance(self._encoder, Architecture):
            yield NOTE
        if self._integer and saturates_integer_products():
            yield (
                "this CPU has no VNNI: OpenVINO's u8 x s8 products saturate where the sum of a pair leaves 16 bits, so its predictions"
                " are not exactly those of the ranges; onnxruntime_int8 is exact here"
            )
        threads = self._compiled.get_property("INFERENCE_NUM_THREADS")
        if threads != self._settings.threads:
            yield f"OpenVINO took {threads} threads where {self._settings.threads} were given"

    def close(self) -> None:
        del self._request, self._compiled


def _load() -> Any:
    """The module `openvino` without its model converter, which tells Intel of every import over the network and writes to the
    home folder."""
    if "openvino" not in sys.modules:
        modules: dict[str, Any] = sys.modules
        modules["openvino.tools.ovc"] = None  # Python's own way to make an import fail
        try:
            import_module("openvino")
        finally:
            del modules["openvino.tools.ovc"]
    return sys.modules["openvino"]


def _properties(threads: int, floats: str) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # processes that take turns would be pinned to the same cores
        "INFERENCE_PRECISION_HINT": floats,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # of activations that a scheme leaves in floating point
    }


@dataclass(frozen=True)
class _Kernel:
    """A node of OpenVINO's runtime model. precision: that it computes in. int8_macs: multiply-accumulates in integer products."""

    name: str
    operator: str
    kernel: str
    precision: str
    int8_macs: int


_INTEGER = {"u8", "i8"}


def _kernels(nodes: list[Any]) -> Iterator[_Kernel]:
    for node in nodes:
        facts = node.get_rt_info()
        operator, kernel, precision = (
            str(facts[key].value) for key in ("layerType", "primitiveType", "runtimePrecision")
        )
        if not kernel.startswith("unknown"):  # constants, and what moves or computes nothing at run time
            yield _Kernel(node.get_friendly_name(), operator, kernel, precision, _integer_macs(operator, node))


def _integer_macs(operator: str, node: Any) -> int:
    """Multiply-accumulates of a product of two integer matrices: its output's elements times the length of their dot products. 0
    for other nodes, also for what OpenVINO fuses attention into: it has not been seen to compute in integers."""
    if operator not in ("FullyConnected", "MatMul"):
        return 0
    if not all(node.input(index).get_element_type().get_type_name() in _INTEGER for index in (0, 1)):
        return 0
    return int(math.prod(node.output(0).get_shape()) * node.input(0).get_shape()[-1])


OPENVINO_FP32 = OpenVino(
    name="openvino_fp32", graph=("fp32", "none"), floats="f32", title="OpenVINO FP32", any_family=True, traced=True
)
OPENVINO_BF16 = OpenVino(
    name="openvino_bf16", graph=("fp32", "none"), floats="bf16", relative_cost=0.5, title="OpenVINO BF16"
)
OPENVINO_INT8 = OpenVino(
    name="openvino_int8",
    graph=("fp32", "u8"),
    floats="f32",
    quantizes="static",
    relative_cost=0.6,
    title="OpenVINO INT8",
)
OPENVINO_INT8_BF16 = OpenVino(
    name="openvino_int8_bf16",
    graph=("fp32", "u8"),
    floats="bf16",
    quantizes="static",
    relative_cost=0.4,
    title="OpenVINO INT8+16",
)
