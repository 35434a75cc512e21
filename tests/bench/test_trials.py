"""How often equal cells are called different, and slower ones slower: real rounds of turns, really slowed, one configuration.

    nox -s bench -- -k trials --trials 200

In every trial a cell and the same cell again take turns, in every other one also the same cell slowed by 2 and by 3%. Their
rounds are compared as pages compare them. Single-threaded cells: a trial on each processor at the same time, the neighbour's
noise is part of the test. What was measured is kept beside the cache, so that an interrupted bench goes on: its file's name
holds the configuration.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from harness.machine import paths
from harness.machine.digests import digest
from harness.machine.hardware import describe
from harness.measure.paired import PairedTest, ratio
from harness.measure.turns import COLD_SECONDS, LEAST_BATCHES, LEAST_PASSES, MOST_BATCHES, WANTED_PASSES
from tests.backends.checkpoints import BERT_TINY
from tests.bench.measuring import LEVEL, MEASURE, Bench, share

SLOWER = (0.02, 0.03)
FALSE_CALLS, SEEN, TRUSTED = 0.03, 0.80, 0.90
Trial = Mapping[str, list[float]]
"""Seconds for the same work in each round, by cell."""


def compared(trial: Trial, name: str) -> PairedTest:
    return ratio(trial[name], trial["cell"], by_turns=True)


def different(found: PairedTest) -> bool:
    return found.p is not None and found.p < LEVEL


class Trials:
    """Those that are kept, and those that are still to be made."""

    def __init__(self, path: Path, trials: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._lock = path, threading.Lock()
        self.done: list[Trial] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        slowed = sum(f"{SLOWER[0]:g}" in one for one in self.done)
        plain = len(self.done) - slowed
        self._todo = [True] * (trials // 2 - slowed) + [False] * (trials - trials // 2 - plain)

    def work(self, processor: int, bench: Bench) -> None:
        """On this processor alone, until nothing is left."""
        os.sched_setaffinity(0, {processor})  # of this thread, and of the processes that it starts
        while True:
            with self._lock:
                if not self._todo:
                    return
                slowed = self._todo.pop(0)
            cells = {"cell": bench.cell(), "again": bench.cell()}
            if slowed:
                cells |= {f"{slow:g}": bench.cell(slow) for slow in SLOWER}
            found = bench.turns(cells, MEASURE.rounds)
            with self._lock, self._path.open("a") as out:
                self.done.append(found)
                out.write(json.dumps(found) + "\n")


def measure_trials(folder: Path, trials: int) -> list[Trial]:
    ways = [MOST_BATCHES, LEAST_BATCHES, LEAST_PASSES, WANTED_PASSES, COLD_SECONDS]
    content = [asdict(MEASURE), BERT_TINY, SLOWER, ways, describe().as_dict()]
    found = Trials(paths.cache() / "bench" / f"trials-{digest(content)}.jsonl", trials)
    print(f"\n  {len(found.done)} trials are kept")
    benches = {cpu: Bench(folder / str(cpu)) for cpu in sorted(os.sched_getaffinity(0))}
    with ThreadPoolExecutor(len(benches)) as pool:
        for one in [pool.submit(found.work, cpu, bench) for cpu, bench in benches.items()]:
            one.result()
    return found.done


def test_trials(tmp_path: Path, trials: int) -> None:
    found = measure_trials(tmp_path, trials)
    print(f"  {MEASURE.rounds} rounds of {MEASURE.min_duration:g} s by turns, seconds for the same work, p < {LEVEL:g}")
    print(f"  a round's logarithm of the ratio of equal cells: standard deviation {deviation(found):.2%}")
    called = sum(different(compared(one, "again")) for one in found)
    low, _, words = share(called, len(found))
    print(f"  equal, called different:      {words}")
    assert called / len(found) <= FALSE_CALLS if trials >= 200 else low <= FALSE_CALLS
    slowed = [one for one in found if f"{SLOWER[0]:g}" in one]
    smallest = math.inf
    for slow in SLOWER:
        sides = [compared(one, f"{slow:g}") for one in slowed]
        seen = sum(different(one) and one.value > 1 for one in sides)
        _, high, words = share(seen, len(sides))
        shift = statistics.median(one.value for one in sides) - 1
        print(f"  slower by {slow:.0%}, called slower: {words}; median ratio {shift:+.1%}")
        if slow == 0.03:
            assert seen / len(sides) >= SEEN if trials >= 200 else high >= SEEN
        if seen / len(sides) >= TRUSTED:
            smallest = min(smallest, slow)
    print(
        f"  smallest slow-down seen in {TRUSTED:.0%} of the trials: {smallest:.0%}" if smallest < 1 else "  none seen"
    )


def deviation(found: Sequence[Trial]) -> float:
    logs = [[math.log(a / b) for a, b in zip(one["again"], one["cell"], strict=True)] for one in found]
    return math.sqrt(statistics.fmean(statistics.variance(one) for one in logs))
