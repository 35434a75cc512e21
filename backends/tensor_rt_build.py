"""An ONNX file -> an engine, by the parser and builder of TensorRT or of TensorRT for RTX, which have the same API.

There are two optimization profiles, for batch 1 and for larger batches, so that batch 1 does not get kernels that were chosen for
throughput. TensorRT times kernels on the GPU at hand. TensorRT for RTX compiles ahead of time for the kinds of GPU that are named,
and needs none; its runtime compiles the kernels on the GPU in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backends.base import INPUTS, BackendError

if TYPE_CHECKING:
    import tensorrt as trt

Library = Literal["tensorrt", "tensorrt_rtx"]
COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""The kinds of GPU that TensorRT for RTX compiles for: Turing, Ampere, Ada and Blackwell."""
WORKSPACE_BYTES = 4 << 30

if TYPE_CHECKING:

    class _Api:
        """What both modules have, to the type checker: the names of TensorRT's own."""

        __version__: str
        Logger = trt.Logger
        ILogger = trt.ILogger
        Builder = trt.Builder
        NetworkDefinitionCreationFlag = trt.NetworkDefinitionCreationFlag
        OnnxParser = trt.OnnxParser
        MemoryPoolType = trt.MemoryPoolType
        ProfilingVerbosity = trt.ProfilingVerbosity
        Dims = trt.Dims
        Runtime = trt.Runtime
        LayerInformationFormat = trt.LayerInformationFormat


def load(library: Library) -> _Api:
    """The module of that name. Raises ImportError or OSError where it is missing or does not load."""
    module: _Api = import_module(library)  # type: ignore[assignment]
    return module


def build(
    onnx_file: Path,
    max_batch: int,
    max_length: int,
    library: Library = "tensorrt",
    capabilities: Sequence[str] = (),
) -> bytes:
    """A serialized engine for batches up to (max_batch, max_length), smaller and shorter ones included.

    capabilities: of COMPUTE_CAPABILITIES, the kinds of GPU to compile for; by default the GPU at hand. TensorRT for RTX only.
    Raises BackendError with the parser's first error.
    """
    trt = load(library)
    logger = trt.Logger(trt.ILogger.Severity.WARNING)
    builder = trt.Builder(logger)
    # TensorRT 11 ignores the flag, since its networks are always strongly typed; 10.x needs it.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        error = parser.get_error(0)
        raise BackendError(
            f"{onnx_file}: {library} {trt.__version__} rejects node {error.node()} ({error.node_name()}): {error.desc()}; try"
            " another version of it"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if capabilities:
        _aim(config, library, capabilities)
    for batch in sorted({1, max_batch}):
        profile = builder.create_optimization_profile()
        smallest, largest = trt.Dims([1, 1]), trt.Dims([batch, max_length])
        for name in INPUTS:
            profile.set_shape(name, smallest, largest, largest)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(f"{onnx_file}: {library} {trt.__version__} could not build an engine; see its log above")
    return bytes(plan)


def _aim(config: trt.IBuilderConfig, library: Library, capabilities: Sequence[str]) -> None:
    """Compile for these kinds of GPU, and for no other."""
    if library != "tensorrt_rtx" or (unknown := set(capabilities) - set(COMPUTE_CAPABILITIES)):
        wrong = f"compute capability {', '.join(sorted(unknown))}" if library == "tensorrt_rtx" else library
        raise BackendError(
            f"{wrong}: engines are compiled ahead of time by tensorrt_rtx for {', '.join(COMPUTE_CAPABILITIES)}"
        )
    kinds = import_module(library).ComputeCapability
    config.num_compute_capabilities = len(capabilities)  # type: ignore[attr-defined]  # TensorRT for RTX has it alone
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(getattr(kinds, f"SM{capability.replace('.', '')}"), index)  # type: ignore[attr-defined]
