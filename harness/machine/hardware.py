"""What a run runs on, as found: processor, memory, GPUs, versions, the checkout's commit. Imports no engine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

FLAGS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16", "sve"),  # Arm's
)
"""Instructions that decide how fast, and with which rounding, an engine's integer and bfloat16 products run."""


ROOT = Path("/")


@lru_cache(maxsize=1)
def describe() -> dict[str, Any]:
    """Plain data for records and keys. cores: physical cores that this process may use. memory_bytes: of the machine.
    gpus: those that CUDA may use, empty without one; cells run on the first. The machine's name is left out on purpose."""
    text = _read("/proc/cpuinfo")
    return {
        "cpu": _field(text, "model name") or platform.processor() or platform.machine(),
        "cpu_model": " ".join(_field(text, name) for name in ("vendor_id", "cpu family", "model", "stepping")).strip(),
        "cores": cores(),
        "logical_cores": len(_allowed()),
        "flags": [flag for flag in FLAGS if flag in (_field(text, "flags") or _field(text, "Features")).split()],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _allowed() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def cores(root: Path = ROOT) -> int:
    """Physical cores this process may use: its affinity, hyper-threads counted once, and its cgroup's quota."""
    topology = set()
    for cpu in _allowed():
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.add((_read(folder / "physical_package_id").strip(), _read(folder / "core_id").strip() or str(cpu)))
    return int(max(1, min(len(topology), quota(root))))


def quota(root: Path = ROOT) -> float:
    """Processors' worth of time that the cgroup, or one it lies in, grants (cgroup v2 and v1); infinite where nothing does."""
    found = [float("inf")]
    for line in _read(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        inner = top / path.lstrip(
            "/"
        )  # not there when a container shows its own cgroup as the root: then the root is read
        for folder in (inner, *inner.parents):
            words = _read(folder / "cpu.max").split()
            if controllers:
                words = [_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
            if len(words) == 2 and words[0].isdigit() and int(words[1] or 0):
                found.append(int(words[0]) / int(words[1]))
            if folder == top:
                break
    return min(found)


def gpus() -> list[dict[str, Any]]:
    """name, uuid, memory_bytes, driver and compute_capability of each GPU that CUDA may use, in its order; empty where no
    driver answers. Records of before it was kept have no uuid, and list every GPU. Raises what `visible` does."""
    import pynvml

    from harness.machine import nvidia

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        return [
            {
                "name": str(pynvml.nvmlDeviceGetName(handle)),
                "uuid": nvidia.uuid(handle),
                "memory_bytes": _memory(handle),
                "driver": driver,
                "compute_capability": ".".join(map(str, pynvml.nvmlDeviceGetCudaComputeCapability(handle))),
            }
            for handle in nvidia.visible()
        ]
    finally:
        pynvml.nvmlShutdown()


def _memory(handle: Any) -> int | None:
    """None on machines whose GPU has no memory of its own."""
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError_NotSupported:
        return None


def assume_gpu(here: Mapping[str, Any]) -> dict[str, Any]:
    """The same machine with a GPU, if it has none, for `plan --assume gpu`, and (`assumed`) with the builds of the engines that
    go with one; nothing is ever recorded with it."""
    gpu = {"name": "an assumed GPU", "memory_bytes": 0, "driver": "", "compute_capability": ""}
    return {**here, "gpus": here["gpus"] or [gpu], "assumed": True}
