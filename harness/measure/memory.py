"""Memory of this process and of the machine, as the kernel and the NVIDIA driver count it."""

from __future__ import annotations

import os
import re
from pathlib import Path


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def available_bytes(root: Path = Path("/")) -> int | None:
    """What new processes can take without swapping: the kernel's estimate for the whole machine, or less where a cgroup of this
    process grants less (cgroup v2 and v1). None where the kernel does not say."""
    lines = _read(root / "proc/meminfo").splitlines()
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for line in _read(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        granted, used, cached = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        folder = top / name.strip("/")
        for group in (folder, *folder.parents):
            limit, taken = _read(group / granted).strip(), _read(group / used).strip()
            if limit.isdigit() and taken.isdigit():
                cache = re.search(rf"^{cached} (\d+)", _read(group / "memory.stat"), re.MULTILINE)
                # The kernel gives back the cache of files where memory is needed.
                available.append(int(limit) - int(taken) + int(cache[1] if cache else 0))
            if group == top:
                break
    return min(available, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def rss_bytes() -> int:
    """Resident memory now."""
    return _status("VmRSS")


def peak_rss_bytes() -> int:
    """The most resident memory since the process began (VmHWM)."""
    return _status("VmHWM")


def device_peak_bytes() -> int | None:
    """GPU memory that the driver counts for this process now, its CUDA context included; None where it does not say.

    Engines keep what they once took (caching allocators, arenas), so at the end of a round this is the peak."""
    from harness.machine import nvidia

    handle, _ = nvidia.open_device()
    return nvidia.process_bytes(handle, os.getpid()) if handle else None
