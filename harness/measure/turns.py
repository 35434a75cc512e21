"""Sessions that take turns, batch by batch, on the same work: how many times faster one is than another.

A shared machine's speed wanders by a tenth and more within a second, which the median of a round of seconds follows; two
sessions that run the same batch a few milliseconds apart see the same machine. So what is compared is not the speed of
each, measured alone, but the time that each took for the same batches, measured in turns (the interleaving of Georges,
Buytaert & Eeckhout 2007 and of paired microbenchmarks, carried down to a single call). The processes are fresh ones in
every round, since two processes of the same program differ, too.

This module holds what happens inside a process (`Turns`), and which batches are run how often (`schedule`); the runner's
side, which hands out the turns, is `harness.turns`.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends import Batch, Session
from harness.measure.samples import batches, make_samples
from tasks import Features

SECONDS = 4.0
"""Timed, of a session in one round at one load: at most, where two calls of two batches do not take longer."""
MOST_BATCHES, LEAST_BATCHES = 32, 2
MOST_CALLS = 4
LEAST_PASSES, WANTED_PASSES = 3, 8
TURN_SECONDS = 0.003
"""Calls shorter than that are repeated in a turn."""
COLD_SECONDS = 0.02
"""Calls shorter than that are preceded by one that is not timed: the others have emptied the caches."""
REST_SECONDS, PATIENCE = 0.001, 0.25
REST_SHARE = 0.2
"""A process rests when its threads take less than that of a processor's time."""


@dataclass(frozen=True)
class Schedule:
    """batches: positions in the work, sorted by length, spread evenly. passes: how often all of them are run. calls: timed in
    a turn, after `cold` ones that are not."""

    batches: tuple[int, ...]
    passes: int
    calls: int
    cold: int


def schedule(seconds: Sequence[float], available: int, budget: float) -> Schedule:
    """What every session runs, from the time that a call takes in each, so that the slowest has about `budget` seconds of
    timed calls: many batches while there are at least eight passes over them, never fewer than two batches and three passes."""
    slowest, fastest = max(seconds), min(seconds)
    calls = max(1, min(MOST_CALLS, int(TURN_SECONDS / slowest)))
    turns = min(budget, SECONDS) / (calls * slowest)
    count = min(available, MOST_BATCHES, max(LEAST_BATCHES, int(turns / WANTED_PASSES)))
    chosen = tuple((2 * number + 1) * available // (2 * count) for number in range(count))
    return Schedule(chosen, max(LEAST_PASSES, int(turns / count)), calls, int(fastest < COLD_SECONDS))


def of_work(times: Mapping[int, Sequence[float]]) -> float:
    """Seconds of all batches once, each at its median: a call that something disturbed does not count."""
    return sum(statistics.median(found) for found in times.values())


class Turns:
    """The session's side: `work` lays out the batches of a load, `run` runs one of them."""

    def __init__(self, session: Session, features: Features, max_length: int, seed: int) -> None:
        self._session, self._features = session, features
        self._max_length, self._seed = max_length, seed
        self._work: list[Batch] = []

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """To {"load", "batch_size"}: {"samples", "tokens"}, of each batch; to {"run", "cold", "calls"}: {"seconds"}, of each
        timed call."""
        if "load" in asked:
            return self.lay_out(str(asked["load"]), int(asked["batch_size"]))
        return {"seconds": self.run(int(asked["run"]), int(asked["cold"]), int(asked["calls"]))}

    def lay_out(self, load: str, size: int) -> dict[str, Any]:
        count = len(self._features)
        samples = make_samples(self._features, load=load, max_length=self._max_length, count=count, seed=self._seed)
        parts = [part for part in batches(range(count), size, lambda row: samples.lengths[row]) if len(part) == size]
        parts = parts or [list(range(count))]
        self._work = [samples.batch(part) for part in parts]
        return {
            "samples": [len(part) for part in parts],
            "tokens": [sum(samples.lengths[row] for row in part) for part in parts],
        }

    def run(self, number: int, cold: int, calls: int) -> list[float]:
        batch, found = self._work[number], []
        gc.disable()
        for call in range(cold + calls):
            start = time.perf_counter()
            self._session.run(batch)
            if call >= cold:
                found.append(time.perf_counter() - start)
        gc.enable()
        rest()
        return found


def rest() -> None:
    """Return when this process takes next to no processor time any more: the threads of an engine's pool go on spinning for a
    while when there is nothing to do, on processors that belong to the next one now."""
    until = time.perf_counter() + PATIENCE
    while time.perf_counter() < until:
        used, began = time.process_time(), time.perf_counter()
        time.sleep(REST_SECONDS)
        if time.process_time() - used < REST_SHARE * (time.perf_counter() - began):
            return
