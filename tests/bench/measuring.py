"""What the benches of measuring share: one configuration, real rounds in fresh processes, and intervals of shares.

A BERT-tiny with random weights (2 layers, 128 wide) on ONNX Runtime FP32, one thread, 128 tokens: a query takes about a
millisecond, so that rounds can be short and many.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.machine.processes import run_module
from harness.measure.validity import findings
from harness.measure.watch import Watch
from harness.plan.spec import Cell, CheckpointSpec
from harness.records.schema import Finding
from harness.records.speed_schema import Speed
from harness.run.assemble import speeds
from harness.run.features import SAMPLES, write_samples
from harness.run.job import Job
from harness.run.turns import run_interleaved
from harness.suite.measure import Measure
from tasks import DataRef, Features, Shape
from tests.backends.checkpoints import BERT_TINY, make_checkpoint

LENGTH, BATCH = 128, 8
LEVEL = 0.01
"""Significance level of tests that call two cells different."""
MEASURE = Measure(
    scenarios=("single_stream",),
    loads=("real",),
    rounds=6,
    min_duration=0.3,
    min_queries=64,
    max_warmup=3.0,
    threads=1,
)


def made_up(count: int = SAMPLES, seed: int = 0) -> Features:
    """Sequences with lengths like those of short questions and sentences."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.exp(rng.normal(3.6, 0.5, count)), 8, LENGTH).astype(np.int64)
    lengths[0] = LENGTH
    ids = rng.integers(1000, 30_000, (count, LENGTH))
    ids = np.where(np.arange(LENGTH) < lengths[:, None], ids, 0).astype(np.int32)
    return Features(ids, np.zeros_like(ids), lengths, np.arange(count))


class Bench:
    """Cells to be measured, in a folder of their own. The engine is built once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = make_checkpoint(folder / "checkpoint", **BERT_TINY)
        write_samples(folder / "samples.npz", made_up(), SAMPLES)
        self._run("build", self.cell())

    def cell(self, slow_down: float = 0.0, measure: Measure = MEASURE) -> Cell:
        """slow_down: 0.03 makes every call of the session keep the processor busy for another 3% of its time."""
        shape, data = Shape(LENGTH), DataRef("sample")
        spec = CheckpointSpec("bench", "squad_v1", "load", "scratch", 0, shape, data)
        return Cell(
            suite="bench",
            model="bench",
            seed=1,
            task="squad_v1",
            backend="slowed",
            scheme=None,
            label=f"slowed by {slow_down:g}",
            options={"slow_down": slow_down},
            shape=shape,
            padding="longest",
            batch_sizes=(1, BATCH),
            measure=measure,
            limit=None,
            data=data,
            checkpoint=spec,
            device="cpu",
            key=f"slowed-{slow_down:g}",
        )

    def round(self, cell: Cell, number: int) -> dict[str, Any]:
        """One speed round in a fresh process, with the runner's samples."""
        return self._run("speed", cell, number)

    def interleaved(self, cells: Mapping[str, Cell], rounds: int) -> dict[str, list[float]]:
        """Seconds for single samples in each interleaved round, run as the runner runs them."""
        seconds: dict[str, list[float]] = {name: [] for name in cells}
        for number in range(1, rounds + 1):
            jobs = {name: self.job("turns", cell, number) for name, cell in cells.items()}
            for name, loads in run_interleaved(
                jobs, str(number), self._lost, module="tests.bench.slowed"
            ).loads.items():
                seconds[name] += [load["seconds"] for load in loads]
        return seconds

    def _lost(self, name: str, why: str) -> None:
        raise AssertionError(f"{name}: {why}")

    def job(self, mode: str, cell: Cell, number: int) -> Job:
        return Job(
            mode=mode,
            cell=cell,
            checkpoint=self.checkpoint,
            cache=self.folder / "cache",
            out=self.folder / "out.json",
            scores=self.folder / "scores.npz",
            samples=self.folder / "samples.npz",
            started=time.time(),
            threads=cell.measure.threads,
            number=number,
        )

    def _run(self, mode: str, cell: Cell, number: int = 0) -> dict[str, Any]:
        job = self.job(mode, cell, number)
        path, log = self.folder / "job.json", self.folder / "log"
        job.write(path)
        with Watch("cpu") as watch:
            ended = run_module("tests.bench.slowed", path, log, timeout=600, threads=job.threads)
        assert not ended.reason, "\n".join(ended.log)
        results: dict[str, Any] = json.loads(job.out.read_text())
        if mode == "speed":
            watch.add_to(results)
        return results


def summary(cell: Cell, rounds: Sequence[Mapping[str, Any]]) -> tuple[list[Speed], list[Finding]]:
    """The cell's speed and the validity rules that fail, as in its record."""
    speed = speeds(cell, rounds)
    return speed, findings(speed, {"claimed": "CPUExecutionProvider", "detail": []}, cell.measure)


def share(count: int, total: int) -> tuple[float, float, str]:
    """The ends of a share's 95% interval (Clopper & Pearson 1934), and the share and its interval in words."""
    from scipy.stats import binomtest

    ends = binomtest(count, total).proportion_ci(0.95, "exact")
    return ends.low, ends.high, f"{count} of {total}, {count / total:.1%} [{ends.low:.1%}, {ends.high:.1%}]"


def others_percent(seconds: float = 5.0) -> float:
    """The share of the processors' time that other processes took while this one slept for some seconds."""
    from harness.measure.conditions import Counters, conditions_between

    read = Counters.reader("cpu")
    before = read()
    time.sleep(seconds)
    return conditions_between(before, read(), 0.0, 1.0, threads=0).other_cpu_percent


def quiet_or_skip() -> None:
    percent = others_percent()
    print(f"\n  other processes take {percent:.1f}% of the processors before the start")
    if percent > 2:
        pytest.skip(f"this machine is not quiet: other processes take {percent:.1f}% of its processors")
