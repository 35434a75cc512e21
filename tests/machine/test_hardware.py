"""The machine: quotas and topology from made-up kernel files."""

from __future__ import annotations

import json
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.machine import hardware
from tests.machine.machines import GPU_MACHINE, MACHINE, write_files


def test_a_machine_is_plain_data_without_its_host_name() -> None:
    machine = hardware.describe()
    content = machine.as_dict()
    text = json.dumps(content)
    assert json.loads(text) == content
    assert 1 <= machine.cores <= machine.logical_cores
    assert machine.memory_bytes > 2**28
    assert machine.python == platform.python_version()
    assert set(machine.flags) <= set(hardware.FLAGS)
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)


def test_the_dict_of_a_machine_is_what_records_hold() -> None:
    keys = ["cpu", "cpu_model", "cores", "logical_cores", "flags", "memory_bytes", "gpus", "os", "python"]
    assert list(MACHINE.as_dict()) == keys
    content = GPU_MACHINE.as_dict()
    assert (content["flags"], list(content["gpus"][0])) == (
        ["avx2"],
        ["name", "uuid", "memory_bytes", "driver", "compute_capability"],
    )


def test_a_gpu_is_assumed_only_where_there_is_none() -> None:
    assumed = hardware.assume_gpu(MACHINE)
    assert [gpu.name for gpu in assumed.gpus] == ["an assumed GPU"]
    assert assumed.as_dict()["assumed"] is True
    assert hardware.assume_gpu(GPU_MACHINE).gpus == GPU_MACHINE.gpus


def test_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_allowed", lambda: {0, 1, 2, 3, 6})
    folder = "sys/devices/system/cpu/cpu{}/topology/{}"
    files = {}
    for cpu in range(8):  # two sockets of two cores of two threads
        files[folder.format(cpu, "physical_package_id")] = f"{cpu // 4}\n"
        files[folder.format(cpu, "core_id")] = f"{cpu // 2 % 2}\n"
    assert hardware.cores(write_files(tmp_path, files)) == 3
    write_files(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"})
    assert hardware.cores(tmp_path) == 2
    write_files(tmp_path, {"sys/fs/cgroup/cpu.max": "50000 100000\n"})
    assert hardware.cores(tmp_path) == 1


def test_without_topology_every_processor_is_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_allowed", lambda: {0, 5, 7})
    assert hardware.cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, float("inf")),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, float("inf")),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "800000 100000\n",
            },
            4.0,
        ),
        ({"proc/self/cgroup": "0::/elsewhere\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/x\n",
                "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
    ],
)
def test_quotas_of_containers(tmp_path: Path, files: dict[str, str], expected: float) -> None:
    assert hardware.quota(write_files(tmp_path, files)) == expected


def test_importing_it_costs_nothing() -> None:
    code = (
        "import time, sys; start = time.perf_counter(); import harness.machine.hardware; harness.machine.hardware.describe();"
        "heavy = {'torch', 'onnxruntime', 'transformers', 'scipy', 'pandas', 'numpy'} & set(sys.modules);"
        "print(time.perf_counter() - start, len(heavy))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    seconds, heavy = min(run.stdout.split() for run in runs)
    assert heavy == "0"
    assert float(seconds) < 0.25
