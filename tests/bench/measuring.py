"""What the benches of measuring share: one configuration, real rounds in fresh processes, and how often things happen.

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
from harness.measure.watch import Watch
from harness.plan.spec import Cell, CheckpointSpec
from harness.records.schema import Finding
from harness.records.speed_schema import Speed
from harness.run.assemble import speeds
from harness.run.features import SAMPLES, write_samples
from harness.run.job import Job
from harness.run.turns import take_turns
from harness.suite.measure import Measure
from tasks import DataRef, Features, Shape
from tests.backends.checkpoints import BERT_TINY, make_checkpoint

LENGTH, BATCH = 128, 8
LEVEL = 0.01
"""Of every test that calls two cells different."""
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
    """Sequences whose lengths are spread as those of short questions and sentences are."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.exp(rng.normal(3.6, 0.5, count)), 8, LENGTH).astype(np.int64)
    lengths[0] = LENGTH
    ids = rng.integers(1000, 30_000, (count, LENGTH))
    ids = np.where(np.arange(LENGTH) < lengths[:, None], ids, 0).astype(np.int32)
    return Features(ids, np.zeros_like(ids), lengths, np.arange(count))


class Bench:
    """Cells to be measured in a folder of their own; the engine is built once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = make_checkpoint(folder / "checkpoint", **BERT_TINY)
        write_samples(folder / "samples.npz", made_up(), SAMPLES)
        self._run("build", self.cell())

    def cell(self, slow_down: float = 0.0, measure: Measure = MEASURE) -> Cell:
        """slow_down: of 0.03 every call of the session keeps the processor busy for another 3% of its time."""
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
        """One speed round in a fresh process, watched as the runner watches it."""
        return self._run("speed", cell, number)

    def turns(self, cells: Mapping[str, Cell], rounds: int) -> dict[str, list[float]]:
        """Seconds that single samples took in each round, by turns, as the runner hands them out."""
        found: dict[str, list[float]] = {name: [] for name in cells}
        for number in range(1, rounds + 1):
            jobs = {name: self.job("turns", cell, number) for name, cell in cells.items()}
            for name, loads in take_turns(jobs, str(number), self._lost, module="tests.bench.slowed").items():
                found[name] += [one["seconds"] for one in loads]
        return found

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
        found: dict[str, Any] = json.loads(job.out.read_text())
        if mode == "speed":
            watch.complete(found)
        return found


def summary(cell: Cell, rounds: Sequence[Mapping[str, Any]]) -> tuple[list[Speed], list[Finding]]:
    """The cell's speed and what is wrong with it, as its record would say."""
    return speeds(cell, rounds, {"claimed": "CPUExecutionProvider", "detail": []})


def share(happened: int, of: int) -> tuple[float, float, str]:
    """Ends of the 95% interval of a share (Clopper & Pearson 1934), and both in words."""
    from scipy.stats import binomtest

    sure = binomtest(happened, of).proportion_ci(0.95, "exact")
    return sure.low, sure.high, f"{happened} of {of}, {happened / of:.1%} [{sure.low:.1%}, {sure.high:.1%}]"


def others_percent(seconds: float = 5.0) -> float:
    """Of the processors' time, what others took in the last seconds while this process slept."""
    from harness.measure.conditions import Counters, conditions_between

    read = Counters.reader("cpu")
    before = read()
    time.sleep(seconds)
    return conditions_between(before, read(), 0.0, 1.0, threads=0).other_cpu_percent


def quiet_or_skip() -> None:
    percent = others_percent()
    print(f"\n  others take {percent:.1f}% of the processors before the start")
    if percent > 2:
        pytest.skip(f"this machine is not quiet: others take {percent:.1f}% of its processors")
