"""The rate of a large product is operations by time, and of the fastest library."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from harness.machine import ceiling
from harness.machine.hardware import describe
from harness.machine.processes import run_module


class Clock:
    """Stands in for the module `time`: only `pass_` makes time pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ceiling, "time", clock)
    return clock


def test_a_rate_is_operations_by_the_fastest_call(clock: Clock) -> None:
    calls = iter([9.0, 0.05, 0.05, 0.02] + 100 * [0.05])  # the first warms up
    rate = ceiling._rate(lambda rows: lambda: clock.pass_(next(calls) if rows == ceiling.ROWS else 0.001))
    assert rate == pytest.approx(2 * 2048 * 1024 * 1024 / 0.02)


def test_a_library_without_a_kernel_is_left_out(clock: Clock) -> None:
    def make(rows: int) -> ceiling.Product:
        assert rows == ceiling.FEW_ROWS, "the whole product would take seconds"
        return lambda: clock.pass_(0.1)

    assert ceiling._rate(make) == 0.0


@pytest.mark.slow
def test_this_processors_ceilings(tmp_path: Path) -> None:
    """In the process that a run starts, in less than ten seconds. NumPy's own float32 product is no faster than twice the
    ceiling, whatever else the machine does meanwhile."""
    job, out = tmp_path / "job.json", tmp_path / "out.json"
    job.write_text(json.dumps({"threads": 1, "out": str(out)}))
    began = time.perf_counter()
    assert run_module("harness.machine.ceiling", job, tmp_path / "log", timeout=60, threads=1).reason == ""
    assert time.perf_counter() - began < 30
    rates = {one["precision"]: one["operations_a_second"] for one in json.loads(out.read_text())}
    has_bfloat16 = bool({"avx512_bf16", "amx_bf16", "bf16"} & set(describe().flags))
    assert set(rates) == {"fp32", "int8", *(["bf16"] if has_bfloat16 else [])}
    left, right = (np.random.default_rng(0).random(size, np.float32) for size in ((2048, 1024), (1024, 1024)))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    assert 2 * 2048 * 1024 * 1024 / min(times) < 2 * describe().cores * rates["fp32"]
    assert rates["int8"] > rates["fp32"]
