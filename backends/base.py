"""The contract of backends: say whether the engine is available, load a checkpoint, run a batch. A backend knows no suite, task
or record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
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
    """A checkpoint, scheme or setting that an engine cannot use. Its text is one line: what is wrong, and how to fix it."""


@dataclass(frozen=True)
class Settings:
    """max_length: in tokens. max_batch: in sequences. threads: of the engine's own pool (intra-op; inter-op is always 1). cache:
    folder for what an engine builds (ONNX files, TensorRT engines). options: the other keys of the `[[backends]]` entry.
    takes_turns: sessions of other processes run between two calls of this one, and wait until its threads are idle."""

    max_length: int
    max_batch: int
    threads: int
    cache: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    takes_turns: bool = False


def check_length(settings: Settings, positions: int) -> None:
    """Raises BackendError if sequences may be longer than the model's position table allows."""
    if settings.max_length > positions:
        raise BackendError(
            f"max_length {settings.max_length} is more than the model's {positions} positions; lower shape.max_length"
        )


@dataclass(frozen=True)
class Availability:
    """Whether an engine can run on a machine, and on which device. If not: the reason, and what to do about it."""

    available: bool
    reason: str = ""
    remedy: str = ""
    device: Device = "cpu"


def installed(distribution: str, machine: Mapping[str, Any]) -> bool:
    """Whether a distribution is installed. An assumed machine (`plan --assume gpu`) counts as having it."""
    return bool(machine.get("assumed")) or version_of(distribution) is not None


@cache
def version_of(distribution: str) -> str | None:
    """Its installed version; None where it is not installed. Looking it up takes milliseconds, and the cells of a plan ask for the
    same ones; `importlib.metadata.version` would parse all that a package says of itself as an e-mail."""
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return None
    said = re.search(r"^Version: (.+)$", found.read_text("METADATA") or "", flags=re.M)
    return said[1].strip() if said else found.version


@dataclass(frozen=True)
class Placement:
    """What ran where, as the engine itself reports it.

    claimed: the provider that the backend promises; a matrix product on another provider makes a cell invalid.
    nodes: number of graph nodes (or modules) of each provider or kernel class.
    int8_macs, total_macs: multiply-accumulates of one sequence of max_length: those in integer products, and all of them.
    detail: (name, operator, provider or kernel) of each node, for the cell's page.
    promised_macs: those of int8_macs that the graph asks for, None where the backend does not know; a cell that has fewer is
    invalid.
    """

    claimed: str
    nodes: Mapping[str, int]
    int8_macs: int
    total_macs: int
    detail: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    promised_macs: int | None = None


class Session(Protocol):
    """A checkpoint loaded into an engine, ready to take batches."""

    artifact_bytes: int
    """Size of what the engine loads: ONNX file, engine plan, or weights file."""
    build_seconds: float
    """Time of export, optimization and engine build; 0 where all came from the cache."""
    built: bool
    """False where all came from the cache."""

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        """INPUTS, each (batch, length) int64, C-contiguous, on the host, length <= max_length -> float32 logits on the host:
        (batch, length, 2) for question answering, otherwise (batch, labels). Returns when the logits are complete."""

    def placement(self) -> Placement: ...

    def close(self) -> None: ...


class Backend(Protocol):
    """An engine at a precision.

    A backend may also have `relative_cost: float`: roughly the time of a forward pass on a CPU with VNNI, relative to FP32
    (default 1). Only the estimate that is printed before a run reads it. It may have a `title`, at most 17 characters: what
    narrow tables call it. It may have `floats`, where products that are not integer have another type than the graph: `fp32` or
    `bf16`; `any_family`: whether it also runs encoders of families that are not known here; and `traced`: whether it runs them in
    the graph of PyTorch's exporter. `linears_only`: it runs schemes that quantize linear layers and nothing between them, and no
    model that multiplies a table of relative positions with their weights, as DeBERTa does.
    """

    name: str
    """ENGINE_PRECISION, with the engine in one word: pages compare the integer backends of an engine with its floating-point
    one."""
    version: int
    """Part of every cell's key. Raise it whenever results or speed change."""
    distributions: tuple[str, ...]
    """Distributions whose installed versions are part of a cell's key (`torch`, `onnxruntime` ...). `a|b` means the first that is
    installed."""
    quantizes: Literal["no", "static", "dynamic"]
    """static: needs a checkpoint with ranges, from QAT or from calibration with a post-training scheme."""
    simulated: bool
    """True: no speed is recorded, since it says nothing about any engine."""
    symmetric_only: bool
    """True: supports symmetric activation schemes only (TensorRT)."""
    graph: tuple[Precision, Quantize] | None
    """How `backends.export` writes the graph that the backend computes: type of its tensors, and quantizers. None where ONNX
    cannot express it."""
    options: Mapping[str, type]
    """Keys, with their types, that a `[[backends]]` entry may set besides name and scheme."""

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        """From package metadata and the machine description alone; imports no engine. `machine["gpus"]` lists NVIDIA GPUs."""

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> Session:
        """Load a checkpoint folder. Quantizing backends read `ranges.json` in it. Raises BackendError."""


@dataclass(frozen=True, kw_only=True)
class BackendFields:
    """The attributes of a Backend, with what most backends have."""

    name: str
    version: int = 1
    distributions: tuple[str, ...]
    quantizes: Literal["no", "static", "dynamic"] = "no"
    simulated: bool = False
    symmetric_only: bool = False
    linears_only: bool = False
    graph: tuple[Precision, Quantize] | None = ("fp32", "none")
    options: Mapping[str, type] = field(default_factory=dict)
    relative_cost: float = 1.0
    title: str = ""
    any_family: bool = False
    traced: bool = False
