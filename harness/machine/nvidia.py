"""The state of the GPU that a cell runs on, read through NVML.

CUDA numbers GPUs by speed unless CUDA_DEVICE_ORDER is PCI_BUS_ID, which is NVML's order. The runner sets that for every process
that it starts, so that a number in CUDA_VISIBLE_DEVICES means the same board to CUDA and to NVML.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from harness.errors import QuantboardError

REASONS = {
    "power cap": "nvmlClocksEventReasonSwPowerCap",
    "heat, by software": "nvmlClocksEventReasonSwThermalSlowdown",
    "heat, by hardware": "nvmlClocksEventReasonHwThermalSlowdown",
    "power brake": "nvmlClocksEventReasonHwPowerBrakeSlowdown",
    "hardware slowdown": "nvmlClocksEventReasonHwSlowdown",
    "application clocks": "nvmlClocksEventReasonApplicationsClocksSetting",
    "sync boost": "nvmlClocksEventReasonSyncBoost",
}
"""NVML's reasons for lowered clocks, by the name in records. An idle GPU's low clocks are not among them."""


HARMFUL = ("heat, by software", "heat, by hardware", "power brake", "hardware slowdown")
"""Reasons that make a measurement invalid. The power cap is not one: running at it is normal."""


@dataclass(frozen=True)
class GpuSample:
    """One reading. A field is None where the driver does not report it."""

    sm_mhz: float | None
    memory_mhz: float | None
    celsius: float | None
    watts: float | None
    reasons: tuple[str, ...]
    processes: int | None
    memory_used: int | None


def visible() -> list[Any]:
    """NVML handles of the GPUs that CUDA may use, in its order; cells run on the first. NVML must be initialised.

    CUDA_VISIBLE_DEVICES is read as CUDA reads it: it lists numbers or prefixes of UUIDs, and CUDA ignores everything after the
    first name that matches no GPU. Raises QuantboardError for a part of a GPU (MIG), which has no clocks, power and energy
    readings of its own.
    """
    import pynvml

    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is None:
        return handles
    usable = []
    for name in (part.strip() for part in names.split(",")):
        if name.startswith("MIG-"):
            raise QuantboardError(
                f"CUDA_VISIBLE_DEVICES: {name}: a part of a GPU (MIG) cannot be measured, since it shares clocks and energy; "
                "name a whole GPU by its number or UUID, or set the variable to '' to use the CPU alone"
            )
        if name.isdigit():
            matches = handles[int(name) : int(name) + 1]
        else:
            matches = [handle for handle in handles if name.startswith("GPU-") and uuid(handle).startswith(name)]
        if len(matches) != 1:
            break
        usable += matches
    return usable


def uuid(handle: Any) -> str:
    import pynvml

    return str(_supported(lambda: pynvml.nvmlDeviceGetUUID(handle)) or "")


@cache
def open_device() -> tuple[Any, str]:
    """(handle, "") of the first GPU that CUDA may use, or (None, why there is none)."""
    try:
        import pynvml
    except ImportError:
        return None, "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
        handles = visible()
    except pynvml.NVMLError as error:
        return None, f"no NVIDIA driver found ({error})"
    return (handles[0], "") if handles else (None, "CUDA_VISIBLE_DEVICES hides every GPU")


def joules(handle: Any) -> float | None:
    """The board's energy since the driver was loaded, in joules; None where it does not count it."""
    import pynvml

    value = _supported(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    return None if value is None else value / 1000


def sample(handle: Any) -> GpuSample:
    import pynvml

    power = _supported(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    mask = int(_supported(lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)) or 0)
    processes = _supported(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    memory = _supported(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    return GpuSample(
        sm_mhz=_supported(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
        memory_mhz=_supported(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)),
        celsius=_supported(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        watts=None if power is None else power / 1000,
        reasons=tuple(name for name, bit in REASONS.items() if mask & getattr(pynvml, bit, 0)),
        processes=None if processes is None else len(processes),
        memory_used=None if memory is None else int(memory),
    )


def process_bytes(handle: Any, pid: int) -> int | None:
    """Device memory of a process, its CUDA context included; None where the driver does not know the process. That is so in most
    containers, which number processes in their own way."""
    import pynvml

    for process in _supported(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ():
        if process.pid == pid and process.usedGpuMemory is not None:
            return int(process.usedGpuMemory)
    return None


def _supported(query: Callable[[], Any]) -> Any:
    """What NVML answers, or None where this board or driver does not support the query."""
    import pynvml

    try:
        return query()
    except pynvml.NVMLError:
        return None
