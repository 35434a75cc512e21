"""How often equal cells are called different, and slower ones slower: real rounds, really slowed, one configuration.

    nox -s bench -- -k trials --trials 200

Every trial takes turns between a cell, the same cell again, and (in every other trial) the same cell slowed by
2, 3 and 5%. Rounds are compared as pages compare them. What was measured is kept beside the cache, so that an
interrupted bench goes on: its file's name holds the configuration.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from harness import paths
from harness.cells import digest
from harness.machine import describe
from harness.measure.paired import Comparison, ratio
from tests.backends.checkpoints import BERT_TINY
from tests.bench.measuring import FIGURE, LEVEL, MEASURE, Bench, figures, share, take_turns

SLOWER = (0.02, 0.03, 0.05)
FALSE_CALLS, SEEN, TRUSTED = 0.03, 0.80, 0.90
Trial = Mapping[str, list[float]]
"""FIGURE of each round, by cell."""


def compared(trial: Trial, name: str) -> Comparison:
    return ratio(trial[name], trial["cell"], by_turns=True)


def different(found: Comparison) -> bool:
    return found.p is not None and found.p < LEVEL


def measure_trials(folder: Path, trials: int) -> list[Trial]:
    kept = paths.cache() / "bench" / f"trials-{digest([asdict(MEASURE), BERT_TINY, FIGURE, SLOWER, describe()])}.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    print(f"\n  {len(done)} trials in {kept}")
    bench = Bench(folder) if len(done) < trials else None
    for number in range(len(done), trials):
        assert bench is not None
        cells = {"cell": bench.cell(), "again": bench.cell()}
        if number % 2 == 0:
            cells |= {f"{slow:g}": bench.cell(slow) for slow in SLOWER}
        rounds = take_turns(bench, cells, MEASURE.rounds)
        done.append({name: figures(found) for name, found in rounds.items()})
        with kept.open("a") as out:
            out.write(json.dumps(done[-1]) + "\n")
    return done[:trials]


def test_trials(tmp_path: Path, trials: int) -> None:
    found = measure_trials(tmp_path, trials)
    print(f"  {MEASURE.rounds} rounds of {MEASURE.min_duration:g} s by turns, {FIGURE} of single_stream, p < {LEVEL:g}")
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
