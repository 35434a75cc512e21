"""How often equal cells are called different, and slower cells slower: real interleaved rounds of one configuration.

    nox -s bench -- -k trials --trials 200

Every trial interleaves a cell with the same cell again, and every other trial also with the cell slowed by 2% and by 3%. Their
rounds are compared as pages compare them. Cells have a single thread, and each processor runs a trial at the same time, so
that the neighbour's noise is part of the test. Results are kept in the cache, in a file named by the configuration, so that an
interrupted bench continues.
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
from harness.measure.turns import COLD_SECONDS, MAX_BATCHES, MIN_BATCHES, MIN_PASSES, WANTED_PASSES
from tests.backends.checkpoints import BERT_TINY
from tests.bench.measuring import LEVEL, MEASURE, Bench, share

SLOWER = (0.02, 0.03)
FALSE_CALLS, SEEN, TRUSTED = 0.03, 0.80, 0.90
Trial = Mapping[str, list[float]]
"""Seconds for the same work in each round, by cell."""


def compared(trial: Trial, name: str) -> PairedTest:
    return ratio(trial[name], trial["cell"], interleaved=True)


def different(test: PairedTest) -> bool:
    return test.p is not None and test.p < LEVEL


class Trials:
    """The trials that are done, and those that are still to do."""

    def __init__(self, path: Path, trials: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._lock = path, threading.Lock()
        self.done: list[Trial] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        slowed = sum(f"{SLOWER[0]:g}" in trial for trial in self.done)
        plain = len(self.done) - slowed
        self._todo = [True] * (trials // 2 - slowed) + [False] * (trials - trials // 2 - plain)

    def work(self, processor: int, bench: Bench) -> None:
        """Run trials on this processor alone until none is left to do."""
        os.sched_setaffinity(0, {processor})  # for this thread and the processes that it starts
        while True:
            with self._lock:
                if not self._todo:
                    return
                slowed = self._todo.pop(0)
            cells = {"cell": bench.cell(), "again": bench.cell()}
            if slowed:
                cells |= {f"{slow:g}": bench.cell(slow) for slow in SLOWER}
            trial = bench.interleaved(cells, MEASURE.rounds)
            with self._lock, self._path.open("a") as out:
                self.done.append(trial)
                out.write(json.dumps(trial) + "\n")


def measure_trials(folder: Path, trials: int) -> list[Trial]:
    schedule = [MAX_BATCHES, MIN_BATCHES, MIN_PASSES, WANTED_PASSES, COLD_SECONDS]
    content = [asdict(MEASURE), BERT_TINY, SLOWER, schedule, describe().as_dict()]
    kept = Trials(paths.cache() / "bench" / f"trials-{digest(content)}.jsonl", trials)
    print(f"\n  {len(kept.done)} trials are kept")
    benches = {cpu: Bench(folder / str(cpu)) for cpu in sorted(os.sched_getaffinity(0))}
    with ThreadPoolExecutor(len(benches)) as pool:
        for future in [pool.submit(kept.work, cpu, bench) for cpu, bench in benches.items()]:
            future.result()
    return kept.done


def test_trials(tmp_path: Path, trials: int) -> None:
    done = measure_trials(tmp_path, trials)
    print(
        f"  {MEASURE.rounds} interleaved rounds of {MEASURE.min_duration:g} s, seconds for the same work, p < {LEVEL:g}"
    )
    print(f"  a round's logarithm of the ratio of equal cells: standard deviation {deviation(done):.2%}")
    called = sum(different(compared(trial, "again")) for trial in done)
    low, _, words = share(called, len(done))
    print(f"  equal, called different:      {words}")
    assert called / len(done) <= FALSE_CALLS if trials >= 200 else low <= FALSE_CALLS
    slowed = [trial for trial in done if f"{SLOWER[0]:g}" in trial]
    smallest = math.inf
    for slow in SLOWER:
        tests = [compared(trial, f"{slow:g}") for trial in slowed]
        seen = sum(different(test) and test.value > 1 for test in tests)
        _, high, words = share(seen, len(tests))
        shift = statistics.median(test.value for test in tests) - 1
        print(f"  slower by {slow:.0%}, called slower: {words}; median ratio {shift:+.1%}")
        if slow == 0.03:
            assert seen / len(tests) >= SEEN if trials >= 200 else high >= SEEN
        if seen / len(tests) >= TRUSTED:
            smallest = min(smallest, slow)
    print(
        f"  smallest slow-down seen in {TRUSTED:.0%} of the trials: {smallest:.0%}" if smallest < 1 else "  none seen"
    )


def deviation(trials: Sequence[Trial]) -> float:
    logs = [[math.log(a / b) for a, b in zip(trial["again"], trial["cell"], strict=True)] for trial in trials]
    return math.sqrt(statistics.fmean(statistics.variance(rounds) for rounds in logs))
