"""Backends by name. A new backend is one file and one line here, or an installed package's `quantboard.backends` entry point.

The modules named here import their engine only inside `prepare`, so that listing them is cheap."""

from __future__ import annotations

from backends.base import (
    Availability,
    Backend,
    BackendError,
    Batch,
    Device,
    Placement,
    Precision,
    Quantize,
    Session,
    Settings,
)
from backends.registry import Registry

__all__ = [
    "FOR_ONNX_FILES",
    "Availability",
    "Backend",
    "BackendError",
    "Batch",
    "Device",
    "Placement",
    "Precision",
    "Quantize",
    "Session",
    "Settings",
    "backend_names",
    "get_backend",
    "runs_any_family",
    "runs_traced",
]  # fmt: skip

BACKENDS = Registry(
    "backend",
    "quantboard.backends",
    {
        "torch_fp32": "backends.torch_eager:TORCH_FP32",
        "torch_bf16": "backends.torch_eager:TORCH_BF16",
        "torch_fp16": "backends.torch_eager:TORCH_FP16",
        "torch_compiled_fp32": "backends.torch_compiled:TORCH_COMPILED_FP32",
        "torch_compiled_bf16": "backends.torch_compiled:TORCH_COMPILED_BF16",
        "torch_compiled_fp16": "backends.torch_compiled:TORCH_COMPILED_FP16",
        "torch_int8": "backends.torch_int8:TORCH_INT8",
        "torch_int8_bf16": "backends.torch_int8:TORCH_INT8_BF16",
        "torch_int8_fp16": "backends.torch_int8:TORCH_INT8_FP16",
        "fake_quant_w8a8": "backends.fake_quant.backend:FAKE_QUANT_W8A8",
        "onnxruntime_fp32": "backends.onnx_runtime:ONNXRUNTIME_FP32",
        "onnxruntime_int8": "backends.onnx_runtime:ONNXRUNTIME_INT8",
        "onnxruntime_int8_dynamic": "backends.onnx_runtime:ONNXRUNTIME_INT8_DYNAMIC",
        "onnxruntime_file": "backends.onnx_file:ONNXRUNTIME_FILE",
        "openvino_fp32": "backends.open_vino:OPENVINO_FP32",
        "openvino_bf16": "backends.open_vino:OPENVINO_BF16",
        "openvino_int8": "backends.open_vino:OPENVINO_INT8",
        "openvino_int8_bf16": "backends.open_vino:OPENVINO_INT8_BF16",
        "tensorrt_fp16": "backends.tensor_rt:TENSORRT_FP16",
        "tensorrt_int8": "backends.tensor_rt:TENSORRT_INT8",
        "tensorrt_rtx_fp16": "backends.tensor_rt:TENSORRT_RTX_FP16",
        "tensorrt_rtx_int8": "backends.tensor_rt:TENSORRT_RTX_INT8",
    },
)
FOR_ONNX_FILES = "onnxruntime_file"
"""The backend of graphs that were made elsewhere: it runs them as they are, and nothing else."""


def backend_names() -> list[str]:
    """All backend names that a suite may use; imports no backend."""
    return BACKENDS.names()


def get_backend(name: str) -> Backend:
    """The backend of that name. Raises BackendError for an unknown name, with the nearest known one."""
    backend: Backend = BACKENDS.get(name)
    return backend


def runs_any_family(backend: Backend) -> bool:
    """Whether a backend also runs encoders whose family is not known here."""
    return bool(getattr(backend, "any_family", False))


def runs_traced(backend: Backend) -> bool:
    """Whether it runs such encoders in the graph of PyTorch's exporter."""
    return bool(getattr(backend, "traced", False))
