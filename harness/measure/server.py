"""The server scenario: samples arrive at random, as a Poisson process, and the highest rate is sought at which the 99th
percentile of latency holds a bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.records.speed_schema import Probe
from harness.suite.measure import Profile

if TYPE_CHECKING:
    from harness.measure.loadgen import Outcome


PROBE_QUERIES = 300
"""Of a test that looks for the rate: three are allowed to be late."""


CONFIRM_QUERIES = 838
"""Of the test that confirms it: the fewest with which LoadGen's early stopping forgives two late ones. It asks for 99%
confidence that the 99th percentile holds."""


CLOSE = 1.05
"""The search ends when the rate that broke the bound is so close above the rate that held it."""


STEP = 1.4


BACK = 0.95


CONFIRMATIONS = {"quick": 3, "mlperf": 1}
"""How many confirming tests in a row must hold, by profile: arrivals differ from test to test, and a machine from second to
second; a test of `mlperf` takes ten minutes by itself."""


LOWERED = {"quick": 12, "mlperf": 6}
"""How many rates, each 5% below the last, are offered whole tests, by profile."""


PROBES = 16


START, FLOOR = 0.6, 0.05
"""Of the rate of full batches without a pause: where the search starts, and below what it is given up."""


def search(
    settings: Callable[[int], Any],
    test: Callable[[Any], Outcome],
    *,
    capacity: float,
    latency_ms: float,
    profile: Profile = "quick",
) -> tuple[float, Outcome, list[Probe]]:
    """(samples a second, the last test that confirmed it, every test that was made). 0 where no rate held the bound.

    capacity: samples a second of full batches without a pause, from where the search starts. Short tests narrow the rate down
    to 5%; there a p99 within the bound holds. Then so many whole tests in a row must convince LoadGen's early stopping; where
    one does not, the rate goes down by 5%, LOWERED rates at most. Both profiles look with short tests; a confirming test has
    the profile's length. settings: of the test of this number, whose arrivals are its own.
    """
    probes: list[Probe] = []

    def offer(rate: float, *, confirm: bool) -> tuple[bool, Outcome]:
        asked = settings(len(probes))
        asked.server_target_qps = rate
        asked.server_target_latency_ns = round(1e6 * latency_ms)
        asked.server_target_latency_percentile = 0.99
        asked.max_duration_ms = 0
        if confirm:
            asked.min_query_count = max(asked.min_query_count, CONFIRM_QUERIES)
        else:
            asked.min_query_count = PROBE_QUERIES
            asked.min_duration_ms = min(asked.min_duration_ms, 2000)
        tested = test(asked)
        held = (
            tested.result["result_validity"] == "VALID"
            if confirm
            else bool(tested.result["result_perf_constraints_met"])
        )
        probes.append(
            Probe(
                qps=rate,
                p99_ms=float(tested.result["result_99.00_percentile_latency_ns"]) / 1e6,
                queries=tested.served,
                held=held,
                confirming=confirm,
            )
        )
        return held, tested

    rate = START * capacity
    held, broke = 0.0, float("inf")
    while len(probes) < PROBES and broke > CLOSE * held and rate >= FLOOR * capacity:
        good, tested = offer(rate, confirm=False)
        held, broke = (rate, broke) if good else (held, rate)
        rate = held * STEP if broke == float("inf") else broke / STEP if held == 0 else (held * broke) ** 0.5
    for times in range(LOWERED[profile] if held else 0):
        rate = held * BACK**times
        for confirmed in range(1, CONFIRMATIONS[profile] + 1):
            good, tested = offer(rate, confirm=True)
            if not good:
                break
            if confirmed == CONFIRMATIONS[profile]:
                return rate, tested, probes
    return 0.0, tested, probes
