"""What every engine offers: is it here, load this checkpoint, run this batch. A backend knows no suite, task or record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

Batch = Mapping[str, "np.ndarray[Any, Any]"]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What a batch holds, each (batch, length) int64."""
Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "fp16"]
Quantize = Literal["none", "u8", "s8", "dynamic"]


class BackendError(Exception):
    """A checkpoint, scheme or setting that an engine cannot take; its text is one line that says what and the remedy."""


@dataclass(frozen=True)
class Settings:
    """max_length in tokens; max_batch sequences; threads for the engine's own pool (intra-op; inter-op is always 1).
    cache: where an engine may keep what it builds (ONNX files, TensorRT engines). options: a backend entry's own keys."""

    max_length: int
    max_batch: int
    threads: int
    cache: Path
    options: Mapping[str, Any] = field(default_factory=dict)


def check_length(settings: Settings, positions: int) -> None:
    """Raises BackendError where sequences may be longer than a model has positions."""
    if settings.max_length > positions:
        raise BackendError(
            f"max_length {settings.max_length} is more than the model's {positions} positions; lower shape.max_length"
        )


@dataclass(frozen=True)
class Availability:
    """Whether an engine can run on a machine, and on which device; when not, why, and what to do about it."""

    available: bool
    reason: str = ""
    remedy: str = ""
    device: Device = "cpu"


def installed(distribution: str, machine: Mapping[str, Any]) -> bool:
    """Whether it is there, or `machine` is one that is assumed, with all that goes with a GPU (`plan --assume gpu`)."""
    if machine.get("assumed"):
        return True
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


@dataclass(frozen=True)
class Placement:
    """What really ran where.

    nodes: how many graph nodes (or modules) each provider or kernel class ran, as the engine itself reports.
    int8_macs, total_macs: multiply-accumulates of one sequence of max_length that ran as integer products, and all.
    claimed: the provider that the backend stands for; a matrix product that `detail` has on another provider makes a cell invalid.
    detail: one (name, operator, provider or kernel) a node, for the cell's page.
    """

    claimed: str
    nodes: Mapping[str, int]
    int8_macs: int
    total_macs: int
    detail: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()


class Session(Protocol):
    """A checkpoint loaded into an engine, ready to take batches."""

    artifact_bytes: int
    """Size of what the engine loads: ONNX file, engine plan, or weights file."""
    build_seconds: float
    """Export, optimization and engine build; 0 when it came from the cache (then `built` is False)."""
    built: bool

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        """`input_ids`, `attention_mask`, `token_type_ids`, each (batch, length) int64 C-contiguous on the host, length <= max_length
        -> float32 logits on the host: (batch, length, 2) for question answering, (batch, labels) else. Returns when they are there."""

    def placement(self) -> Placement: ...

    def close(self) -> None: ...


class Backend(Protocol):
    """An engine at a precision.

    A backend may also have `relative_cost: float`, roughly the time of a forward pass on a CPU with VNNI, of which FP32's is 1
    (the default). Only the estimate that is printed before a run reads it.
    """

    name: str
    """ENGINE_PRECISION, the engine in one word: pages compare an engine's integer flavours with its floating-point one."""
    version: int
    """Raised on purpose when results or speed change: it is part of every cell's key."""
    distributions: tuple[str, ...]
    """Installed distributions whose versions belong to a cell's key (`torch`, `onnxruntime` ...), the first that is installed of `a|b`."""
    quantizes: Literal["no", "static", "dynamic"]
    """static: needs a checkpoint with ranges (its own, or calibrated by a post-training scheme)."""
    simulated: bool
    """True: its speed says nothing about any engine, so none is recorded."""
    symmetric_only: bool
    """True: takes only symmetric activation schemes (TensorRT)."""
    graph: tuple[Precision, Quantize] | None
    """How `backends.export` writes what it computes, as its tensors' type and their quantizers; None where ONNX cannot say it."""
    options: Mapping[str, type]
    """Keys that a `[[backends]]` entry may set beside name and scheme, with their types."""

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        """From package metadata and the machine description alone; imports no engine. `machine["gpus"]` lists NVIDIA GPUs."""

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> Session:
        """Load a checkpoint folder. Quantizing backends read `ranges.json` in it. Raises BackendError."""
