"""Sessions that take turns, batch by batch, on the same work: how many times faster one is than another.

A shared machine's speed wanders by a tenth and more within a second, which the median of a round of seconds follows; two
sessions that run the same batch a few milliseconds apart see the same machine. So what is compared is not the speed of
each, measured alone, but the time that each took for the same batches, measured in turns (interleaving, as in paired
microbenchmarks, carried down to a single call). The processes are fresh ones in every round, since two processes of the
same program differ, too (Kalibera & Jones 2013).

This module holds what happens inside a process (`Player`), and which batches are run how often (`schedule`); the runner's
side, which hands out the turns, is `harness.run.turns`.
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
from tasks import Features

SECONDS = 4.0
"""Timed calls of a session in one round at one load take about so long, or the suite's min_duration where that is shorter."""


MOST_BATCHES, LEAST_BATCHES = 32, 2


LEAST_PASSES, WANTED_PASSES = 3, 8


COLD_SECONDS = 0.25
"""Timed calls shorter than that come after one of another batch that is not timed: the caches are full of the others' work."""


PATIENCE = 0.25
"""Seconds that a session's threads are waited for when it has answered."""


TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Schedule:
    """batches: positions in the work, sorted by length, spread evenly. passes: how often all of them are timed. cold: whether
    an untimed call of another batch, where there is one, comes before each timed one."""

    batches: tuple[int, ...]
    passes: int
    cold: bool


def schedule(seconds: Sequence[float], available: int, budget: float, resting: float = 0.0) -> Schedule:
    """What every session runs, from the time that a call takes in each, so that the slowest has about `budget` seconds of
    timed calls: many batches while there are at least eight passes over them, never fewer than three passes over two batches
    (over one where there is no other).
    resting: seconds until the threads of the session that takes longest are at rest, which count like the call."""
    slowest, fastest = max(seconds) + resting, min(seconds)
    calls = min(budget, SECONDS) / slowest
    count = min(available, MOST_BATCHES, max(LEAST_BATCHES, int(calls / WANTED_PASSES)))
    chosen = tuple((2 * number + 1) * available // (2 * count) for number in range(count))
    return Schedule(chosen, max(LEAST_PASSES, int(calls / count)), fastest < COLD_SECONDS)


def of_work(times: Mapping[int, Sequence[float]]) -> float:
    """Seconds of all batches once, each at its median: a call that something disturbed does not count."""
    return sum(statistics.median(found) for found in times.values())


def processors(threads: int, device: str) -> list[int]:
    """Which a cell that takes turns may use. Cells of a single thread share one, the last that this process may use: two
    processors of a machine need not be equally fast."""
    mine = sorted(os.sched_getaffinity(0))
    return mine[-1:] if threads == 1 and device == "cpu" else mine


class Player:
    """The session's side: a question in, an answer out."""

    def __init__(
        self, session: Session, features: Features, max_length: int, seed: int, *, padded: bool = False
    ) -> None:
        self._session, self._features = session, features
        self._max_length, self._seed, self._padded = max_length, seed, padded
        self._work: list[Batch] = []

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """{"load", "batch_size"} lays out the work: {"samples", "tokens"} of each batch and "work", which tells other
        sequences apart, however they are padded. {"run", "cold"}, batches by their numbers (cold may be None): {"seconds"} of the run, whether the session's
        threads then "rested", how long that took ("resting"), and "cpu". {"cpu"}: {"cpu"}, seconds of processor time so far."""
        if "load" in asked:
            return self._lay_out(str(asked["load"]), int(asked["batch_size"]))
        if "run" in asked:
            seconds, began = self._run(int(asked["run"]), asked["cold"]), time.perf_counter()
            rested = {"rested": rest(), "resting": time.perf_counter() - began}
            return {"seconds": seconds, **rested, "cpu": time.process_time()}
        return {"cpu": time.process_time()}

    def _lay_out(self, load: str, size: int) -> dict[str, Any]:
        count = len(self._features)
        samples = make_samples(
            self._features,
            load=load,
            max_length=self._max_length,
            count=count,
            seed=self._seed,
            padded=self._padded,
        )
        drawn = (
            np.random.default_rng(self._seed).integers(0, count, count).tolist()
        )  # as LoadGen draws, others in every round
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

    def _run(self, number: int, cold: int | None) -> float:
        gc.disable()
        if cold is not None:
            self._session.run(self._work[cold])
        start = time.perf_counter()
        self._session.run(self._work[number])
        taken = time.perf_counter() - start
        gc.enable()
        return taken


def rest() -> bool:
    """Return when no other thread of this process wants a processor any more: the threads of an engine's pool go on spinning
    for a while when there is nothing to do, on processors that belong to the next one now. False where they do not stop."""
    until = time.perf_counter() + PATIENCE
    me = str(threading.get_native_id())
    while any(_runs(task) for task in TASKS.glob("*") if task.name != me):
        if time.perf_counter() >= until:
            return False
        time.sleep(0.0002)
    return True


def _runs(task: Path) -> bool:
    """Whether a thread runs or waits for a processor (proc(5): state R)."""
    try:
        return (task / "stat").read_bytes().rpartition(b") ")[2].startswith(b"R")
    except OSError:  # it has ended
        return False
