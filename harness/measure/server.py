"""The server scenario: samples arrive at random, as a Poisson process. The search finds the highest arrival rate at which the
99th percentile of latency stays within a bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.records.speed_schema import Probe
from harness.suite.measure import Profile

if TYPE_CHECKING:
    from harness.measure.loadgen import LoadgenResult


PROBE_QUERIES = 300
"""Queries of a short test: three of them may be late."""


PROBE_MS = 2000
"""Minimum duration of a short test, at most."""


CONFIRM_QUERIES = 838
"""Queries of a confirming test, at least: the fewest with which LoadGen's early stopping accepts two late ones. It asks for
99% confidence that the 99th percentile holds."""


PRECISION = 1.05
"""Short tests end when the lowest rate that broke the bound is at most this many times the highest that held it."""


STEP = 1.4
"""By what a rate is multiplied or divided until one has held and one has broken the bound."""


STEP_BACK = 0.95
"""By what the rate is multiplied after a confirming test that broke the bound."""


CONFIRMATIONS = {"quick": 3, "mlperf": 1}
"""How many confirming tests in a row must hold, by profile. Arrivals differ from test to test, and a machine from second to
second; a test of `mlperf` alone takes ten minutes."""


CONFIRMED_RATES = {"quick": 12, "mlperf": 6}
"""How many rates are tried in confirming tests, by profile."""


MAX_PROBES = 16
"""How many short tests there are at most."""


START, FLOOR = 0.6, 0.05
"""Where short tests start, and the rate below which the search gives up; as shares of the capacity."""


def search(
    make_settings: Callable[[int], Any],
    run: Callable[[Any], LoadgenResult],
    *,
    capacity: float,
    latency_ms: float,
    profile: Profile = "quick",
) -> tuple[float, LoadgenResult, list[Probe]]:
    """(samples a second, the last test that confirmed it, all tests). The rate is 0 where none held the bound.

    Short tests narrow the rate down to 5%; in them the measured p99 must be within the bound. Then several whole tests in a
    row must convince LoadGen's early stopping. Where one does not, the rate goes down by 5% and the tests start again.
    Short tests are alike in both profiles; a whole test is as long as the profile says.

    make_settings: LoadGen's settings of the test with this number; each number draws its own arrivals. run: runs one test.
    capacity: samples a second of full batches without a pause, where the search starts.
    """
    probes: list[Probe] = []

    def offer(rate: float, *, confirm: bool) -> tuple[bool, LoadgenResult]:
        settings = make_settings(len(probes))
        settings.server_target_qps = rate
        settings.server_target_latency_ns = round(1e6 * latency_ms)
        settings.server_target_latency_percentile = 0.99
        settings.max_duration_ms = 0
        if confirm:
            settings.min_query_count = max(settings.min_query_count, CONFIRM_QUERIES)
        else:
            settings.min_query_count = PROBE_QUERIES
            settings.min_duration_ms = min(settings.min_duration_ms, PROBE_MS)
        result = run(settings)
        held = result.log["result_validity"] == "VALID" if confirm else bool(result.log["result_perf_constraints_met"])
        probes.append(
            Probe(
                qps=rate,
                p99_ms=float(result.log["result_99.00_percentile_latency_ns"]) / 1e6,
                queries=result.samples,
                held=held,
                confirming=confirm,
            )
        )
        return held, result

    rate = START * capacity
    highest_held, lowest_broken = 0.0, float("inf")
    while len(probes) < MAX_PROBES and lowest_broken > PRECISION * highest_held and rate >= FLOOR * capacity:
        held, result = offer(rate, confirm=False)
        if held:
            highest_held = rate
        else:
            lowest_broken = rate
        if lowest_broken == float("inf"):
            rate = highest_held * STEP
        elif highest_held == 0:
            rate = lowest_broken / STEP
        else:
            rate = (highest_held * lowest_broken) ** 0.5
    for step in range(CONFIRMED_RATES[profile] if highest_held else 0):
        rate = highest_held * STEP_BACK**step
        for confirmations in range(1, CONFIRMATIONS[profile] + 1):
            held, result = offer(rate, confirm=True)
            if not held:
                break
            if confirmations == CONFIRMATIONS[profile]:
                return rate, result, probes
    return 0.0, result, probes
