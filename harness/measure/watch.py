"""The runner's view of a cell that is being measured: a sample a second of clocks, temperature, power and memory.

The measured process samples nothing itself; what it reads before and after a test is in `harness.measure.conditions`.
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


MOST_CPUS = 16
"""Whose clocks are read, so that a sample on a large machine costs no more than on a small one."""


CPUFREQ, CPUINFO = "cpufreq", "/proc/cpuinfo; nominal in a virtual machine"


@dataclass(frozen=True)
class Seen:
    at: float
    mhz: tuple[float, ...]
    gpu: nvidia.GpuSample | None


class Watch:
    """`with Watch(device) as watch:` around a process; afterwards `watch.complete(found)` adds to what it found."""

    def __init__(self, device: str, period: float = PERIOD, root: Path = Path("/")) -> None:
        self._period = period
        self._gpu = nvidia.open_device()[0] if device == "cuda" else None
        cpus = sorted(os.sched_getaffinity(0))[:MOST_CPUS]
        clocks = [root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq" for cpu in cpus]
        self._clocks = [path for path in clocks if path.exists()]
        self._cpuinfo = root / "proc/cpuinfo"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)
        self._seen: list[Seen] = []
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
        """Of one processor's time, what this whole process took meanwhile."""
        return 100 * self._cpu_seconds / self._wall_seconds if self._wall_seconds else 0.0

    def _work(self) -> None:
        while not self._ended.wait(self._period):
            self._seen.append(self._sample())

    def _sample(self) -> Seen:
        return Seen(time.perf_counter(), self._mhz(), nvidia.sample(self._gpu) if self._gpu else None)

    def _mhz(self) -> tuple[float, ...]:
        try:
            if self._clocks:
                return tuple(float(path.read_text()) / 1000 for path in self._clocks)
            lines = self._cpuinfo.read_text().splitlines()
            return tuple(float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz"))[:MOST_CPUS]
        except (OSError, ValueError):
            return ()

    def complete(self, found: dict[str, Any]) -> None:
        """Put what was seen into the conditions of each test that a round's process `found`, by their times on the clock that
        both processes share."""
        for entry in found["rounds"]:
            conditions = entry["round"]["conditions"]
            if conditions is None:
                continue
            seen = [one for one in self._seen if conditions["began_seconds"] <= one.at <= conditions["ended_seconds"]]
            mhz = between(value for one in seen for value in one.mhz)
            gpu = _gpu([one.gpu for one in seen if one.gpu])
            conditions |= {
                "samples": len(seen),
                "cpu_mhz": mhz.model_dump() if mhz else None,
                "cpu_mhz_source": (CPUFREQ if self._clocks else CPUINFO) if mhz else "",
                "gpu": gpu.model_dump() if gpu else None,
                "runner_cpu_percent": self.cpu_percent,
            }
        if self._gpu and found.get("peak_device_bytes") is None:
            used = [one.gpu.memory_used for one in self._seen if one.gpu and one.gpu.memory_used is not None]
            idle = self._before.gpu.memory_used if self._before.gpu else None
            if used and idle is not None:
                found["peak_device_bytes"] = max(used) - idle
                found["device_memory_source"] = (
                    f"most used on the GPU, in samples {self._period:g} s apart, less what was used before the process"
                )


def between(values: Iterable[float | None]) -> Range | None:
    known = [float(value) for value in values if value is not None]
    return Range(lowest=min(known), mean=statistics.fmean(known), highest=max(known)) if known else None


def _gpu(seen: Sequence[nvidia.GpuSample]) -> GpuConditions | None:
    if not seen:
        return None
    counted = Counter(reason for one in seen for reason in one.reasons)
    processes = [one.processes for one in seen if one.processes is not None]
    used = [one.memory_used for one in seen if one.memory_used is not None]
    return GpuConditions(
        sm_mhz=between(one.sm_mhz for one in seen),
        memory_mhz=between(one.memory_mhz for one in seen),
        celsius=between(one.celsius for one in seen),
        watts=between(one.watts for one in seen),
        throttled_percent={reason: 100 * count / len(seen) for reason, count in counted.items()},
        processes=max(processes) if processes else None,
        memory_used_bytes=max(used) if used else None,
    )
