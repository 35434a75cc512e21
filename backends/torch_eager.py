"""PyTorch, eager, with the model classes of transformers: in float32, which is the baseline, and in bfloat16."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from backends.architecture import Architecture
from backends.base import (
    INPUTS,
    Availability,
    BackendError,
    Batch,
    Device,
    Placement,
    Precision,
    Quantize,
    Settings,
    check_length,
    installed,
)
from backends.checkpoint import read_architecture
from backends.model_files import SAFETENSORS
from backends.pooling import pool
from backends.processor import multiplies_bfloat16
from backends.torch_models import disable_cudnn_attention, load_model

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class TorchEager:
    """The backend for one dtype of weights and activations. Logits are float32."""

    name: str
    dtype: Literal["float32", "bfloat16"]
    version: int = 1
    distributions: tuple[str, ...] = ("torch", "transformers")
    quantizes: Literal["no", "static", "dynamic"] = "no"
    simulated: bool = False
    symmetric_only: bool = False
    options: Mapping[str, type] = field(default_factory=dict)
    relative_cost: float = 1.0

    @property
    def title(self) -> str:
        return "PyTorch FP32" if self.dtype == "float32" else "PyTorch BF16"

    @property
    def floats(self) -> str:
        return "fp32" if self.dtype == "float32" else "bf16"

    @property
    def graph(self) -> tuple[Precision, Quantize] | None:
        return ("fp32", "none") if self.dtype == "float32" else None

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        for name in self.distributions:
            if not installed(name, machine):
                return Availability(False, f"{name} is not installed", f"python -m pip install {name}")
        cuda = bool(machine.get("assumed")) or not version("torch").endswith("+cpu")
        usable = bool(machine.get("gpus")) and cuda
        if self.dtype == "bfloat16" and not usable and not multiplies_bfloat16(machine):
            return Availability(
                False,
                "this processor has no bfloat16 arithmetic: PyTorch would emulate it, about a hundred times slower",
                "run it on a processor with AVX512-BF16 or AMX, or on a GPU",
            )
        return Availability(True, device="cuda" if usable else "cpu")

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> TorchSession:
        import torch

        architecture = read_architecture(checkpoint)
        check_length(settings, architecture.positions)
        if device == "cuda" and not torch.cuda.is_available():
            raise BackendError("PyTorch finds no usable CUDA device; install a CUDA build of torch, or run on the CPU")
        torch.set_num_threads(settings.threads)
        if device == "cuda":
            disable_cudnn_attention()
        model = load_model(checkpoint, architecture).to(device=device, dtype=getattr(torch, self.dtype))
        size = (checkpoint / SAFETENSORS).stat().st_size
        return TorchSession(model, architecture, settings.max_length, size)


class TorchSession:
    built = False

    def __init__(self, model: torch.nn.Module, architecture: Architecture, max_length: int, size: int) -> None:
        self.model = model
        self._forward: Callable[..., Any] = model
        self._architecture = architecture
        self._length = max_length
        self.artifact_bytes = size
        self.build_seconds = 0.0
        self._device = next(model.parameters()).device

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        import torch

        with torch.inference_mode():
            inputs = {name: self._to_device(torch.from_numpy(batch[name])) for name in INPUTS}
            outputs = self._forward(**inputs)
            if self._architecture.head == "question_answering":
                logits = torch.stack((outputs.start_logits, outputs.end_logits), dim=-1)
            elif self._architecture.pooling:
                logits = pool(outputs.last_hidden_state, inputs["attention_mask"], self._architecture.pooling)
            else:
                logits = outputs.logits
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
        return Placement(claimed, dict(nodes), 0, self._architecture.total_macs(self._length), tuple(detail))

    def close(self) -> None:
        del self.model, self._forward


def _provider(parameter: torch.nn.Parameter) -> str:
    return f"{parameter.device.type} {str(parameter.dtype).removeprefix('torch.')}"


TORCH_FP32 = TorchEager("torch_fp32", "float32")
TORCH_BF16 = TorchEager("torch_bf16", "bfloat16", relative_cost=0.5)
