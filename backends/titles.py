"""What pages call our backends: in plain words, and in short ones for charts. An identifier stands beside them."""

from __future__ import annotations

from backends import get_backend
from backends.base import BackendError

_TITLES = {
    "torch_fp32": ("PyTorch FP32", "PyTorch FP32"),
    "torch_compiled_fp32": ("PyTorch FP32, compiled", "PyTorch compiled"),
    "torch_compiled_bf16": ("PyTorch BF16, compiled", "PyTorch BF16 compiled"),
    "torch_compiled_fp16": ("PyTorch FP16, compiled", "PyTorch FP16 compiled"),
    "torch_bf16": ("PyTorch BF16", "PyTorch BF16"),
    "torch_fp16": ("PyTorch FP16", "PyTorch FP16"),
    "torch_int8": ("PyTorch INT8, compiled", "PyTorch INT8"),
    "torch_int8_bf16": ("PyTorch INT8 and BF16, compiled", "PyTorch INT8+BF16"),
    "torch_int8_fp16": ("PyTorch INT8 and FP16, compiled", "PyTorch INT8+FP16"),
    "fake_quant_w8a8": ("Simulated W8A8", "Simulated W8A8"),
    "onnxruntime_fp32": ("ONNX Runtime FP32", "ORT FP32"),
    "onnxruntime_int8": ("ONNX Runtime INT8", "ORT INT8"),
    "onnxruntime_int8_dynamic": ("ONNX Runtime INT8", "ORT INT8"),
    "onnxruntime_file": ("ONNX Runtime, given file", "ORT file"),
    "openvino_fp32": ("OpenVINO FP32", "OpenVINO FP32"),
    "openvino_bf16": ("OpenVINO BF16", "OpenVINO BF16"),
    "openvino_int8": ("OpenVINO INT8", "OpenVINO INT8"),
    "openvino_int8_bf16": ("OpenVINO INT8 and BF16", "OpenVINO INT8+BF16"),
    "tensorrt_fp16": ("TensorRT FP16", "TensorRT FP16"),
    "tensorrt_int8": ("TensorRT INT8", "TensorRT INT8"),
    "tensorrt_rtx_fp16": ("TensorRT for RTX FP16", "TRT-RTX FP16"),
    "tensorrt_rtx_int8": ("TensorRT for RTX INT8", "TRT-RTX INT8"),
}


def titles(name: str) -> tuple[str, str]:
    """Of a backend: engine and precision, and the same in short. An installed package's backend may have a `title`; else its
    name stands for itself, as do names that older records have."""
    if name in _TITLES:
        return _TITLES[name]
    try:
        title = str(getattr(get_backend(name), "title", "")) or name
    except BackendError:
        title = name
    return title, title


def how_it_quantizes(name: str) -> str:
    """`no`, `static` or `dynamic`; empty for a name that is no longer known."""
    try:
        return get_backend(name).quantizes
    except BackendError:
        return ""
