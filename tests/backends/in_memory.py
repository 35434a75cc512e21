"""A backend without an engine: its logits show which tokens it saw, and a call keeps the processor busy for a known time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backends import Availability, Batch, Device, Placement, Precision, Quantize, Settings
from backends.base import INPUTS


class InMemorySession:
    """Logits of a token are its input id, and the input id where it is attended, else 0. With `labels`, the logits of a
    sequence are the sum of its attended ids, repeated `labels` times. A call keeps the processor busy for `seconds_a_call` +
    `seconds_a_token` x tokens, padding included.

    shapes, began, ended: of every call; times by `time.perf_counter`.
    """

    artifact_bytes = 0
    build_seconds = 0.0
    built = False

    def __init__(self, seconds_a_call: float = 0.0, seconds_a_token: float = 0.0, labels: int = 0) -> None:
        self.seconds_a_call = seconds_a_call
        self.seconds_a_token = seconds_a_token
        self.labels = labels
        self.shapes: list[tuple[int, int]] = []
        self.began: list[float] = []
        self.ended: list[float] = []

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        """Checks that its caller keeps the contract of `Session.run`."""
        start = time.perf_counter()
        assert set(batch) == set(INPUTS)
        ids, mask, _ = (batch[name] for name in INPUTS)
        for values in batch.values():
            assert values.dtype == np.int64
            assert values.shape == ids.shape
            assert values.flags.c_contiguous
        if self.labels:
            logits = np.repeat((ids * mask).sum(1, keepdims=True), self.labels, axis=1).astype(np.float32)
        else:
            logits = np.stack([ids, ids * mask], axis=-1).astype(np.float32)
        until = start + self.seconds_a_call + self.seconds_a_token * ids.size
        while time.perf_counter() < until:
            pass
        self.shapes.append(ids.shape)
        self.began.append(start)
        self.ended.append(time.perf_counter())
        return logits

    def placement(self) -> Placement:
        return Placement("memory", {"memory": 1}, 0, 1, (("logits", "MatMul", "memory"),))

    def close(self) -> None: ...


@dataclass(frozen=True)
class InMemory:
    """The backend of `InMemorySession`; takes any checkpoint folder."""

    name: str = "in_memory"
    version: int = 1
    distributions: tuple[str, ...] = ("numpy",)
    quantizes: Literal["no", "static", "dynamic"] = "no"
    simulated: bool = False
    symmetric_only: bool = False
    graph: tuple[Precision, Quantize] | None = None
    options: Mapping[str, type] = field(default_factory=lambda: {"seconds_a_call": float, "labels": int})

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        return Availability(True)

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> InMemorySession:
        return InMemorySession(**settings.options)


IN_MEMORY = InMemory()
