"""The machine that a run uses: processor, memory, GPUs. Imports no engine."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

FLAGS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16", "sve"),  # Arm's
)
"""Instruction sets that decide the speed, and the rounding, of an engine's integer and bfloat16 products."""


ROOT = Path("/")


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA may use. memory_bytes: None where it shares the processor's memory."""

    name: str
    uuid: str
    memory_bytes: int | None
    driver: str
    compute_capability: str


@dataclass(frozen=True)
class Machine:
    """What records and keys say of a machine; its host name is left out on purpose.

    cores: physical cores that this process may use; logical_cores: hyper-threads included. flags: those of FLAGS that the
    processor has. memory_bytes: of the whole machine. gpus: in CUDA's order; cells run on the first.
    assumed: the GPU and its engines are assumed for a plan, not present.
    """

    cpu: str
    cpu_model: str
    cores: int
    logical_cores: int
    flags: tuple[str, ...]
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    os: str
    python: str
    assumed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as records keep it and backends read it; `assumed` only where it is true."""
        content = asdict(self) | {"flags": list(self.flags), "gpus": [asdict(gpu) for gpu in self.gpus]}
        if not self.assumed:
            del content["assumed"]
        return content


@lru_cache(maxsize=1)
def describe() -> Machine:
    """The machine that this process runs on."""
    text = _read("/proc/cpuinfo")
    flags = (_field(text, "flags") or _field(text, "Features")).split()
    return Machine(
        cpu=_field(text, "model name") or platform.processor() or platform.machine(),
        cpu_model=" ".join(_field(text, name) for name in ("vendor_id", "cpu family", "model", "stepping")).strip(),
        cores=cores(),
        logical_cores=len(_allowed()),
        flags=tuple(flag for flag in FLAGS if flag in flags),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=gpus(),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


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
    """Physical cores that this process may use, by its affinity and its cgroup's quota."""
    topology = set()
    for cpu in _allowed():
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.add((_read(folder / "physical_package_id").strip(), _read(folder / "core_id").strip() or str(cpu)))
    return int(max(1, min(len(topology), quota(root))))


def quota(root: Path = ROOT) -> float:
    """The smallest CPU quota of this process's cgroup and its parents, in processors (cgroup v2 and v1); infinite without one."""
    quotas = [float("inf")]
    for line in _read(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        inner = top / path.lstrip(
            "/"
        )  # a container may show its own cgroup as the root, where this path does not exist
        for folder in (inner, *inner.parents):
            words = _read(folder / "cpu.max").split()
            if controllers:
                words = [_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
            if len(words) == 2 and words[0].isdigit() and int(words[1] or 0):
                quotas.append(int(words[0]) / int(words[1]))
            if folder == top:
                break
    return min(quotas)


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that CUDA may use, in its order; empty without an NVIDIA driver. Older records have no uuid and list all of
    the machine's GPUs. Raises QuantboardError where CUDA_VISIBLE_DEVICES names a part of a GPU."""
    import pynvml

    from harness.machine import nvidia

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        return tuple(
            Gpu(
                name=str(pynvml.nvmlDeviceGetName(handle)),
                uuid=nvidia.uuid(handle),
                memory_bytes=_memory(handle),
                driver=driver,
                compute_capability=".".join(map(str, pynvml.nvmlDeviceGetCudaComputeCapability(handle))),
            )
            for handle in nvidia.visible()
        )
    finally:
        pynvml.nvmlShutdown()


def _memory(handle: Any) -> int | None:
    """In bytes; None on a machine whose GPU has no memory of its own."""
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError_NotSupported:
        return None


def assume_gpu(machine: Machine) -> Machine:
    """The machine as `plan --assume gpu` sees it: with a GPU, if it has none, and with the engines that need one. Nothing is
    ever recorded with it."""
    gpu = Gpu(name="an assumed GPU", uuid="", memory_bytes=0, driver="", compute_capability="")
    return replace(machine, gpus=machine.gpus or (gpu,), assumed=True)
