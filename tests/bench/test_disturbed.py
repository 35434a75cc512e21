"""A cell beside a process that uses all processors is marked disturbed, one alone is not; the runner uses hardly any time.

    nox -s bench -- -k disturbed --trials 200

A twentieth of the trials each, alternately, at least two; each has three rounds of a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.bench.measuring import MEASURE, Bench, quiet_or_skip, share, summary

BURN = """
import os
for _ in range({}):
    if os.fork() == 0:
        break
while os.getppid() != 1:
    pass
"""


def test_disturbed(tmp_path: Path, trials: int) -> None:
    quiet_or_skip()
    bench = Bench(tmp_path)
    cell = bench.cell(measure=replace(MEASURE, rounds=3, min_duration=1.0))
    marked = {"alone": 0, "disturbed": 0}
    others: dict[str, list[float]] = {"alone": [], "disturbed": []}
    runner: list[float] = []
    times = max(2, trials // 20)
    for number in range(2 * times):
        case = list(marked)[number % 2]
        burner = None
        if case == "disturbed":
            words = [sys.executable, "-c", BURN.format(len(os.sched_getaffinity(0)) - 1)]
            burner = subprocess.Popen(words, start_new_session=True)
        try:
            rounds = [bench.round(cell, number) for number in range(1, cell.measure.rounds + 1)]
        finally:
            if burner:
                os.killpg(burner.pid, 9)
                burner.wait()
        speed, findings = summary(cell, rounds)
        marked[case] += "disturbed" in {finding.rule for finding in findings}
        for speed_round in speed[0].rounds:
            conditions = speed_round.conditions
            assert conditions is not None
            assert conditions.runner_cpu_percent is not None
            others[case].append(conditions.other_cpu_percent)
            runner.append(conditions.runner_cpu_percent)
    for case, count in marked.items():
        low, high = min(others[case]), max(others[case])
        print(f"  {case:10} marked disturbed: {share(count, times)[2]}; others took {low:.1f} to {high:.1f}%")
    print(
        f"  the runner took {max(runner):.2f}% of a processor at most; below 1%: {share(sum(r < 1 for r in runner), len(runner))[2]}"
    )
    assert marked == {"alone": 0, "disturbed": times}
    assert max(runner) < 1
