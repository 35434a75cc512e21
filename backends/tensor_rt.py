"""TensorRT 11 (and 10.13 onwards), and TensorRT for RTX: INT8 by explicit Q/DQ, FP16 by FP16 tensors in the graph.

The graph of backends.export sets every precision; the builder (`tensor_rt_build`) chooses kernels only. Inputs and logits pass
through pinned host buffers and one stream; a call returns when the logits are on the host.

Compiled by NVIDIA's builder, not run: TensorRT for RTX's parser and builder accept the graphs, for which they need no GPU. This
project has not run an engine yet. The code is type-checked against stubs of TensorRT's real 11.4 API, which both libraries have, and
the graphs run in ONNX Runtime.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.artefacts import move_sealed, usable
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
    Session,
    Settings,
    installed,
)
from backends.checkpoint import read_architecture
from backends.tensor_rt_build import COMPUTE_CAPABILITIES, Library, build, load

if TYPE_CHECKING:
    import numpy as np
    import tensorrt as trt

ENGINE_VERSION = "1"
"""Raise it, and the version of the backends, when `build` makes a different engine from the same graph."""
OUTPUT = "logits"


@dataclass(frozen=True, kw_only=True)
class TensorRT(BackendFields):
    """The backend for one library and precision."""

    graph: tuple[Precision, Quantize]
    library: Library = "tensorrt"
    distributions: tuple[str, ...] = ("tensorrt",)
    symmetric_only: bool = True

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        if not machine.get("gpus"):
            return Availability(
                False, "no NVIDIA GPU found", "run it on a machine with one (`nvidia-smi` must list it)"
            )
        rtx = self.library == "tensorrt_rtx"
        capability = machine["gpus"][0].get("compute_capability", "")
        if rtx and capability and capability not in COMPUTE_CAPABILITIES:
            return Availability(
                False,
                f"TensorRT for RTX does not compile for a GPU of compute capability {capability}",
                f"take the tensorrt_* backends, or a GPU of {', '.join(COMPUTE_CAPABILITIES)}",
            )
        if not installed(self.library, machine):
            title, extra = ("TensorRT for RTX", "tensorrt-rtx") if rtx else ("TensorRT", "tensorrt")
            return Availability(
                False, f"{title} is not installed", f"python -m pip install -e '.[{extra}]' in the checkout"
            )
        return Availability(True, device="cuda")

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> Session:
        """Export the checkpoint, build the engine or load it from the cache, make contexts and buffers. Raises BackendError."""
        if device != "cuda":
            raise BackendError(f"{self.name}: runs on NVIDIA GPUs only, not on '{device}'")
        try:
            load(self.library)  # its shared libraries may be missing although it is installed
            from cuda.bindings import runtime  # noqa: F401
        except (ImportError, OSError) as error:
            extra = self.library.replace("_", "-")
            raise BackendError(
                f"{self.name}: {extra} does not load: {error}; reinstall 'quantboard[{extra}]' for this driver"
            ) from None
        return TensorRTSession(self, checkpoint, settings)


TENSORRT_FP16 = TensorRT(name="tensorrt_fp16", graph=("fp16", "none"), title="TensorRT FP16")
TENSORRT_INT8 = TensorRT(name="tensorrt_int8", graph=("fp16", "s8"), quantizes="static", title="TensorRT INT8")
TENSORRT_RTX_FP16 = replace(
    TENSORRT_FP16,
    name="tensorrt_rtx_fp16",
    library="tensorrt_rtx",
    distributions=("tensorrt_rtx",),
    title="TensorRT RTX FP16",
)
TENSORRT_RTX_INT8 = replace(
    TENSORRT_INT8,
    name="tensorrt_rtx_int8",
    library="tensorrt_rtx",
    distributions=("tensorrt_rtx",),
    title="TensorRT RTX INT8",
)


class TensorRTSession:
    """An engine with one context for each optimization profile. Not thread-safe."""

    def __init__(self, backend: TensorRT, checkpoint: Path, settings: Settings) -> None:
        trt = load(backend.library)
        self._library = backend.library
        self._name = backend.name
        self._settings = settings
        self._integer = backend.quantizes != "no"
        self._architecture = read_architecture(checkpoint)
        self._logger = trt.Logger(trt.ILogger.Severity.WARNING)
        start = time.perf_counter()
        self._onnx = export(backend, checkpoint, settings)
        plan = settings.cache / "tensorrt" / f"{engine_key(self._onnx, settings, backend.library)}.plan"
        self.built = not usable(plan, settings.cache)
        if self.built:
            from filelock import FileLock

            plan.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{plan}.lock"):
                if not usable(plan, settings.cache):
                    part = plan.with_suffix(".part")
                    part.write_bytes(build(self._onnx, settings.max_batch, settings.max_length, backend.library))
                    move_sealed(part, plan, settings.cache / "hashes")
        self.build_seconds = time.perf_counter() - start if self.built else 0.0
        self.artifact_bytes = plan.stat().st_size
        engine = trt.Runtime(self._logger).deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            plan.unlink(missing_ok=True)
            raise BackendError(
                f"{self._name}: the engine in the cache does not load on this GPU and was removed; run it again"
            )
        self._engine = engine
        self._buffers = Buffers(settings.max_batch, settings.max_length, output_width(engine, settings.max_length))
        self._contexts = [self._context(index) for index in range(engine.num_optimization_profiles)]

    def _context(self, profile: int) -> trt.IExecutionContext:
        context = self._engine.create_execution_context()
        if context is None:
            raise BackendError(
                f"{self._name}: the GPU has no memory left for an execution context; use a smaller batch size"
            )
        context.set_optimization_profile_async(profile, self._buffers.stream)
        for name, buffer in self._buffers.device.items():
            context.set_tensor_address(name, buffer)
        return context

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        rows, length = batch["input_ids"].shape
        context = self._contexts[0 if rows == 1 else -1]
        for name in INPUTS:
            context.set_input_shape(name, (rows, length))
            self._buffers.upload(name, batch[name])
        if not context.execute_async_v3(self._buffers.stream):
            raise RuntimeError(f"{self._name}: the engine refused a batch of {rows} x {length}")
        return self._buffers.download(sizes(context.get_tensor_shape(OUTPUT)))

    def placement(self) -> Placement:
        """Layers by precision, as the engine inspector reports them."""
        from backends.export import product_macs, promised_macs

        trt = load(self._library)
        text = self._engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        macs = product_macs(self._architecture, self._settings.max_length)
        placement = placement_of(json.loads(text), macs)
        return replace(placement, promised_macs=promised_macs(self._onnx, macs)) if self._integer else placement

    def close(self) -> None:
        self._contexts.clear()
        self._buffers.close()


def export(backend: TensorRT, checkpoint: Path, settings: Settings) -> Path:
    """The ONNX file that the engine is built from, in the cache: FP16 tensors, with Q/DQ (s8, zero point 0) for INT8."""
    from backends.export import export_cached

    precision, quantize = backend.graph
    return export_cached(checkpoint, settings.cache, precision=precision, quantize=quantize)[0]


def engine_key(onnx_file: Path, settings: Settings, library: Library) -> str:
    """Hash of what an engine depends on: the graph, the library's version, the GPU, its driver, and the largest shape."""
    from cuda.bindings import runtime as cuda
    from pynvml import nvmlInit, nvmlSystemGetDriverVersion

    nvmlInit()
    error, properties = cuda.cudaGetDeviceProperties(0)  # the first GPU visible to this process; NVML would count all
    if error != cuda.cudaError_t.cudaSuccess:
        raise BackendError(f"CUDA cannot describe its first GPU: {error}; check that `nvidia-smi` lists it")
    gpu = properties.name.decode()
    graph = hashlib.sha256(onnx_file.read_bytes()).hexdigest()
    parts = [
        ENGINE_VERSION,
        graph,
        *([library] if library != "tensorrt" else []),
        load(library).__version__,
        gpu,
        str(nvmlSystemGetDriverVersion()),
        str(settings.max_batch),
        str(settings.max_length),
    ]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def output_width(engine: trt.ICudaEngine, max_length: int) -> int:
    """Largest number of logits of one sequence."""
    shape = sizes(engine.get_tensor_shape(OUTPUT))[1:]
    return math.prod(max_length if size < 0 else size for size in shape)


def sizes(shape: trt.Dims) -> tuple[int, ...]:
    """A TensorRT shape as a plain tuple; -1 where it is dynamic."""
    return tuple(int(shape[axis]) for axis in range(len(shape)))


class Buffers:
    """Pinned host memory and device memory for the largest inputs and output, and the stream that copies between them."""

    def __init__(self, batch: int, length: int, width: int) -> None:
        import numpy as np
        from cuda.bindings import runtime as cuda

        self._cuda = cuda
        self.stream = int(self._checked(cuda.cudaStreamCreate()))
        self.device: dict[str, int] = {}
        self._pinned: dict[str, int] = {}
        self._views: dict[str, np.ndarray[Any, Any]] = {}
        inputs: list[tuple[str, int, np.dtype[Any]]] = [(name, batch * length, np.dtype(np.int64)) for name in INPUTS]
        for name, count, kind in [*inputs, (OUTPUT, batch * width, np.dtype(np.float32))]:
            size = count * kind.itemsize
            self.device[name] = int(self._checked(cuda.cudaMalloc(size)))
            pinned = int(self._checked(cuda.cudaMallocHost(size)))
            self._pinned[name] = pinned
            self._views[name] = np.ctypeslib.as_array((ctypes.c_byte * size).from_address(pinned)).view(kind)

    def _checked(self, result: tuple[Any, ...]) -> Any:
        code, *values = result
        if int(code) != 0:
            raise RuntimeError(f"CUDA: {code.name}")
        return values[0] if values else None

    def upload(self, name: str, values: np.ndarray[Any, Any]) -> None:
        staging = self._views[name][: values.size]
        staging[:] = values.reshape(-1)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._checked(
            self._cuda.cudaMemcpyAsync(self.device[name], self._pinned[name], staging.nbytes, kind, self.stream)
        )

    def download(self, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        staging = self._views[OUTPUT][: math.prod(shape)]
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._checked(
            self._cuda.cudaMemcpyAsync(self._pinned[OUTPUT], self.device[OUTPUT], staging.nbytes, kind, self.stream)
        )
        self._checked(self._cuda.cudaStreamSynchronize(self.stream))
        return staging.reshape(shape).copy()

    def close(self) -> None:
        self._views.clear()
        for pointer in self.device.values():
            self._checked(self._cuda.cudaFree(pointer))
        for pointer in self._pinned.values():
            self._checked(self._cuda.cudaFreeHost(pointer))
        self._checked(self._cuda.cudaStreamDestroy(self.stream))


def placement_of(information: Mapping[str, Any], macs: Mapping[str, int]) -> Placement:
    """The placement that the inspector's JSON shows. A product counts as INT8 if the engine layer that contains its node reads
    Int8. macs: multiply-accumulates of each product, by name of its ONNX node.

    An engine layer names the ONNX nodes it was fused from in `Metadata` or, joined by ` + `, in `Name`, and what it reads in
    `Inputs[].Format/Datatype`. A layer that only changes a format may name the node that it feeds.
    """
    nodes: dict[str, int] = {}
    detail: list[tuple[str, str, str]] = []
    int8 = set[str]()
    for layer in information.get("Layers", []):
        if isinstance(layer, str):  # the engine was built without detailed verbosity
            layer = {"Name": layer}
        reads = [
            "Int8" if "Int8" in tensor.get("Format/Datatype", "") else "float" for tensor in layer.get("Inputs", [])
        ]
        products = set() if layer.get("LayerType") == "Reformat" else _fused_nodes(layer) & macs.keys()
        kind = "INT8" if "Int8" in reads and products else "FP16/FP32"
        if kind == "INT8":
            int8 |= products
        nodes[kind] = nodes.get(kind, 0) + 1
        detail.append((layer.get("Name", "?"), layer.get("LayerType", "?"), layer.get("TacticName", kind) or kind))
    return Placement("TensorRT", nodes, sum(macs[name] for name in int8), sum(macs.values()), tuple(detail))


def _fused_nodes(layer: Mapping[str, Any]) -> set[str]:
    """The ONNX nodes that an engine layer was fused from."""
    return set(re.findall(r"\[ONNX Layer: ([^\]]+)\]", layer.get("Metadata", ""))) or set(
        layer.get("Name", "").split(" + ")
    )
