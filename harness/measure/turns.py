"""Interleaved measurement: sessions run the same batches, one call at a time, so that their times can be compared.

A shared machine's speed changes by a tenth and more within a second, and the median of a round of seconds changes with it.
Two sessions that run the same batch a few milliseconds apart see the same machine. So what is compared is not the speed of
each session, measured alone, but the time that each took for the same batches, interleaved call by call (as in paired
microbenchmarks). The processes are fresh ones in every round, since two processes of the same program differ, too (Kalibera &
Jones 2013).

This module holds what happens inside a cell's process (`Worker`), and which batches are run how often (`schedule`). The
runner's side, which gives each process its turn, is `harness.run.turns`.
"""

from __future__ import annotations

import gc
import hashlib
import os
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends import Batch, Session
from harness.measure.samples import batches, make_samples
from harness.records.speed_schema import Conditions, SpeedRound
from tasks import Features

SECONDS = 4.0
"""How long the timed calls of a session take in one round under one load, about, or the suite's min_duration where that is
shorter."""


MAX_BATCHES, MIN_BATCHES = 32, 2
MIN_QUERIES = 16
"""Batches of one sample are queries, whose latency has percentiles: of so many different ones at least."""


MIN_PASSES, WANTED_PASSES = 3, 8


COLD_SECONDS = 0.25
"""Timed calls shorter than this come right after an untimed call of another batch: the other sessions have just filled the
caches with their own data."""


IDLE_TIMEOUT = 0.25
"""Seconds that are allowed for a session's threads to become idle after an answer."""


TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Schedule:
    """batches: positions in the work, which is sorted by length; spread evenly. passes: how often each of them is timed.
    cold: whether an untimed call of another batch, where there is one, comes before each timed call."""

    batches: tuple[int, ...]
    passes: int
    cold: bool


def schedule(
    seconds: Sequence[float], available: int, budget: float, idle_seconds: float = 0.0, *, queries: bool = False
) -> Schedule:
    """What every session runs, such that the slowest has about `budget` seconds of timed calls: as many batches as leave time
    for eight passes over them, but never less than three passes over two batches (over one where there is no other).

    seconds: of one call in each session. queries: batches are of one sample, and MIN_QUERIES of them are run at least. available: how many batches there are. idle_seconds: how long the threads of a
    session take to become idle, the longest of all sessions; counted like the call.
    """
    slowest, fastest = max(seconds) + idle_seconds, min(seconds)
    calls = min(budget, SECONDS) / slowest
    fewest = MIN_QUERIES if queries else MIN_BATCHES
    count = min(available, MAX_BATCHES, max(fewest, int(calls / WANTED_PASSES)))
    chosen = tuple((2 * number + 1) * available // (2 * count) for number in range(count))
    return Schedule(chosen, max(MIN_PASSES, int(calls / count)), fastest < COLD_SECONDS)


def work_seconds(times: Mapping[int, Sequence[float]]) -> float:
    """Seconds of all batches once, each at the median of its calls, so that a disturbed call does not count."""
    return sum(statistics.median(calls) for calls in times.values())


def speed_round(
    calls: Mapping[int, Sequence[float]], samples: int, tokens: int, warmup_seconds: float, conditions: Conditions
) -> SpeedRound:
    """A session's figures of one interleaved round. samples, tokens: in all batches once.

    Samples a second are those of `work_seconds`. A latency is that of a timed call, a batch of one sample or more; percentiles
    are taken as LoadGen does, at position floor(n x share) of the n sorted calls.
    """
    passes = min(map(len, calls.values()))
    latencies = sorted(seconds for of_batch in calls.values() for seconds in of_batch)

    def milliseconds(share: float) -> float:
        return 1000 * latencies[int(len(latencies) * share)]

    return SpeedRound(
        qps=samples / work_seconds(calls),
        mean_ms=1000 * statistics.fmean(latencies),
        p50_ms=milliseconds(0.5),
        p90_ms=milliseconds(0.9),
        p99_ms=milliseconds(0.99),
        queries=samples * passes,
        mean_tokens=tokens / samples,
        duration_seconds=sum(latencies),
        warmup_seconds=warmup_seconds,
        warmup_ended="one pass over the same batches",
        conditions=conditions,
    )


def processors(threads: int, device: str) -> list[int]:
    """The processors that an interleaved cell may use. Cells of one thread share one, the last that this process may use: two
    processors of a machine need not be equally fast."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1:] if threads == 1 and device == "cpu" else allowed


class Worker:
    """Answers the runner's questions about one session."""

    def __init__(
        self, session: Session, features: Features, max_length: int, seed: int, *, padded: bool = False
    ) -> None:
        self._session, self._features = session, features
        self._max_length, self._seed, self._padded = max_length, seed, padded
        self._work: list[Batch] = []

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """One of three questions:

        {"load", "batch_size"} makes the batches; the answer has "samples" and "tokens" of each batch, and "work", a hash of
        the sequences in them, however they are padded.
        {"run": batch, "cold": batch or None} runs a batch, given by its number; the answer has its "seconds", whether the
        session's threads then became "idle", how long that took ("idle_seconds"), and "cpu".
        {"cpu": true} has the answer {"cpu"}: seconds of processor time that this process has used so far.
        """
        if "load" in question:
            return self._make_batches(str(question["load"]), int(question["batch_size"]))
        if "run" in question:
            seconds, answered = self._run(int(question["run"]), question["cold"]), time.perf_counter()
            idle = {"idle": wait_until_idle(), "idle_seconds": time.perf_counter() - answered}
            return {"seconds": seconds, **idle, "cpu": time.process_time()}
        return {"cpu": time.process_time()}

    def _make_batches(self, load: str, size: int) -> dict[str, Any]:
        count = len(self._features)
        samples = make_samples(
            self._features,
            load=load,
            max_length=self._max_length,
            count=count,
            seed=self._seed,
            padded=self._padded,
        )
        # With replacement, as LoadGen draws; every round has a seed of its own.
        drawn = np.random.default_rng(self._seed).integers(0, count, count).tolist()
        parts = batches(drawn, size, lambda row: samples.lengths[row])
        parts = [part for part in parts if len(part) == size] or parts
        self._work = [samples.batch(part) for part in parts]
        digest = hashlib.sha256()
        for row in (row for part in parts for row in part):
            digest.update(np.ascontiguousarray(samples.arrays["input_ids"][row, : samples.lengths[row]]).tobytes())
        return {
            "samples": [len(part) for part in parts],
            "tokens": [sum(samples.lengths[row] for row in part) for part in parts],
            "work": digest.hexdigest()[:16],
        }

    def _run(self, batch: int, cold: int | None) -> float:
        gc.disable()
        if cold is not None:
            self._session.run(self._work[cold])
        start = time.perf_counter()
        self._session.run(self._work[batch])
        seconds = time.perf_counter() - start
        gc.enable()
        return seconds


def wait_until_idle() -> bool:
    """Return when no other thread of this process wants a processor; False where that takes longer than IDLE_TIMEOUT.

    The threads of an engine's pool spin for a while when they have nothing to do, on processors that the next session needs.
    """
    deadline = time.perf_counter() + IDLE_TIMEOUT
    this_thread = str(threading.get_native_id())
    while any(_runs(task) for task in TASKS.glob("*") if task.name != this_thread):
        if time.perf_counter() >= deadline:
            return False
        time.sleep(0.0002)
    return True


def _runs(task: Path) -> bool:
    """Whether a thread runs or waits for a processor (proc(5): state R)."""
    try:
        return (task / "stat").read_bytes().rpartition(b") ")[2].startswith(b"R")
    except OSError:  # it has ended
        return False
