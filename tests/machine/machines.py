"""Made-up machines, with and without a GPU, and files as a kernel shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.machine.hardware import Gpu, Machine

MACHINE = Machine(
    cpu="A processor",
    cpu_model="x 1 2",
    cores=4,
    logical_cores=8,
    flags=("avx2",),
    memory_bytes=8 << 30,
    gpus=(),
    os="Linux 6",
    python="3.11.0",
)
GPU_MACHINE = replace(MACHINE, gpus=(Gpu("NVIDIA X", "GPU-1", 16 << 30, "550", "9.0"),))


def write_files(root: Path, files: dict[str, str]) -> Path:
    """Write files, contents by path, below `root`, which is returned."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root
