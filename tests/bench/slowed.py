"""`python -m tests.bench.slowed JOB`: a cell's process with a session that is slower by a known share. After every call it
keeps the processor busy for that share of the call's time."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backends import Availability, Batch, Device, Placement, Precision, Quantize, Session, Settings, get_backend

INNER = "onnxruntime_fp32"


class SlowedSession:
    def __init__(self, inner: Session, slow_down: float) -> None:
        self._inner, self._slow_down = inner, slow_down
        self.artifact_bytes, self.build_seconds, self.built = inner.artifact_bytes, inner.build_seconds, inner.built

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        start = time.perf_counter()
        logits = self._inner.run(batch)
        until = start + (time.perf_counter() - start) * (1 + self._slow_down)
        while time.perf_counter() < until:
            pass
        return logits

    def placement(self) -> Placement:
        return self._inner.placement()

    def close(self) -> None:
        self._inner.close()


@dataclass(frozen=True)
class Slowed:
    name: str = "slowed"
    version: int = 1
    distributions: tuple[str, ...] = ("onnxruntime",)
    quantizes: Literal["no", "static", "dynamic"] = "no"
    simulated: bool = False
    symmetric_only: bool = False
    graph: tuple[Precision, Quantize] | None = get_backend(INNER).graph
    options: Mapping[str, type] = field(default_factory=lambda: {"slow_down": float})

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        return get_backend(INNER).availability(machine)

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> SlowedSession:
        inner = get_backend(INNER).prepare(checkpoint, replace(settings, options={}), device)
        return SlowedSession(inner, float(settings.options["slow_down"]))


SLOWED = Slowed()


if __name__ == "__main__":
    import backends
    from harness.run.cell import main

    backends.BACKENDS.ours["slowed"] = "tests.bench.slowed:SLOWED"
    sys.exit(main(sys.argv[1:]))
