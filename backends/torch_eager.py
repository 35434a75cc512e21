"""PyTorch, eager, with the model classes of transformers: in float32, which is the baseline, in bfloat16, and on GPUs in float16."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    Settings,
    check_length,
    installed,
    version_of,
)
from backends.checkpoint import read_encoder
from backends.families.generic import NOTE
from backends.model_files import SAFETENSORS
from backends.processor import multiplies_bfloat16
from backends.torch_models import counted_macs, disable_cudnn_attention, load_model, model_logits

if TYPE_CHECKING:
    import numpy as np
    import torch


Dtype = Literal["float32", "bfloat16", "float16"]
SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def on_cpu(dtype: Dtype, machine: Mapping[str, Any]) -> Availability:
    """Whether PyTorch computes in this type on the machine's processor, and does not emulate it."""
    if dtype == "float16":
        return Availability(
            False, "no NVIDIA GPU found: PyTorch has float16 for GPUs", "take the BF16 row, or use a GPU"
        )
    if dtype == "bfloat16" and not multiplies_bfloat16(machine):
        return Availability(
            False,
            "this processor has no bfloat16 arithmetic: PyTorch would emulate it, about a hundred times slower",
            "run it on a processor with AVX512-BF16 or AMX, or on a GPU",
        )
    return Availability(True)


@dataclass(frozen=True, kw_only=True)
class TorchEager(BackendFields):
    """The backend for one dtype of weights and activations. Logits are float32."""

    dtype: Dtype
    distributions: tuple[str, ...] = ("torch", "transformers")

    @property
    def floats(self) -> str:
        return SHORT[self.dtype]

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        for name in self.distributions:
            if not installed(name, machine):
                return Availability(False, f"{name} is not installed", f"python -m pip install {name}")
        cuda = bool(machine.get("assumed")) or not (version_of("torch") or "").endswith("+cpu")
        usable = bool(machine.get("gpus")) and cuda
        return Availability(True, device="cuda") if usable else on_cpu(self.dtype, machine)

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> TorchSession:
        import torch

        encoder = read_encoder(checkpoint)
        check_length(settings, encoder.positions)
        if device == "cuda" and not torch.cuda.is_available():
            raise BackendError("PyTorch finds no usable CUDA device; install a CUDA build of torch, or run on the CPU")
        torch.set_num_threads(settings.threads)
        if device == "cuda":
            disable_cudnn_attention()
        model = load_model(checkpoint, encoder).to(device=device, dtype=getattr(torch, self.dtype))
        size = (checkpoint / SAFETENSORS).stat().st_size
        return TorchSession(model, encoder, settings.max_length, size)


class TorchSession:
    built = False

    def __init__(self, model: torch.nn.Module, encoder: Encoder, max_length: int, size: int) -> None:
        self.model = model
        self._forward: Callable[..., Any] = model
        self._encoder = encoder
        self._length = max_length
        self.artifact_bytes = size
        self.build_seconds = 0.0
        self._device = next(model.parameters()).device

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        import torch

        with torch.inference_mode():
            inputs = {name: self._to_device(torch.from_numpy(batch[name])) for name in INPUTS}
            outputs = self._forward(**inputs)
            logits = model_logits(outputs, self._encoder, inputs["attention_mask"])
            values: np.ndarray[Any, Any] = logits.float().cpu().numpy()
            return values

    def _to_device(self, values: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cpu":
            return values
        return values.pin_memory().to(self._device, non_blocking=True)

    def placement(self) -> Placement:
        """Leaf modules by device and dtype: `cpu float32`, `cuda bfloat16` ... Attention runs in SDPA."""
        claimed = _provider(next(self.model.parameters()))
        detail = []
        for name, module in self.model.named_modules():
            if any(module.children()) or type(module).__name__ == "Dropout":
                continue
            parameter = next(module.parameters(), None)
            provider = claimed if parameter is None else _provider(parameter)
            detail.append((name, type(module).__name__, provider))
        nodes = Counter(provider for _, _, provider in detail)
        if isinstance(self._encoder, Architecture):
            return Placement(claimed, dict(nodes), 0, self._encoder.total_macs(self._length), tuple(detail))
        return Placement(claimed, dict(nodes), 0, counted_macs(self.model, self._length), tuple(detail), (NOTE,))

    def close(self) -> None:
        del self.model, self._forward


def _provider(parameter: torch.nn.Parameter) -> str:
    return f"{parameter.device.type} {str(parameter.dtype).removeprefix('torch.')}"


TORCH_FP32 = TorchEager(name="torch_fp32", dtype="float32", title="PyTorch FP32", any_family=True)
TORCH_BF16 = TorchEager(name="torch_bf16", dtype="bfloat16", graph=None, relative_cost=0.5, title="PyTorch BF16")
TORCH_FP16 = TorchEager(name="torch_fp16", dtype="float16", graph=None, relative_cost=0.5, title="PyTorch FP16")
