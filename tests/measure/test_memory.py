"""Available memory, from made-up kernel files."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.measure.memory import available_bytes
from tests.machine.machines import write_files

MEMINFO = {"proc/meminfo": "MemTotal:  64 kB\nMemAvailable:   60 kB\n"}
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory/docker/x"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (MEMINFO, 60 * 1024),
        (
            MEMINFO | {"proc/self/cgroup": "0::/a\n", f"{V2}/a/memory.max": "max\n", f"{V2}/a/memory.current": "9"},
            60 * 1024,
        ),
        (
            MEMINFO | {"proc/self/cgroup": "0::/a\n", f"{V2}/a/memory.max": "9000\n", f"{V2}/a/memory.current": "4000"},
            5000,
        ),
        (
            MEMINFO
            | {"proc/self/cgroup": "0::/a/b\n", f"{V2}/a/memory.max": "9000", f"{V2}/a/memory.current": "4000"}
            | {f"{V2}/a/memory.stat": "anon 1000\ninactive_file 2500\nactive_file 500\n"},
            7500,
        ),
        (
            MEMINFO
            | {"proc/self/cgroup": "4:cpu:/docker/x\n5:memory:/docker/x\n"}
            | {f"{V1}/memory.limit_in_bytes": "8000", f"{V1}/memory.usage_in_bytes": "7000"}
            | {f"{V1}/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n"},
            1500,
        ),
    ],
)
def test_available_memory_is_what_the_machine_and_its_containers_leave(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    """The kernel gives back the cache of files; an outer group may grant less."""
    assert available_bytes(write_files(tmp_path, files)) == expected
