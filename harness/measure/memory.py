"""Memory of this very process, as the kernel and the NVIDIA driver count it."""

from __future__ import annotations

import os
from pathlib import Path


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def available_bytes() -> int | None:
    """What new processes may take without swapping, as the kernel estimates it for the whole machine."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def rss_bytes() -> int:
    """Resident memory now."""
    return _status("VmRSS")


def peak_rss_bytes() -> int:
    """The most resident memory since the process began (VmHWM)."""
    return _status("VmHWM")


def device_peak_bytes() -> int | None:
    """GPU memory that the driver accounts to this process now, its CUDA context included; None where it does not say.

    Engines keep what they once took (caching allocators, arenas), so at the end of a round this is the peak."""
    from harness.measure import nvidia

    handle, _ = nvidia.open_device()
    return nvidia.process_bytes(handle, os.getpid()) if handle else None
