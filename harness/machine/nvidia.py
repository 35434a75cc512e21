"""The GPU that a cell runs on, as NVML tells it. Without nvidia-ml-py or a driver there is none, and the reason is given.

CUDA numbers GPUs by speed unless CUDA_DEVICE_ORDER says PCI_BUS_ID, which is NVML's order: the runner sets it for every process
that it starts, so that the numbers in CUDA_VISIBLE_DEVICES are nvidia-smi's, and both mean the same board.
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
"""Why clocks are lower than they could be. Idling is none of them."""


HARMFUL = ("heat, by software", "heat, by hardware", "power brake", "hardware slowdown")
"""Those that a sound machine does not show. At its power cap a board runs as it was built to."""


@dataclass(frozen=True)
class GpuSample:
    """None where the driver does not say."""

    sm_mhz: float | None
    memory_mhz: float | None
    celsius: float | None
    watts: float | None
    reasons: tuple[str, ...]
    processes: int | None
    memory_used: int | None


def visible() -> list[Any]:
    """Handles of the GPUs that CUDA may use, in its order; cells run on the first. NVML must be initialised.

    CUDA_VISIBLE_DEVICES as CUDA reads it: numbers or beginnings of UUIDs; what follows an entry that is no GPU's does not
    count. Raises QuantboardError for a part of a GPU (MIG), whose clocks, power and energy are not its own.
    """
    import pynvml

    every = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return every
    found = []
    for name in (part.strip() for part in asked.split(",")):
        if name.startswith("MIG-"):
            raise QuantboardError(
                f"CUDA_VISIBLE_DEVICES: {name}: a part of a GPU (MIG) cannot be measured, its clocks and energy are not its own; "
                "name a whole GPU by its number or GPU-uuid, or make it empty to use the processor alone"
            )
        if name.isdigit():
            fitting = every[int(name) : int(name) + 1]
        else:
            fitting = [one for one in every if name.startswith("GPU-") and uuid(one).startswith(name)]
        if len(fitting) != 1:
            break
        found += fitting
    return found


def uuid(handle: Any) -> str:
    import pynvml

    return str(_known(lambda: pynvml.nvmlDeviceGetUUID(handle)) or "")


@cache
def open_device() -> tuple[Any, str]:
    """(handle, "") of the first GPU that CUDA may use, or (None, why there is none)."""
    try:
        import pynvml
    except ImportError:
        return None, "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
        found = visible()
    except pynvml.NVMLError as error:
        return None, f"no NVIDIA driver answers ({error})"
    return (found[0], "") if found else (None, "CUDA_VISIBLE_DEVICES leaves no GPU")


def joules(handle: Any) -> float | None:
    """The board's energy since the driver was loaded."""
    import pynvml

    value = _known(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    return None if value is None else value / 1000


def sample(handle: Any) -> GpuSample:
    import pynvml

    power = _known(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    mask = int(_known(lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)) or 0)
    processes = _known(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    memory = _known(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    return GpuSample(
        sm_mhz=_known(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
        memory_mhz=_known(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)),
        celsius=_known(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        watts=None if power is None else power / 1000,
        reasons=tuple(name for name, bit in REASONS.items() if mask & getattr(pynvml, bit, 0)),
        processes=None if processes is None else len(processes),
        memory_used=None if memory is None else int(memory),
    )


def process_bytes(handle: Any, pid: int) -> int | None:
    """Device memory that the driver accounts to a process, its CUDA context included; None where it does not say, as in
    most containers, whose numbers of processes are not the driver's."""
    import pynvml

    found = _known(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ()
    return next((int(one.usedGpuMemory) for one in found if one.pid == pid and one.usedGpuMemory is not None), None)


def _known(ask: Callable[[], Any]) -> Any:
    import pynvml

    try:
        return ask()
    except pynvml.NVMLError:
        return None
