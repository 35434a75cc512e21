"""What the runner sees while a cell is measured: a sample a second of clocks, temperature, power and memory.

The measured process takes no samples itself. What it reads before and after a test is in `harness.measure.conditions`.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.machine import nvidia
from harness.records.speed_schema import GpuConditions, Range

PERIOD = 1.0
"""Seconds between samples."""


MAX_CPUS = 16
"""How many processors' clocks are read, so that a sample on a large machine costs no more than on a small one."""


CPUFREQ, CPUINFO = "cpufreq", "/proc/cpuinfo; nominal in a virtual machine"
"""Where clocks are read, as records name it."""


@dataclass(frozen=True)
class Sample:
    """at: seconds of the monotonic clock. mhz: of each processor that is read."""

    at: float
    mhz: tuple[float, ...]
    gpu: nvidia.GpuSample | None


class Watch:
    """`with Watch(device) as watch:` around a process; afterwards `watch.add_to(results)` adds the samples to its results."""

    def __init__(self, device: str, period: float = PERIOD, root: Path = Path("/")) -> None:
        self._period = period
        self._gpu = nvidia.open_device()[0] if device == "cuda" else None
        cpus = sorted(os.sched_getaffinity(0))[:MAX_CPUS]
        clocks = [root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq" for cpu in cpus]
        self._clocks = [path for path in clocks if path.exists()]
        self._cpuinfo = root / "proc/cpuinfo"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)
        self._samples: list[Sample] = []
        self._cpu_seconds = self._wall_seconds = 0.0

    def __enter__(self) -> Watch:
        self._began = (time.process_time(), time.perf_counter())
        self._before = self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._cpu_seconds = time.process_time() - self._began[0]
        self._wall_seconds = time.perf_counter() - self._began[1]

    @property
    def cpu_percent(self) -> float:
        """Processor time of this whole process meanwhile, in percent of one processor."""
        return 100 * self._cpu_seconds / self._wall_seconds if self._wall_seconds else 0.0

    def _work(self) -> None:
        while not self._ended.wait(self._period):
            self._samples.append(self._sample())

    def _sample(self) -> Sample:
        return Sample(time.perf_counter(), self._mhz(), nvidia.sample(self._gpu) if self._gpu else None)

    def _mhz(self) -> tuple[float, ...]:
        try:
            if self._clocks:
                return tuple(float(path.read_text()) / 1000 for path in self._clocks)
            lines = self._cpuinfo.read_text().splitlines()
            return tuple(float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz"))[:MAX_CPUS]
        except (OSError, ValueError):
            return ()

    def add_conditions(self, tests: Iterable[dict[str, Any]], others: int = 0) -> None:
        """Add to the conditions of each test the samples that were taken during it. Both processes share the monotonic clock.
        others: processes of this run that are on the GPU beside the test's own."""
        for test in tests:
            conditions = test["round"]["conditions"]
            if conditions is None:
                continue
            began, ended = conditions["began_seconds"], conditions["ended_seconds"]
            samples = [sample for sample in self._samples if began <= sample.at <= ended]
            mhz = value_range(value for sample in samples for value in sample.mhz)
            gpu = _gpu_conditions([sample.gpu for sample in samples if sample.gpu])
            conditions |= {
                "samples": len(samples),
                "cpu_mhz": mhz.model_dump() if mhz else None,
                "cpu_mhz_source": (CPUFREQ if self._clocks else CPUINFO) if mhz else "",
                "gpu": gpu.model_dump() if gpu else None,
                "runner_cpu_percent": self.cpu_percent,
            }
            if gpu and gpu.processes is not None:
                conditions["gpu"]["processes"] = max(1, gpu.processes - others)

    def add_to(self, results: dict[str, Any]) -> None:
        """Add the samples to the results of a speed round's process, and its device memory where the engine does not say it."""
        self.add_conditions(results["rounds"])
        if self._gpu and results.get("peak_device_bytes") is None:
            gpus = [sample.gpu for sample in self._samples if sample.gpu]
            used = [gpu.memory_used for gpu in gpus if gpu.memory_used is not None]
            idle = self._before.gpu.memory_used if self._before.gpu else None
            if used and idle is not None:
                results["peak_device_bytes"] = max(used) - idle
                results["device_memory_source"] = (
                    f"most used on the GPU, in samples {self._period:g} s apart, less what was used before the process"
                )


def value_range(values: Iterable[float | None]) -> Range | None:
    """Lowest, mean and highest of the values that are known; None where none is."""
    known = [float(value) for value in values if value is not None]
    return Range(lowest=min(known), mean=statistics.fmean(known), highest=max(known)) if known else None


def _gpu_conditions(samples: Sequence[nvidia.GpuSample]) -> GpuConditions | None:
    if not samples:
        return None
    reasons = Counter(reason for sample in samples for reason in sample.reasons)
    processes = [sample.processes for sample in samples if sample.processes is not None]
    used = [sample.memory_used for sample in samples if sample.memory_used is not None]
    return GpuConditions(
        sm_mhz=value_range(sample.sm_mhz for sample in samples),
        memory_mhz=value_range(sample.memory_mhz for sample in samples),
        celsius=value_range(sample.celsius for sample in samples),
        watts=value_range(sample.watts for sample in samples),
        throttled_percent={reason: 100 * count / len(samples) for reason, count in reasons.items()},
        processes=max(processes) if processes else None,
        memory_used_bytes=max(used) if used else None,
    )
