"""Counters of made-up machines, computed by hand; of this machine beside a second process; and the runner's samples."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from harness.errors import QuantboardError
from harness.machine import hardware, nvidia
from harness.machine.processes import run_module
from harness.measure.conditions import RAPL_COUNTER, TICK, Counters, are_others_there, conditions_between
from harness.measure.watch import Watch, value_range
from harness.plan.keys import machine_identity
from tests.machine.machines import MACHINE

CPUS = (0, 1)


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(CPUS))


def kernel(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def stat(user: int, irq: int = 0, steal: int = 0) -> str:
    """Two equal processors; a third one is not ours."""
    line = f"{user} 2 3 400 50 {irq} 1 {steal} 9 0"
    return f"cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 {line}\ncpu1 {line}\ncpu2 99999 0 0 0 0 0 0 99999 0 0\nintr 1\n"


@pytest.mark.usefixtures("two_cpus")
def test_a_machine_with_all_counters(tmp_path: Path) -> None:
    thermal = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_total_time_ms"
    zone = "sys/class/powercap/intel-rapl:0"
    root = kernel(
        tmp_path,
        {
            "proc/stat": stat(100),
            "proc/self/cgroup": "0::/box\n",
            "sys/fs/cgroup/box/cpu.stat": "usage_usec 5\nnr_throttled 0\nthrottled_usec 1000000\n",
            thermal.format(0): "7\n",
            thermal.format(1): "0\n",
            f"{zone}/name": "package-0\n",
            f"{zone}/energy_uj": "9000000\n",
            f"{zone}/max_energy_range_uj": "10000000\n",
            f"{zone}:0/name": "core\n",
            f"{zone}:0/energy_uj": "1\n",
            "proc/self/task/7/schedstat": "5000000000 100000000 12\n",
            "proc/self/task/8/schedstat": "5000000000 700000000 12\n",
        },
    )
    read = Counters.reader("cpu", root)
    before = read()
    kernel(
        root,
        {
            "proc/stat": stat(100 + 2 * TICK, irq=TICK, steal=TICK // 2),
            "sys/fs/cgroup/box/cpu.stat": "throttled_usec 1400000\n",
            thermal.format(1): "80\n",
            "proc/self/task/7/schedstat": "9000000000 400000000 30\n",
            "proc/self/task/9/schedstat": "1000000000 100000000 30\n",  # a new thread
            f"{zone}/energy_uj": "500000\n",  # it wrapped around: 1 J up to 10 J, then 0.5 J
        },
    )
    after = read()
    assert after.busy - before.busy == pytest.approx(2 * 3.0)
    assert after.steal - before.steal == pytest.approx(2 * 0.5)
    seconds = 8.0
    conditions = conditions_between(
        Counters(**vars(before) | {"at": 1.0, "own": 10.0}),
        Counters(**vars(after) | {"at": 1.0 + seconds, "own": 14.0}),
        2.0,
        8.5,
        threads=2,
    )
    capacity = seconds * 2
    assert conditions.own_cpu_percent == pytest.approx(100 * 4.0 / capacity)
    assert conditions.other_cpu_percent == pytest.approx(100 * 2.0 / capacity)
    assert conditions.steal_percent == pytest.approx(100 * 1.0 / capacity)
    # each processor was busy for 3 s; others ran for 2 s in all, which may have been on one of them
    assert conditions.worst_other_percent == pytest.approx(100 * 2.0 / seconds)
    assert conditions.worst_steal_percent == pytest.approx(100 * 0.5 / seconds)
    assert conditions.waited_percent == pytest.approx(100 * (0.3 + 0.1) / seconds)
    assert conditions.quota_throttled_percent == pytest.approx(100 * 0.4 / capacity)
    assert conditions.thermal_throttled_percent == pytest.approx(100 * 0.08 / capacity)
    assert conditions.energy_joules == pytest.approx(1.5)
    assert conditions.energy_source == RAPL_COUNTER
    assert (conditions.began_seconds, conditions.ended_seconds, conditions.affinity) == (2.0, 8.5, [0, 1])


@pytest.mark.usefixtures("two_cpus")
def test_missing_counters_are_named(tmp_path: Path) -> None:
    read = Counters.reader("cpu", kernel(tmp_path, {"proc/stat": stat(1)}))
    conditions = conditions_between(read(), read(), 0.0, 1.0, threads=1)
    assert conditions.energy_joules is None
    assert conditions.energy_source.startswith("not measured: ")
    assert conditions.quota_throttled_percent is None
    assert conditions.thermal_throttled_percent is None
    assert conditions.waited_percent is None


@pytest.mark.parametrize(
    ("busy", "own", "worst"),
    [
        ((4.0, 4.0), 7.0, 25.0),  # others ran for 1 s of 4
        ((1.0, 1.5), 0.5, 37.5),  # for 2 s, but no processor was busy for longer than 1.5 s
        ((4.0, 4.0), 8.1, 0.0),  # ticks are coarser than the process's own clock
    ],
)
def test_what_others_took_of_a_single_processor_is_bounded(busy: tuple[float, float], own: float, worst: float) -> None:
    before = Counters(1.0, CPUS, 0.0, 0.0, 0.0, None, None, busy_by_cpu=(0.0, 0.0), steal_by_cpu=(0.0, 0.0))
    after = replace(before, at=5.0, busy=sum(busy), own=own, busy_by_cpu=busy)
    assert conditions_between(before, after, 0.0, 1.0, threads=2).worst_other_percent == pytest.approx(worst)


BURN = "import time; end = time.monotonic() + {}\nwhile time.monotonic() < end: pass"


def test_a_second_process_is_seen_and_own_work_is_not_counted_as_others() -> None:
    """A real process keeps one processor busy for the whole second; this one is idle, then busy itself."""
    read = Counters.reader("cpu")
    other = subprocess.Popen([sys.executable, "-c", BURN.format(60)])
    try:
        time.sleep(0.5)
        before = read()
        time.sleep(1.0)
        idle = conditions_between(before, read(), 0.0, 1.0, threads=1)
    finally:
        other.kill()
        other.wait()
    assert idle.worst_other_percent is not None and 40 < idle.worst_other_percent < 110
    cpus = len(idle.affinity)
    assert idle.other_cpu_percent * cpus > 40  # other processes may slow it down, but not by that much
    assert idle.own_cpu_percent * cpus < 5
    before = read()
    exec(BURN.format(0.5))
    busy = conditions_between(before, read(), 0.0, 1.0, threads=1)
    assert busy.own_cpu_percent > idle.own_cpu_percent
    assert busy.own_cpu_percent + busy.other_cpu_percent + busy.steal_percent < 110


def test_a_thread_that_stands_in_line_is_seen() -> None:
    """This process and another share one processor, so each has to wait for half of the time."""
    read = Counters.reader("cpu")
    if read().waits is None:
        pytest.skip("this kernel does not count it")
    allowed = os.sched_getaffinity(0)
    other = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{max(allowed)}])\n" + BURN.format(60)]
    )
    try:
        os.sched_setaffinity(0, [max(allowed)])
        time.sleep(0.5)
        before = read()
        exec(BURN.format(1.0))
        beside = conditions_between(before, read(), 0.0, 1.0, threads=1)
    finally:
        os.sched_setaffinity(0, allowed)
        other.kill()
        other.wait()
    assert beside.waited_percent is not None and beside.worst_other_percent is not None
    assert beside.waited_percent > 35 and beside.worst_other_percent > 35  # more, where others run as well
    assert are_others_there(0.0, beside.worst_other_percent, beside.waited_percent)


def speed_test(began: float, ended: float) -> dict[str, Any]:
    return {"round": {"conditions": {"began_seconds": began, "ended_seconds": ended}}}


def test_the_runner_sleeps_and_samples_belong_to_the_test_they_were_taken_in(tmp_path: Path) -> None:
    folder = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq"
    import os

    root = kernel(tmp_path, {folder.format(cpu): "2400000\n" for cpu in os.sched_getaffinity(0)})
    middle = time.perf_counter()
    with Watch("cpu", period=0.1, root=root) as watch:
        job = tmp_path / "job"
        job.write_text("")
        middle = time.perf_counter() + 0.5
        run_module("tests.measure.sleep", job, tmp_path / "log", timeout=30)
    results = {"rounds": [speed_test(0.0, middle), speed_test(middle, 1e12), speed_test(1e12, 2e12)]}
    watch.add_to(results)
    first, second, third = (test["round"]["conditions"] for test in results["rounds"])
    assert first["samples"] >= 3
    assert second["samples"] >= 3
    assert first["cpu_mhz"] == {"lowest": 2400.0, "mean": 2400.0, "highest": 2400.0}
    assert first["cpu_mhz_source"] == "cpufreq"
    assert third["samples"] == 0
    assert third["cpu_mhz"] is None
    assert first["runner_cpu_percent"] == watch.cpu_percent
    assert 0 < watch.cpu_percent < 1  # at ten times the real rate of samples


class FakeDriver(ModuleType):
    """GPUs as nvidia-ml-py shows them, for machines without: first at 700 MHz, then at 1400 MHz and too hot."""

    class NVMLError(Exception): ...

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    nvmlClocksEventReasonSwPowerCap, nvmlClocksEventReasonHwThermalSlowdown = 4, 64  # noqa: N815

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.readings = 0
        self.used = 10

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 4

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"gpu {index}"

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return {"gpu 0": "GPU-aa0", "gpu 1": "GPU-ab1", "gpu 2": "GPU-b2", "gpu 3": "GPU-c3"}[handle]

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return f"Board {handle[-1]}"

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "1.2"

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> tuple[int, int]:  # noqa: N802
        return 9, 0

    def nvmlShutdown(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        self.readings += 1
        return 5000 + 2500 * self.readings

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return 350_000

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        return 64 + 4 if self.used > 10 else 4

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=77, usedGpuMemory=123)] * (2 if self.used > 10 else 0)

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        self.used += 100
        return SimpleNamespace(used=self.used - 100, total=1000)

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        if kind == self.NVML_CLOCK_MEM:
            raise self.NVMLError("not supported")
        return 1400 if self.used > 10 else 700

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:  # noqa: N802
        return 60


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    fake = FakeDriver()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    nvidia.open_device.cache_clear()
    yield fake
    nvidia.open_device.cache_clear()


def test_a_counter_that_is_not_read_the_second_time_gives_no_energy(driver: FakeDriver) -> None:
    """A GPU's counter does not wrap around, so a smaller value is no reading."""
    before = Counters.reader("cuda")()
    after = replace(before, at=before.at + 1.0, joules={"gpu": (0.0, float("inf"))})
    assert conditions_between(before, after, 0.0, 1.0, threads=1).energy_joules is None


def test_a_gpu_is_watched(driver: FakeDriver) -> None:
    assert nvidia.open_device() == ("gpu 3", "")
    read = Counters.reader("cuda")
    conditions = conditions_between(read(), read(), 0.0, 1.0, threads=1)
    assert conditions.energy_joules == pytest.approx(2.5)
    assert "NVML" in conditions.energy_source
    with Watch("cuda", period=0.02) as watch:
        began = time.perf_counter()
        time.sleep(0.2)
    results: dict[str, Any] = {"rounds": [speed_test(began, 1e12)], "peak_device_bytes": None}
    watch.add_to(results)
    gpu = results["rounds"][0]["round"]["conditions"]["gpu"]
    assert gpu["sm_mhz"]["mean"] == 1400
    assert gpu["memory_mhz"] is None
    assert gpu["watts"]["highest"] == 350
    assert gpu["throttled_percent"] == {"power cap": 100.0, "heat, by hardware": 100.0}
    assert gpu["processes"] == 2
    assert results["peak_device_bytes"] == gpu["memory_used_bytes"] - 10
    assert "less what was used before" in results["device_memory_source"]
    assert nvidia.process_bytes("gpu 3", 77) == 123
    assert nvidia.process_bytes("gpu 3", 78) is None


@pytest.mark.parametrize(
    ("variable", "boards"),
    [
        (None, "0123"),
        ("", ""),
        ("-1", ""),
        ("2", "2"),
        ("2, 0", "20"),
        ("1,4,0", "1"),  # as CUDA: nothing after an index that does not exist
        ("GPU-b2", "2"),
        ("GPU-c,GPU-ab1", "31"),
        ("GPU-a", ""),  # two begin with it
        ("NoDevFiles", ""),
    ],
)
def test_the_gpu_is_the_one_that_cuda_may_use(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, variable: str | None, boards: str
) -> None:
    """By the rules of the CUDA programming guide (environment variables)."""
    if variable is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    listed = hardware.gpus()
    assert [(gpu.name, gpu.uuid) for gpu in listed] == [
        (f"Board {number}", driver.nvmlDeviceGetUUID(f"gpu {number}")) for number in boards
    ]
    handle, why = nvidia.open_device()
    assert (handle, why) == ((f"gpu {boards[0]}", "") if boards else (None, "CUDA_VISIBLE_DEVICES hides every GPU"))
    assert machine_identity(replace(MACHINE, gpus=listed)).endswith(f"cores, Board {boards[0]}" if boards else "cores")


def test_a_part_of_a_gpu_is_one_clear_line(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5c2")
    with pytest.raises(QuantboardError, match=r"MIG-5c2: a part of a GPU .* name a whole GPU"):
        hardware.gpus()


def test_without_the_library_there_is_no_gpu_and_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    nvidia.open_device.cache_clear()
    try:
        read = Counters.reader("cuda")
        assert read().energy == "not measured: nvidia-ml-py is not installed"
        assert Watch("cuda")._gpu is None
    finally:
        nvidia.open_device.cache_clear()


def test_a_range_is_of_what_is_known() -> None:
    known = value_range([None, 3.0, 1.0])
    assert known is not None
    assert (known.lowest, known.mean, known.highest) == (1.0, 2.0, 3.0)
    assert value_range([None]) is None
