"""What else the machine did during a test: counters of the kernel and the NVIDIA driver, read before and after it.

Clocks, temperature and power are levels, not counters: the runner samples them meanwhile (`harness.measure.watch`).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.machine import nvidia
from harness.records.speed_schema import Conditions

ROOT = Path("/")


TICK = os.sysconf("SC_CLK_TCK")
"""Units of /proc/stat in a second."""


GPU_COUNTER, RAPL_COUNTER = "NVML's energy counter of the GPU board", "RAPL, all processor packages"


@dataclass(frozen=True)
class Counters:
    """Seconds of processor time, of the processors that this process may use; energy in joules.

    at: when they were read, by `time.perf_counter`. busy: user, system and interrupts, of all processes. own: of this process.
    steal: taken by the hypervisor. quota: held back by the cgroup. thermal: with clocks lowered for heat, as the processor
    counts it. quota and thermal are None where the machine does not say. joules: by counter, with the value at which the
    counter wraps around. energy: which counters those are, or why there are none.
    """

    at: float
    cpus: tuple[int, ...]
    busy: float
    own: float
    steal: float
    quota: float | None
    thermal: float | None
    joules: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    energy: str = ""

    @classmethod
    def reader(cls, device: str, root: Path = ROOT, *, cpus: Iterable[int] | None = None) -> Callable[[], Counters]:
        """A function that reads all counters; which of them exist is found once. device: `cpu` or `cuda`. cpus: processors to
        read, where they are not those that this process may use."""
        cpus = tuple(sorted(os.sched_getaffinity(0) if cpus is None else cpus))
        thermal = [
            root / f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/core_throttle_total_time_ms" for cpu in cpus
        ]
        thermal = [path for path in thermal if path.exists()]
        quota = _cpu_stat(root)
        read_energy, energy_source = _energy(device, root)

        def read() -> Counters:
            busy, steal = _busy(root, cpus)
            return cls(
                at=time.perf_counter(),
                cpus=cpus,
                busy=busy,
                own=time.process_time(),
                steal=steal,
                quota=_throttled(quota) if quota else None,
                thermal=sum(float(path.read_text()) for path in thermal) / 1000 if thermal else None,
                joules=read_energy(),
                energy=energy_source,
            )

        return read


def _busy(root: Path, cpus: tuple[int, ...]) -> tuple[float, float]:
    """(busy, stolen) seconds of these processors since the machine started. Guest time is part of user time (proc(5))."""
    names = {f"cpu{cpu}" for cpu in cpus}
    busy = stolen = 0
    for line in (root / "proc/stat").read_text().splitlines():
        name, *words = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[:8])
            busy += user + nice + system + irq + softirq
            stolen += steal
    return busy / TICK, stolen / TICK


def _cpu_stat(root: Path) -> Path | None:
    """cgroup v2's cpu.stat of this process, where it has a quota's counters."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            for folder in (root / "sys/fs/cgroup" / line[3:].lstrip("/"), root / "sys/fs/cgroup"):
                if "throttled_usec" in _read(folder / "cpu.stat"):
                    return folder / "cpu.stat"
    return None


def _throttled(path: Path) -> float:
    lines = (line.split() for line in _read(path).splitlines())
    return next((int(value) / 1e6 for name, value in lines if name == "throttled_usec"), 0.0)


def _energy(device: str, root: Path) -> tuple[Callable[[], dict[str, tuple[float, float]]], str]:
    """A function that reads the energy counters of a device, and their name or why there are none."""
    if device == "cuda":
        handle, why = nvidia.open_device()
        if handle is None:
            return dict, f"not measured: {why}"
        if nvidia.joules(handle) is None:
            return dict, "not measured: this GPU has no energy counter that NVML reads"
        return lambda: {"gpu": (nvidia.joules(handle) or 0.0, float("inf"))}, GPU_COUNTER
    folder = root / "sys/class/powercap"
    packages = [path for path in sorted(folder.glob("*-rapl:*")) if _read(path / "name").startswith("package")]
    if not packages:
        return dict, "not measured: this machine shows no RAPL counters in /sys/class/powercap"
    if not all(os.access(path / "energy_uj", os.R_OK) for path in packages):
        return dict, "not measured: RAPL's counters may only be read by root; run as root or allow reading energy_uj"

    def read() -> dict[str, tuple[float, float]]:
        return {
            path.name: (int(_read(path / "energy_uj")) / 1e6, int(_read(path / "max_energy_range_uj")) / 1e6)
            for path in packages
        }

    return read, RAPL_COUNTER


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def conditions_between(before: Counters, after: Counters, began: float, ended: float, threads: int) -> Conditions:
    """What happened between two readings. began, ended: first issue and last completion, seconds of the monotonic clock."""
    seconds = after.at - before.at
    capacity = seconds * len(before.cpus)

    def percent(earlier: float | None, later: float | None) -> float | None:
        return None if earlier is None or later is None else 100 * max(0.0, later - earlier) / capacity

    own = after.own - before.own
    busy = after.busy - before.busy
    return Conditions(
        began_seconds=began,
        ended_seconds=ended,
        threads=threads,
        affinity=list(before.cpus),
        own_cpu_percent=100 * own / capacity,
        other_cpu_percent=100 * max(0.0, busy - own) / capacity,
        steal_percent=100 * max(0.0, after.steal - before.steal) / capacity,
        quota_throttled_percent=percent(before.quota, after.quota),
        thermal_throttled_percent=percent(before.thermal, after.thermal),
        energy_joules=_joules(before, after) if before.joules else None,
        energy_source=before.energy,
    )


def _joules(before: Counters, after: Counters) -> float | None:
    """Joules; None where a counter could not be read the second time."""
    total = 0.0
    for name, (earlier, wraps_at) in before.joules.items():
        later = after.joules[name][0]
        total += later - earlier if later >= earlier else later - earlier + wraps_at
    return total if math.isfinite(total) else None
