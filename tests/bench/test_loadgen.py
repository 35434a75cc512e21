"""What LoadGen costs a query, and whether its mean latency is that of torch.utils.benchmark on the same session.

    nox -s bench -- -k loadgen --trials 200

A tenth of the trials each, at least four.
"""

from __future__ import annotations

import statistics
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from torch.utils.benchmark import Timer

from backends import Session, Settings, get_backend
from harness.measure.load import run_scenario
from harness.measure.samples import Samples, make_samples
from harness.record import SpeedRound
from tests.backends.checkpoints import BERT_TINY, make_checkpoint
from tests.backends.in_memory import InMemorySession
from tests.bench.measuring import BATCH, LENGTH, MEASURE, made_up, share

OVERHEAD_US, APART = 20.0, 0.03
CALLS = 1000


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


def test_loadgen_overhead_a_query(trials: int) -> None:
    """A session that is busy for a millisecond notes when each call began and ended; what LoadGen sees beyond is its cost, in
    a query's latency and between two queries."""
    session = InMemorySession(seconds_a_call=0.001)
    samples = make_samples(made_up(), load="fixed", max_length=LENGTH, count=256, seed=1)
    latency, between = [], []
    for _ in range(max(4, trials // 10)):
        found = single_stream(session, samples)
        began, ended = (np.array(times[-found.queries :]) for times in (session.began, session.ended))
        assert found.mean_ms is not None
        latency.append(1000 * found.mean_ms - 1e6 * float((ended - began).mean()))
        between.append(1e6 * float((began[1:] - ended[:-1]).mean()))
    for name, costs in (("in a query's latency", latency), ("from answer to next query", between)):
        good = share(sum(cost <= OVERHEAD_US for cost in costs), len(costs))[2]
        print(
            f"\n  LoadGen {name}: median {statistics.median(costs):.1f} us, highest {max(costs):.1f} us; <= 20 us in {good}"
        )
        assert statistics.median(costs) <= OVERHEAD_US


@pytest.mark.parametrize("name", ["onnxruntime_fp32", "torch_fp32"])
def test_loadgen_agrees_with_torchs_benchmark(tmp_path: Path, trials: int, name: str) -> None:
    """In one process, torch before and after, so that a drift of the machine cancels."""
    folder = make_checkpoint(tmp_path / "checkpoint", **BERT_TINY)
    session = get_backend(name).prepare(folder, Settings(LENGTH, BATCH, MEASURE.threads, tmp_path / "cache"), "cpu")
    samples = make_samples(made_up(), load="fixed", max_length=LENGTH, count=256, seed=1)
    work = cycle([samples.batch([row]) for row in range(len(samples))])
    timer = Timer("session.run(next(work))", globals={"session": session, "work": work}, num_threads=MEASURE.threads)
    apart = []
    for _ in range(max(4, trials // 10)):
        before = timer.timeit(CALLS).mean
        found = single_stream(session, samples)
        after = timer.timeit(CALLS).mean
        assert found.mean_ms is not None
        apart.append(found.mean_ms / (500 * (before + after)) - 1)
    good = share(sum(abs(one) <= APART for one in apart), len(apart))[2]
    print(
        f"\n  {name}: LoadGen's mean over torch.utils.benchmark's {statistics.median(apart):+.1%} (median; "
        f"{min(apart):+.1%} to {max(apart):+.1%}); within 3% in {good}"
    )
    assert abs(statistics.median(apart)) <= APART
