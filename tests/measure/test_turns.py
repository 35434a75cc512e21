"""What happens inside an interleaved process: which batches it runs, how often, and when it lets the next one run."""

from __future__ import annotations

import hashlib
import threading
import time

import numpy as np
import pytest

from harness.measure.turns import IDLE_TIMEOUT, Worker, schedule, speed_round, wait_until_idle, work_seconds
from tests.backends.in_memory import InMemorySession
from tests.measure.features import make_features
from tests.measure.test_validity import conditions

LARGE = bytes(1 << 22)


def test_fast_calls_are_many_and_slow_ones_are_few() -> None:
    fast = schedule([0.002, 0.001], available=64, budget=0.3)
    # 150 calls of 2 ms in 0.3 s, of which eight passes leave room for 18 batches
    assert (len(fast.batches), fast.passes, fast.cold) == (18, 8, True)
    assert fast.batches[0] == 64 // 36 and fast.batches[-1] == 35 * 64 // 36
    slow = schedule([1.2, 0.4], available=64, budget=4.0)
    assert slow == schedule([1.2, 0.4], available=64, budget=600.0)  # 4 s at most
    assert (slow.batches, slow.passes, slow.cold) == ((16, 48), 3, False)
    # threads that spin for 50 ms after a call of 2 ms: 76 calls in 4 s
    spinning = schedule([0.002, 0.001], available=64, budget=4.0, idle_seconds=0.05)
    assert (len(spinning.batches), spinning.passes) == (9, 8)


@pytest.mark.parametrize("available", [1, 2, 3, 500])
@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 0.05, 30.0])
def test_a_schedule_has_only_batches_that_exist(seconds: float, available: int) -> None:
    plan = schedule([seconds], available, 4.0)
    assert len(set(plan.batches)) == len(plan.batches) >= min(2, available)
    assert all(0 <= number < available for number in plan.batches)
    assert plan.passes >= 3


def test_the_time_of_the_work_is_the_sum_of_medians() -> None:
    assert work_seconds({3: [1.0, 2.0, 90.0], 7: [0.5, 0.25, 0.75, 0.5]}) == 2.0 + 0.5


def test_single_samples_are_of_many_lengths() -> None:
    """Percentiles of latency need different queries, however slow they are."""
    plan = schedule([0.5], available=64, budget=2.0, queries=True)
    assert (len(plan.batches), plan.passes) == (16, 3)
    assert len(schedule([0.5], available=5, budget=2.0, queries=True).batches) == 5


def test_the_figures_of_a_round() -> None:
    """By hand: medians of 20 and 40 ms for 3 samples each; the six calls in order are 10, 20, 30, 40, 40, 90 ms."""
    calls = {2: [0.010, 0.020, 0.030], 5: [0.040, 0.090, 0.040]}
    round_ = speed_round(calls, 6, 120, 0.5, conditions())
    assert round_.qps == pytest.approx(6 / 0.06)
    assert (round_.p50_ms, round_.p90_ms, round_.p99_ms) == (40.0, 90.0, 90.0)  # at positions 3 and 5, counted from 0
    assert round_.mean_ms == pytest.approx(230 / 6)
    assert (round_.queries, round_.mean_tokens) == (18, 20.0)
    assert round_.warmup_seconds == 0.5 and round_.duration_seconds == pytest.approx(0.23)


def test_batches_are_those_of_offline() -> None:
    """Whole batches, longest first, of sequences drawn with replacement by the seed, so that rounds differ."""
    features = make_features(count=21)
    session = InMemorySession()
    worker = Worker(session, features, 40, seed=5)
    work = worker.answer({"load": "real", "batch_size": 4})
    drawn = np.random.default_rng(5).integers(0, 21, 21)
    assert len(set(drawn)) < 21
    lengths = sorted((int(features.lengths[row]) for row in drawn), reverse=True)
    assert work["samples"] == [4] * 5
    assert work["tokens"] == [sum(lengths[at : at + 4]) for at in range(0, 20, 4)]
    assert worker.answer({"run": 1, "cold": 0})["idle"]
    assert session.shapes == [(4, lengths[0]), (4, lengths[4])]
    again, other = (
        Worker(session, features, 40, seed=seed).answer({"load": "real", "batch_size": 4}) for seed in (5, 6)
    )
    assert again == work
    assert other["work"] != work["work"] == worker.answer({"load": "real", "batch_size": 4})["work"]
    worker.answer({"load": "fixed", "batch_size": 50})
    worker.answer({"run": 0, "cold": None})
    assert session.shapes[-1] == (21, 40) and len(session.shapes) == 3
    padded = Worker(session, features, 40, seed=5, padded=True)
    assert padded.answer({"load": "real", "batch_size": 4}) == work  # the same sequences, however they are padded
    padded.answer({"run": 1, "cold": None})
    assert session.shapes[-1] == (4, 40)


def test_only_the_call_is_timed() -> None:
    worker = Worker(InMemorySession(seconds_a_call=0.02), make_features(), 40, seed=1)
    worker.answer({"load": "real", "batch_size": 1})
    began, cpu = time.perf_counter(), worker.answer({"cpu": True})["cpu"]
    seconds = worker.answer({"run": 0, "cold": 1})["seconds"]
    assert 0.02 <= seconds <= time.perf_counter() - began - 0.02
    assert worker.answer({"cpu": True})["cpu"] > cpu


def spinning(until: float) -> threading.Thread:
    """A thread that spins, as those of an engine's pool do when they have nothing to do."""

    def spin() -> None:
        while time.perf_counter() < until:
            hashlib.sha256(LARGE)  # releases the interpreter's lock

    thread = threading.Thread(target=spin)
    thread.start()
    return thread


def test_a_process_waits_until_its_threads_are_idle() -> None:
    """Also where a spinning thread has no processor for a while. A thread that never stops is not waited for forever."""
    assert wait_until_idle()
    until = time.perf_counter() + 0.06
    thread = spinning(until)
    assert wait_until_idle()
    assert time.perf_counter() >= until
    thread.join()
    began = time.perf_counter()
    thread = spinning(began + 4 * IDLE_TIMEOUT)
    assert not wait_until_idle()
    assert time.perf_counter() - began >= IDLE_TIMEOUT
    thread.join()
