"""The machine: quotas and topology from made-up kernel files, the checkout from real git."""

from __future__ import annotations

import json
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.machine import hardware, software
from tests.machine.machines import GPU_MACHINE, MACHINE


def kernel_files(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


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
    assert hardware.cores(kernel_files(tmp_path, files)) == 3
    kernel_files(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"})
    assert hardware.cores(tmp_path) == 2
    kernel_files(tmp_path, {"sys/fs/cgroup/cpu.max": "50000 100000\n"})
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
    assert hardware.quota(kernel_files(tmp_path, files)) == expected


def test_software_is_the_first_that_is_installed() -> None:
    versions = software.software(("no-such-thing|numpy", "not-there-either"))
    assert versions == {"python": platform.python_version(), "numpy": np.__version__}


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


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_checkout_has_a_commit_and_results_do_not_make_it_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_files(tmp_path, {"suites/schema.json": "{}", "harness/machine/hardware.py": "", ".gitignore": "*.log\n"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(harness, "__file__", str(tmp_path / "harness" / "__init__.py"))
    assert software.commit() == (None, None)
    git(tmp_path, "init", "-q")
    assert software.commit() == (None, None)  # nothing committed yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    sha = git(tmp_path, "rev-parse", "HEAD")
    assert software.commit() == (sha, False)
    kernel_files(tmp_path, {"results/squad/run.jsonl": "{}", "some.log": ""})
    assert software.commit() == (sha, False)
    monkeypatch.chdir(tmp_path / "suites")
    assert software.commit() == (sha, False)
    (tmp_path / "suites/mine.toml").write_text("title = 'x'")
    assert software.commit() == (sha, True)


def test_an_installed_package_has_no_commit_inside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package, also one in a virtual environment inside the checkout, may be of any commit."""
    kernel_files(tmp_path, {"suites/schema.json": "{}", "harness/machine/hardware.py": ""})
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.chdir(tmp_path)
    assert software.commit() == (None, None)
    monkeypatch.setattr(harness, "__file__", str(tmp_path / "venv" / "site-packages" / "harness" / "__init__.py"))
    assert software.commit() == (None, None)
    monkeypatch.setattr(harness, "__file__", str(tmp_path / "harness" / "__init__.py"))
    assert software.commit()[1] is False


def test_a_folder_inside_another_projects_checkout_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_files(tmp_path, {"own.py": "", "bench/suites/schema.json": "{}"})
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "theirs")
    monkeypatch.chdir(tmp_path / "bench")
    monkeypatch.setattr(harness, "__file__", str(tmp_path / "bench" / "harness" / "__init__.py"))
    assert software.commit() == (None, None)
