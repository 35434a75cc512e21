"""What else the machine did during a test: counters of the kernel and the NVIDIA driver, read before and after it.

The kernel counts how long each processor was busy, and how long this process ran, but not on which processor it ran. So what
others took of a single processor is known as a bound: no more than they took of all, and than the busiest was busy. How long
the threads of this process stood in line for a processor is counted exactly (`run_delay` of schedstat): a pool whose threads
wait for each other loses up to that time.

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


OTHERS_BOUND = 5.0
"""Percent of the processors' time that other processes may take."""


WORST_BOUND = 25.0
"""Percent of a single processor's time that other processes, or the hypervisor, may take. Threads of a pool wait for the one
that lacks its processor, so one busy processor of 32 counts as much as one of two."""


WAITED_BOUND = 5.0
"""Percent of a test's duration that all threads of the process together may stand in line for a processor."""


GPU_COUNTER, RAPL_COUNTER = "NVML's energy counter of the GPU board", "RAPL, all processor packages"


@dataclass(frozen=True)
class Counters:
    """Seconds of processor time, of the processors that this process may use; energy in joules.

    at: when they were read, by `time.perf_counter`. busy: user, system and interrupts, of all processes. own: of this process.
    steal: taken by the hypervisor. quota: held back by the cgroup. thermal: with clocks lowered for heat, as the processor
    counts it. quota and thermal are None where the machine does not say. joules: by counter, with the value at which the
    counter wraps around. energy: which counters those are, or why there are none. busy_by_cpu, steal_by_cpu: the parts of busy
    and steal, in the order of cpus. waits: seconds that each thread of this process stood in line for a processor, by thread;
    None where the kernel does not count it.
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
    busy_by_cpu: tuple[float, ...] = ()
    steal_by_cpu: tuple[float, ...] = ()
    waits: Mapping[str, float] | None = None

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
                busy=sum(busy),
                own=time.process_time(),
                steal=sum(steal),
                quota=_throttled(quota) if quota else None,
                thermal=sum(float(path.read_text()) for path in thermal) / 1000 if thermal else None,
                joules=read_energy(),
                energy=energy_source,
                busy_by_cpu=busy,
                steal_by_cpu=steal,
                waits=_waits(root),
            )

        return read


def _busy(root: Path, cpus: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(busy, stolen) seconds of each of these processors since the machine started. Guest time is part of user time (proc(5))."""
    names = {f"cpu{cpu}" for cpu in cpus}
    busy, stolen = [], []
    for line in (root / "proc/stat").read_text().splitlines():
        name, *words = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[:8])
            busy.append((user + nice + system + irq + softirq) / TICK)
            stolen.append(steal / TICK)
    return tuple(busy), tuple(stolen)


def _waits(root: Path) -> dict[str, float] | None:
    """Seconds that each thread of this process has waited for a processor (the kernel's Documentation/scheduler/sched-stats)."""
    waits = {}
    for task in (root / "proc/self/task").glob("*"):
        words = _read(task / "schedstat").split()
        if len(words) < 3:  # it has ended, or this kernel does not count
            continue
        waits[task.name] = int(words[1]) / 1e9
    return waits or None


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
        worst_other_percent=_worst_other(before, after),
        worst_steal_percent=100 * max(_differences(before.steal_by_cpu, after.steal_by_cpu), default=0.0) / seconds,
        waited_percent=_waited(before, after),
    )


def _differences(before: Iterable[float], after: Iterable[float]) -> list[float]:
    return [max(0.0, later - earlier) for earlier, later in zip(before, after, strict=True)]


def _worst_other(before: Counters, after: Counters) -> float:
    """Percent of a processor that others took of any single one, at most."""
    others = max(0.0, after.busy - before.busy - (after.own - before.own))
    busiest = max(_differences(before.busy_by_cpu, after.busy_by_cpu), default=0.0)
    return 100 * min(others, busiest) / (after.at - before.at)


def _waited(before: Counters, after: Counters) -> float | None:
    if before.waits is None or after.waits is None:
        return None
    waited = sum(wait - before.waits.get(thread, 0.0) for thread, wait in after.waits.items())
    return 100 * waited / (after.at - before.at)


def are_others_there(mean_percent: float | None, worst_percent: float | None, waited_percent: float | None) -> bool:
    """Whether other processes took more than they may: of all processors together, or of a single one that threads of this
    process then waited for. Each is None where it is not known."""
    worst = worst_percent is not None and worst_percent > WORST_BOUND
    waited = waited_percent is None or waited_percent > WAITED_BOUND
    return (mean_percent is not None and mean_percent > OTHERS_BOUND) or (worst and waited)


def _joules(before: Counters, after: Counters) -> float | None:
    """Joules; None where a counter could not be read the second time."""
    total = 0.0
    for name, (earlier, wraps_at) in before.joules.items():
        later = after.joules[name][0]
        total += later - earlier if later >= earlier else later - earlier + wraps_at
    return total if math.isfinite(total) else None
