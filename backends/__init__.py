"""Backends by name. A new backend is one file and one line here, or an installed package's `quantboard.backends` entry point.

The modules named here import their engine only inside `prepare`, so that listing them costs nothing."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

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

__all__ = [
    "Availability", "Backend", "BackendError", "Batch", "Device", "Placement", "Precision", "Quantize", "Session", "Settings",
    "backend_names", "get_backend",
]  # fmt: skip

_REGISTRY = {
    "torch_fp32": "backends.torch_eager:TORCH_FP32",
    "torch_bf16": "backends.torch_eager:TORCH_BF16",
    "fake_quant_w8a8": "backends.fake_quant.backend:FAKE_QUANT_W8A8",
    "onnxruntime_fp32": "backends.onnx_runtime:ONNXRUNTIME_FP32",
    "onnxruntime_int8": "backends.onnx_runtime:ONNXRUNTIME_INT8",
    "onnxruntime_int8_dynamic": "backends.onnx_runtime:ONNXRUNTIME_INT8_DYNAMIC",
    "tensorrt_fp16": "backends.tensor_rt:TENSORRT_FP16",
    "tensorrt_int8": "backends.tensor_rt:TENSORRT_INT8",
}


@cache
def _installed() -> dict[str, str]:
    """Of installed packages. Kept: looking through them all takes 10 ms."""
    return {point.name: point.value for point in entry_points(group="quantboard.backends")}


def backend_names() -> list[str]:
    """All backend names that a suite may use; imports no backend."""
    return [*_REGISTRY, *_installed()]


def get_backend(name: str) -> Backend:
    """The backend of that name. Raises BackendError with a suggestion for an unknown one."""
    target = _REGISTRY.get(name) or _installed().get(name)
    if target is None:
        near = difflib.get_close_matches(name, backend_names(), 1)
        raise BackendError(
            f"unknown backend '{name}'"
            + (f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(backend_names())}")
        )
    module, _, attribute = target.partition(":")
    backend: Backend = getattr(import_module(module), attribute)
    return backend
