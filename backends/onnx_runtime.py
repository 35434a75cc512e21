"""ONNX Runtime on the graph of `backends.export`: float32, static INT8 (with the checkpoint's ranges) and dynamic INT8.

The exported graph is cached under the hash of the checkpoint's content, so a later process only loads it. The process imports
ONNX Runtime and, if it has to export, onnx; never PyTorch.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

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
from backends.processor import saturates_integer_products

if TYPE_CHECKING:
    import numpy as np

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime(BackendFields):
    """The backend for one kind of graph."""

    graph: tuple[Precision, Quantize]
    distributions: tuple[str, ...] = ("onnxruntime-gpu|onnxruntime",)

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        for name in ("onnxruntime-gpu", "onnxruntime"):
            if not installed(name, machine):
                continue
            # The CUDA provider has hardly any integer kernels: most nodes of an INT8 graph would run on the CPU.
            on_gpu = name == "onnxruntime-gpu" and machine.get("gpus") and self.graph[1] == "none"
            return Availability(True, device="cuda" if on_gpu else "cpu")
        package = "onnxruntime-gpu" if machine.get("gpus") else "onnxruntime"
        return Availability(False, "ONNX Runtime is not installed", f"python -m pip install {package}")

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> OnnxRuntimeSession:
        encoder = read_encoder(checkpoint)
        check_length(settings, encoder.positions)
        from backends.export import export_cached

        precision, quantize = self.graph
        started = time.perf_counter()
        path, built = export_cached(checkpoint, settings.cache, precision=precision, quantize=quantize)
        session = OnnxRuntimeSession(path, encoder, settings, device, integer=quantize != "none")
        session.built, session.build_seconds = built, time.perf_counter() - started if built else 0.0
        return session


class OnnxRuntimeSession:
    built = False
    build_seconds = 0.0

    def __init__(self, path: Path, encoder: Encoder, settings: Settings, device: Device, *, integer: bool) -> None:
        import onnxruntime

        self._path = path
        self._encoder = encoder
        self._settings = settings
        self._claimed = _PROVIDERS[device]
        self._integer = integer
        self.artifact_bytes = path.stat().st_size
        if device == "cuda":
            onnxruntime.preload_dlls()  # finds CUDA libraries that were installed with pip
        self._session = self._open()

    def _open(self, profile: str | None = None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._settings.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        if self._settings.takes_turns:  # by default its threads spin for about 0.1 s after an answer
            options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._integer and saturates_integer_products():
            options.add_session_config_entry("session.x64quantprecision", "1")
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
            # Prepacked weights are missing from the profile, so the sizes of the products would be unknown.
            options.add_session_config_entry("session.disable_prepacking", "1")
        providers: list[Any] = ["CPUExecutionProvider"]
        if self._claimed == "CUDAExecutionProvider":  # its default is TF32, which keeps ten bits of the fraction
            providers.insert(0, (self._claimed, {"use_tf32": "0"}))
        try:
            session = onnxruntime.InferenceSession(str(self._path), options, providers=providers)
        except Exception as error:  # the library's exceptions have no other common base
            raise BackendError(
                f"{self._path}: ONNX Runtime cannot load it ({str(error).splitlines()[0]}); delete the file and run again"
            ) from None
        if self._claimed not in session.get_providers():  # ONNX Runtime falls back silently
            raise BackendError(
                f"{self._claimed} does not load: this ONNX Runtime was built without it, or CUDA or cuDNN libraries are"
                " missing; install onnxruntime-gpu, and see onnxruntime.print_debug_info()"
            )
        return session

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        return self._run(self._session, batch)

    def _run(self, session: Any, batch: Batch) -> np.ndarray[Any, Any]:
        logits: np.ndarray[Any, Any] = session.run(["logits"], {name: batch[name] for name in INPUTS})[0]
        return logits

    def placement(self) -> Placement:
        """From ONNX Runtime's profile of one run at max_length, in a separate session."""
        import numpy as np

        ids = np.zeros((1, self._settings.max_length), np.int64)
        with TemporaryDirectory() as folder:
            session = self._open(profile=f"{folder}/profile")
            self._run(session, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": ids})
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        nodes = list(_kernels(events))
        notes = [] if isinstance(self._encoder, Architecture) else [NOTE]
        if self._integer and saturates_integer_products():
            notes.append(
                "this CPU has no VNNI, so u8 x s8 products could saturate: session.x64quantprecision is on (exact, slower)"
            )
        return Placement(
            claimed=self._claimed,
            nodes=dict(Counter(node.provider for node in nodes)),
            int8_macs=sum(node.int8_macs for node in nodes),
            total_macs=sum(self._macs().values()),
            detail=tuple((node.name, node.operator, node.provider) for node in nodes),
            notes=tuple(notes),
            promised_macs=self._promised_macs() if self._integer else None,
        )

    def _macs(self) -> Mapping[str, int]:
        from backends.export import graph_macs

        return graph_macs(self._path, self._encoder, self._settings.max_length)

    def _promised_macs(self) -> int:
        from backends.export import promised_macs

        return promised_macs(self._path, self._macs())

    def close(self) -> None:
        del self._session


@dataclass(frozen=True)
class _Kernel:
    """A kernel that ONNX Runtime's profile shows. int8_macs: multiply-accumulates in integer products."""

    name: str
    operator: str
    provider: str
    int8_macs: int


def _kernels(events: list[dict[str, Any]]) -> Iterator[_Kernel]:
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        facts = event["args"]
        macs = _integer_macs(facts["op_name"], facts["input_type_shape"])
        yield _Kernel(event["name"].removesuffix("_kernel_time"), facts["op_name"], facts["provider"], macs)


_INTEGER_PRODUCTS = {
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "QGemm",
    "QAttention",
}


def _integer_macs(operator: str, inputs: list[dict[str, list[int]]]) -> int:
    """Multiply-accumulates of a kernel's integer products: rows of the first matrix times elements of the second. 0 for other
    kernels."""
    if operator not in _INTEGER_PRODUCTS:
        return 0
    shapes = [next(iter(type_shape.items())) for type_shape in inputs]
    second = next(shape for kind, shape in shapes[1:] if kind in ("int8", "uint8") and len(shape) >= 2)
    return math.prod(shapes[0][1][:-1]) * math.prod(second[-2:])


ONNXRUNTIME_FP32 = OnnxRuntime(
    name="onnxruntime_fp32", graph=("fp32", "none"), title="ORT FP32", any_family=True, traced=True
)
ONNXRUNTIME_INT8 = OnnxRuntime(
    name="onnxruntime_int8", graph=("fp32", "u8"), quantizes="static", relative_cost=0.6, title="ORT INT8 static"
)
ONNXRUNTIME_INT8_DYNAMIC = OnnxRuntime(
    name="onnxruntime_int8_dynamic",
    graph=("fp32", "dynamic"),
    quantizes="dynamic",
    relative_cost=0.5,
    title="ORT INT8 dynamic",
    any_family=True,
    traced=True,
)
