"""The time that LoadGen adds to a query, and whether its mean latency equals torch.utils.benchmark's on the same session.

    nox -s bench -- -k loadgen --trials 200

A tenth of the trials each, at least four.
"""

from __future__ import annotations

import statistics
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.benchmark import Timer

from backends import Batch, Session, Settings, get_backend
from harness.measure.conditions import Counters
from harness.measure.loadgen import loadgen_settings, run_test
from harness.measure.samples import Samples, make_samples
from harness.measure.scenarios import run_scenario
from harness.measure.steady import warm_up_session
from harness.records.speed_schema import SpeedRound
from tests.backends.checkpoints import BERT_TINY, make_checkpoint
from tests.backends.in_memory import InMemorySession
from tests.bench.measuring import BATCH, LENGTH, MEASURE, made_up, share

OVERHEAD_US, LARGEST = 20.0, 0.03
CALLS, BURSTS = 50, 20


def single_stream(session: Session, samples: Samples) -> SpeedRound:
    return run_scenario(
        session,
        samples,
        scenario="single_stream",
        batch_size=1,
        min_duration=1.0,
        min_queries=MEASURE.min_queries,
        max_warmup=MEASURE.max_warmup,
        seed=1,
        threads=MEASURE.threads,
    )


class Timed(InMemorySession):
    def __init__(self, seconds_a_call: float) -> None:
        super().__init__(seconds_a_call)
        self.called: list[float] = []
        self.answered: list[float] = []

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        self.called.append(time.perf_counter())
        logits = super().run(batch)
        self.answered.append(time.perf_counter())
        return logits


def test_loadgen_overhead_a_query(trials: int) -> None:
    """The session is busy for a millisecond. Its calls are timed from the caller's side, as under timeit; what LoadGen measures
    beyond that is its cost, in a query's latency and between two queries."""
    session = Timed(seconds_a_call=0.001)
    samples = make_samples(made_up(), load="fixed", max_length=LENGTH, count=256, seed=1)
    latency, between = [], []
    for _ in range(max(4, trials // 10)):
        speed_round = single_stream(session, samples)
        began, ended = (np.array(times[-speed_round.queries :]) for times in (session.called, session.answered))
        assert speed_round.mean_ms is not None
        latency.append(1000 * speed_round.mean_ms - 1e6 * float((ended - began).mean()))
        between.append(1e6 * float((began[1:] - ended[:-1]).mean()))
    good = share(sum(cost <= OVERHEAD_US for cost in latency), len(latency))[2]
    print(
        f"\n  LoadGen in a query's latency: median {statistics.median(latency):.1f} us, highest {max(latency):.1f} us; "
        f"<= {OVERHEAD_US:g} us in {good}\n  from one answer to the next call, most of which is in no latency: "
        f"median {statistics.median(between):.1f} us"
    )
    assert statistics.median(latency) <= OVERHEAD_US


@pytest.mark.parametrize("name", ["onnxruntime_fp32", "torch_fp32"])
def test_loadgen_agrees_with_torchs_benchmark(tmp_path: Path, trials: int, name: str) -> None:
    """In one process, in bursts of some 50 ms, half of torch's calls before LoadGen's test and half after it, so that a machine
    whose speed changes within a second is the same for both. A trial is the mean of all calls of BURSTS bursts."""
    folder = make_checkpoint(tmp_path / "checkpoint", **BERT_TINY)
    session = get_backend(name).prepare(folder, Settings(LENGTH, BATCH, MEASURE.threads, tmp_path / "cache"), "cpu")
    samples = make_samples(made_up(), load="fixed", max_length=LENGTH, count=256, seed=1)
    ready = [samples.batch([row]) for row in range(len(samples))]
    work = cycle(ready)
    timer = Timer("session.run(next(work))", globals={"session": session, "work": work}, num_threads=MEASURE.threads)
    warm_up_session(session, ready, MEASURE.max_warmup)
    differences = []
    for trial in range(max(4, trials // 10)):
        in_loadgen, in_torch = [], []
        for burst in range(BURSTS):
            settings = loadgen_settings("single_stream", "quick", 0.0, CALLS, BURSTS * trial + burst)
            settings.single_stream_expected_latency_ns = 1000  # so that it draws more queries than CALLS
            before = timer.timeit(CALLS // 2).mean
            result = run_test(
                settings,
                samples,
                1,
                lambda rows: session.run(ready[rows[0]]),
                "single_stream",
                Counters.reader("cpu"),
                MEASURE.threads,
            )
            after = timer.timeit(CALLS // 2).mean
            in_torch.append((before + after) / 2)
            in_loadgen.append(float(result.log["result_mean_latency_ns"]) / 1e9)
        differences.append(statistics.fmean(in_loadgen) / statistics.fmean(in_torch) - 1)
    good = share(sum(abs(difference) <= LARGEST for difference in differences), len(differences))[2]
    print(
        f"\n  {name}: LoadGen's mean over torch.utils.benchmark's {statistics.median(differences):+.1%} (median; "
        f"{min(differences):+.1%} to {max(differences):+.1%}); within 3% in {good}"
    )
    assert abs(statistics.median(differences)) <= LARGEST
