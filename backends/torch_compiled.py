"""PyTorch compiled by its Inductor: the models of `torch_eager`, fused.

Weights stay as they are: laid out beforehand for oneDNN (Inductor's `freezing`), MiniLM in float32 took 1.14 to 1.20 times as long on a
processor with AVX2, where MKL multiplies otherwise.

Batch and length are free, so nothing is compiled during a measurement: `prepare` compiles for one sequence and for several, which
PyTorch tells apart. What it compiles is cached; a later process only traces the model again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.architecture import Architecture
from backends.base import (
    Availability,
    BackendError,
    BackendFields,
    Device,
    Placement,
    Settings,
    check_length,
    installed,
)
from backends.checkpoint import read_architecture
from backends.model_files import SAFETENSORS
from backends.torch_eager import SHORT, TORCH_FP16, Dtype, TorchSession, on_cpu
from backends.torch_models import disable_cudnn_attention, load_model

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class TorchCompiled(BackendFields):
    """The backend for one dtype of weights and activations. float16 runs on GPUs, where Triton compiles it; the others run on the
    CPU, also where there is a GPU."""

    dtype: Dtype
    distributions: tuple[str, ...] = ("torch", "transformers")
    start_seconds: float = 45.0
    """Of a process beyond an ordinary one's: PyTorch traces the model again, though nothing is compiled."""

    @property
    def floats(self) -> str:
        return SHORT[self.dtype]

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        if self.dtype == "float16":
            return TORCH_FP16.availability(machine)
        for name in self.distributions:
            if not installed(name, machine):
                return Availability(False, f"{name} is not installed", f"python -m pip install {name}")
        if not machine.get("assumed") and shutil.which(_compiler()) is None:
            return Availability(
                False,
                f"no C++ compiler: torch.compile calls '{_compiler()}'",
                "install one (Debian and Ubuntu: apt install g++), or name yours in the variable CXX",
            )
        return on_cpu(self.dtype, machine)

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> TorchCompiledSession:
        architecture = read_architecture(checkpoint)
        check_length(settings, architecture.positions)
        model = self.load(checkpoint, architecture, settings, device)
        return TorchCompiledSession(model, architecture, settings, (checkpoint / SAFETENSORS).stat().st_size)

    def load(self, checkpoint: Path, architecture: Architecture, settings: Settings, device: Device) -> torch.nn.Module:
        """The model that is to be compiled, in the backend's type, in a process that is ready to compile it."""
        if device == "cuda" and self.dtype != "float16":
            raise BackendError(f"{self.name}: runs on the CPU only, not on '{device}'")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(settings.cache / "inductor")
        import torch

        torch.set_num_threads(settings.threads)
        if device == "cuda":
            disable_cudnn_attention()
        return load_model(checkpoint, architecture).to(device=device, dtype=getattr(torch, self.dtype))


def _compiler() -> str:
    """The command that Inductor calls on Linux."""
    return os.environ.get("CXX") or "g++"


class TorchCompiledSession(TorchSession):
    """built: whether anything was compiled; without that, loading it from the cache still traces the model. frozen: whether weights are
    constants, which the cache then has not."""

    frozen = False

    def __init__(self, model: torch.nn.Module, architecture: Architecture, settings: Settings, size: int) -> None:
        super().__init__(model, architecture, settings.max_length, size)
        import numpy as np
        import torch
        from torch._dynamo.utils import counters
        from torch._inductor import config

        config.compile_threads = 1  # else its worker processes live on beside the measurement
        config.freezing = self.frozen  # as an option of torch.compile it does nothing: Dynamo reads it from here
        started, missed, broken = time.perf_counter(), _cache_misses(), sum(counters["graph_break"].values())
        self._forward = torch.compile(model, dynamic=True)
        for rows in {settings.max_batch, 1}:
            ids = np.zeros((rows, settings.max_length), np.int64)
            mask = np.ones_like(ids)
            mask[:, -1] = rows == 1  # padding in a batch, none in a single sequence
            self.run({"input_ids": ids, "attention_mask": mask, "token_type_ids": ids})
        self.built = _cache_misses() > missed
        self.build_seconds = time.perf_counter() - started if self.built else 0.0
        self._breaks = sum(counters["graph_break"].values()) - broken

    def placement(self) -> Placement:
        """Of the modules, as PyTorch has them; a note where parts of the model run as they are, between compiled ones."""
        placement = super().placement()
        notes = (f"torch.compile left {self._breaks} parts of the model as they are",) if self._breaks else ()
        return replace(placement, notes=notes)


def _cache_misses() -> int:
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["fxgraph_cache_miss"] + counters["inductor"]["fxgraph_cache_bypass"])


TORCH_COMPILED_FP32 = TorchCompiled(name="torch_compiled_fp32", dtype="float32", title="PyTorch compiled")
TORCH_COMPILED_BF16 = TorchCompiled(
    name="torch_compiled_bf16", dtype="bfloat16", graph=None, relative_cost=0.5, title="PT BF16, compiled"
)
TORCH_COMPILED_FP16 = TorchCompiled(
    name="torch_compiled_fp16", dtype="float16", graph=None, relative_cost=0.5, title="PT FP16, compiled"
)
