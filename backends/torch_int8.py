"""Static INT8 in PyTorch with the ranges of a checkpoint: integer products of oneDNN on CPUs and of cuBLAS on GPUs. Inductor compiles
the model, which fuses rounding before a product and scaling after it with the operators around them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.architecture import Architecture
from backends.base import Availability, BackendError, Device, Placement, Settings, check_length
from backends.checkpoint import read_architecture
from backends.model_files import SAFETENSORS
from backends.processor import saturates_integer_products
from backends.torch_compiled import TorchCompiled, TorchCompiledSession

if TYPE_CHECKING:
    import torch

    from backends.ranges import Ranges

VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}


@dataclass(frozen=True, kw_only=True)
class TorchInt8(TorchCompiled):
    """The backend for one dtype of what is not integer: float32 and bfloat16 run on CPUs, float16 on GPUs."""

    linears_only: bool = True

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        found = super().availability(machine)
        if not found.available or found.device == "cuda" or VNNI & set(machine.get("flags", VNNI)):
            return found
        return Availability(
            False,
            "this processor has no VNNI, and PyTorch's integer products would saturate",
            "take onnxruntime_int8, which is exact here, or a processor with VNNI",
        )

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> TorchInt8Session:
        """Raises BackendError for a folder without a valid `ranges.json`, for schemes that quantize more than linear layers, and for
        models with attention by relative position as DeBERTa has it."""
        from backends.ranges import read_ranges

        architecture, ranges = read_architecture(checkpoint), read_ranges(checkpoint)
        check_length(settings, architecture.positions)
        if ranges.scheme.tensors == "op_outputs":
            raise BackendError(
                f"{self.name}: '{ranges.scheme.name}' quantizes more than linear layers; take engine_int8"
            )
        if architecture.disentangled:
            raise BackendError(f"{self.name}: {NO_POSITIONS[0]}; {NO_POSITIONS[1]}")
        model = self.load(checkpoint, architecture, settings, device)
        return TorchInt8Session(model, architecture, settings, (checkpoint / SAFETENSORS).stat().st_size, ranges)


NO_POSITIONS = (
    "attention by relative position multiplies a table with the same weights, and that has no range",
    "take onnxruntime_int8",
)
"""Why a model like DeBERTa does not run, and what to do."""


class TorchInt8Session(TorchCompiledSession):
    """Batches may be of any size up to `max_batch` x `max_length`. Its file is that of the float32 weights, which are rounded here."""

    def __init__(
        self, model: torch.nn.Module, architecture: Architecture, settings: Settings, size: int, ranges: Ranges
    ) -> None:
        from backends.integer_linear import install

        layers = install(model, ranges)
        self.frozen = next(model.parameters()).device.type == "cpu"  # oneDNN takes no other weights
        super().__init__(model, architecture, settings, size)
        self._integer_macs = sum(architecture.linear_macs(name, settings.max_length) for name in layers)

    def placement(self) -> Placement:
        """Of the modules. Those that were replaced have integer products: PyTorch has no other kernel for what they call."""
        plain = super().placement()
        integer = f"{self._device.type} int8"
        detail = tuple(
            (name, operator, integer if operator == "IntegerLinear" else provider)
            for name, operator, provider in plain.detail
        )
        notes = plain.notes
        if self._device.type == "cpu" and saturates_integer_products():
            notes = (*notes, "this CPU has no VNNI: u8 x s8 products saturate where the sum of a pair leaves 16 bits")
        return replace(
            plain,
            nodes=dict(Counter(provider for _, _, provider in detail)),
            int8_macs=self._integer_macs,
            detail=detail,
            notes=notes,
            promised_macs=self._integer_macs,
        )


TORCH_INT8 = TorchInt8(
    name="torch_int8",
    dtype="float32",
    graph=("fp32", "u8"),
    quantizes="static",
    relative_cost=0.6,
    title="PyTorch INT8",
)
TORCH_INT8_BF16 = TorchInt8(
    name="torch_int8_bf16", dtype="bfloat16", graph=None, quantizes="static", relative_cost=0.4, title="PT INT8+BF16"
)
TORCH_INT8_FP16 = TorchInt8(
    name="torch_int8_fp16", dtype="float16", graph=None, quantizes="static", relative_cost=0.4, title="PT INT8+FP16"
)
