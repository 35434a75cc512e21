"""Coverage of intervals where rounds end as soon as they are narrow: simulated runs, with the functions that runs use.

    nox -s bench -- -k rounds

4,000 runs a line, each with 7, 14 or 28 rounds: as many as it takes to a half-width of 5%. The figure of a cell is the
median over rounds, that of two interleaved cells the ratio. A slow round is half as long again; interleaved cells share it. The
first lines are of fixed numbers of rounds, the default and the fewest of `pick`. For comparison: Student's t over three rounds, and the same rule for stopping with intervals that do not know of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.measure.looks import median_over_rounds
from harness.measure.paired import ratio
from harness.measure.precision import Interval, half_width
from harness.measure.scenarios import mean_over_rounds
from harness.suite.measure import Measure
from harness.suite.own import FEWEST_ROUNDS
from tests.bench.measuring import share

Array = np.ndarray[Any, Any]
RUNS, WANTED = 1000, 0.05
PLAN = Measure(rounds=7, max_rounds=28).looks

NOISES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal, 8%": lambda rng, count: 1 + 0.08 * rng.normal(size=count),
    "lognormal, 10%": lambda rng, count: np.exp(0.1 * rng.normal(size=count)),
    "one slow round in ten": lambda rng, count: slow(rng, count) * (1 + 0.03 * rng.normal(size=count)),
}
"""Seconds of each round, where a median one takes a second."""


def slow(rng: np.random.Generator, count: int) -> Array:
    return np.where(rng.random(count) < 0.1, 1.5, 1.0)


def until_precise(figure_after: Callable[[int], Interval]) -> tuple[Interval, int]:
    """The figure, and after how many rounds its interval was as narrow as wanted, or the rounds at an end."""
    for rounds in PLAN:
        figure = figure_after(rounds)
        if (half_width(figure) or 1.0) <= WANTED:
            break
    return figure, rounds


def holds(figure: Interval, truth: float) -> bool:
    return figure.low is not None and figure.high is not None and figure.low <= truth <= figure.high


def of_cell(values: Array, rounds: int, looks: int) -> Interval:
    figure = median_over_rounds(list(values[:rounds]), looks)
    assert figure is not None
    return figure


def of_ratio(mine: Array, theirs: Array, rounds: int, looks: int) -> Interval:
    return ratio(list(mine[:rounds]), list(theirs[:rounds]), interleaved=True, looks=looks)


@pytest.mark.parametrize("rounds", [Measure.rounds, FEWEST_ROUNDS])
@pytest.mark.parametrize("noise", NOISES)
def test_a_fixed_number_of_rounds(noise: str, rounds: int) -> None:
    """The intervals of samples a second and latencies, and of speed-ups, hold in 93 to 97% (of 4,000 simulated runs)."""
    rng, draw = np.random.default_rng(7), NOISES[noise]
    truth = float(np.median(draw(np.random.default_rng(0), 1_000_000)))
    counts = {"cell, median": 0, "ratio": 0}
    for _ in range(4 * RUNS):
        together = slow(rng, rounds) if "slow" in noise else np.ones(rounds)  # the machine is slow, for both
        own_noise = NOISES["normal, 8%"] if "slow" in noise else draw
        mine, theirs = (together * own_noise(rng, rounds) for _ in range(2))
        figure = median_over_rounds(list(draw(rng, rounds)))
        assert figure is not None
        counts["cell, median"] += holds(figure, truth)
        counts["ratio"] += holds(ratio(list(mine), list(theirs), interleaved=True), 1.0)
    print(f"\n  {noise}, {rounds} rounds")
    for name, count in counts.items():
        print(f"    {name:26} holds the truth: {share(count, 4 * RUNS)[2]}")
        assert 0.93 <= count / (4 * RUNS) <= 0.97, name


@pytest.mark.parametrize("noise", NOISES)
def test_rounds_that_end_when_precise(noise: str) -> None:
    rng = np.random.default_rng(11)
    draw = NOISES[noise]
    truth = float(np.median(draw(np.random.default_rng(0), 1_000_000)))
    counts = dict.fromkeys(
        ("cell", "cell, looks not counted", "cell, mean of three, t", "ratio", "ratio, looks not counted"), 0
    )
    used: dict[str, list[int]] = {"cell": [], "ratio": []}
    for _ in range(4 * RUNS):
        own, (mine, theirs) = draw(rng, PLAN[-1]), (draw(rng, PLAN[-1]) for _ in range(2))
        if "slow" in noise:  # the machine is slow, for both
            together = slow(rng, PLAN[-1])
            mine, theirs = (together * (1 + 0.03 * rng.normal(size=PLAN[-1])) for _ in range(2))
        for looks, words in ((len(PLAN), ""), (1, ", looks not counted")):
            figure, rounds = until_precise(lambda rounds, looks=looks, own=own: of_cell(own, rounds, looks))  # type: ignore[misc]
            counts[f"cell{words}"] += holds(figure, truth)
            used["cell"] += [rounds] if not words else []
            figure, rounds = until_precise(
                lambda rounds, looks=looks, a=mine, b=theirs: of_ratio(a, b, rounds, looks)  # type: ignore[misc]
            )
            counts[f"ratio{words}"] += holds(figure, 1.0)
            used["ratio"] += [rounds] if not words else []
        three = mean_over_rounds(list(own[:3]))
        assert three is not None
        counts["cell, mean of three, t"] += holds(three, float(np.mean(draw(np.random.default_rng(0), 100_000))))
    print(f"\n  {noise}; rounds used, mean: cell {np.mean(used['cell']):.1f}, ratio {np.mean(used['ratio']):.1f}")
    for name, count in counts.items():
        print(f"    {name:26} holds the truth: {share(count, 4 * RUNS)[2]}")
    for name in ("cell", "ratio"):
        assert 0.93 <= counts[name] / (4 * RUNS) <= 0.98, name
