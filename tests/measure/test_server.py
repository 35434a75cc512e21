"""The server scenario on sessions whose service time is known, against queueing theory, and the profile of MLPerf."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from harness.measure.loadgen import Outcome, Waiting, loadgen_settings
from harness.measure.samples import make_samples
from harness.measure.scenarios import run_scenario
from harness.measure.server import CLOSE, search
from harness.records.speed_schema import Conditions
from tests.backends.in_memory import InMemorySession
from tests.measure.clock import agrees_with_the_clock, times_of
from tests.measure.features import make_features

NOTHING = Conditions(
    began_seconds=0,
    ended_seconds=1,
    threads=1,
    affinity=[0],
    own_cpu_percent=0,
    other_cpu_percent=0,
    steal_percent=0,
    energy_source="none",
)


@dataclass
class Asked:
    """LoadGen's settings, as far as the search touches them."""

    server_target_qps: float = 0
    server_target_latency_ns: int = 0
    server_target_latency_percentile: float = 0
    min_query_count: int = 10
    min_duration_ms: int = 5000
    max_duration_ms: int = 1
    number: int = 0


def numbered(number: int) -> Asked:
    return Asked(number=number)


def session_that_holds(most: float, sure: float, asked: list[Asked]) -> Any:
    """A test whose p99 is at its bound at the rate `most`; early stopping is convinced up to `sure`."""

    def test(one: Asked) -> Outcome:
        asked.append(one)
        rate, bound = one.server_target_qps, one.server_target_latency_ns
        result = {
            "result_99.00_percentile_latency_ns": bound * rate / most,
            "result_perf_constraints_met": rate <= most,
            "result_validity": "VALID" if rate <= sure else "INVALID",
        }
        return Outcome(result, one.min_query_count, one.min_query_count, 1.0, NOTHING)

    return test


@pytest.mark.parametrize(("most", "sure"), [(90.0, 90.0), (30.0, 30.0), (8.0, 7.9), (300.0, 280.0), (55.0, 47.0)])
def test_the_search_ends_just_below_what_breaks(most: float, sure: float) -> None:
    asked: list[Asked] = []
    rate, tested, probes = search(numbered, session_that_holds(most, sure, asked), capacity=100.0, latency_ms=20.0)
    assert sure * 0.9 <= rate <= sure
    assert rate >= min(most / CLOSE, sure) * 0.949
    assert tested.result["result_validity"] == "VALID"
    assert [one.confirming for one in probes] == sorted(one.confirming for one in probes)
    assert probes[-1].confirming
    assert probes[-1].held
    assert probes[-1].qps == rate
    assert len(asked) == len(probes) <= 22
    assert [one.number for one in asked] == list(range(len(asked)))  # each with arrivals of its own
    assert [one.held for one in probes[-3:]] == [True] * 3
    assert {one.qps for one in probes[-3:]} == {rate}
    assert all(one.min_query_count >= 838 for one in asked[-3:])
    assert all(one.min_duration_ms <= 2000 for one, probe in zip(asked, probes, strict=True) if not probe.confirming)
    assert {one.server_target_latency_ns for one in asked} == {20_000_000}


def test_a_rate_that_held_by_chance_is_not_the_one_found() -> None:
    """Every second confirming test breaks at whatever rate above 70: only below it do three in a row hold."""
    asked: list[Asked] = []
    always = session_that_holds(80.0, 80.0, asked)

    def test(one: Asked) -> Outcome:
        found: Outcome = always(one)
        chance = one.server_target_qps > 70 and one.number % 2 == 0
        return replace(found, result={**found.result, "result_validity": "INVALID"}) if chance else found

    rate, _, probes = search(numbered, test, capacity=100.0, latency_ms=20.0)
    assert 60 < rate <= 70
    assert any(one.held and one.confirming and one.qps > 70 for one in probes)


def test_a_bound_that_nothing_holds_ends_soon_and_is_no_rate() -> None:
    asked: list[Asked] = []
    rate, _, probes = search(numbered, session_that_holds(0.01, 0.01, asked), capacity=100.0, latency_ms=1.0)
    assert rate == 0
    assert len(probes) < 10
    assert min(one.qps for one in probes) >= 5
    asked.clear()
    assert search(numbered, session_that_holds(50.0, 1.0, asked), capacity=100.0, latency_ms=1.0)[0] == 0


def test_what_waits_goes_together_oldest_first_and_nothing_is_lost() -> None:
    taken: list[tuple[list[int], list[int]]] = []
    started, go_on = threading.Event(), threading.Event()

    def answer(numbers: Any, rows: Any) -> None:
        taken.append((list(numbers), list(rows)))
        started.set()
        go_on.wait(5)

    waiting = Waiting(answer, 4, lambda: None)
    waiting.add([0], [90])
    assert started.wait(5)
    for number in range(1, 8):
        waiting.add([number], [90 + number])
    go_on.set()
    waiting.close()
    assert taken == [([0], [90]), ([1, 2, 3, 4], [91, 92, 93, 94]), ([5, 6, 7], [95, 96, 97])]


def m_d_1_wait(load: float, service: float) -> float:
    """Mean time in an M/D/1 queue, service included (Pollaczek 1930, Khinchine 1932)."""
    return service * (1 + load / (2 * (1 - load)))


def test_arrivals_are_poisson_and_latency_holds_the_waiting() -> None:
    """One sample at a time, 2 ms each: 50% load has a known mean latency. Statistical error of 1,500 samples and a machine
    that others use: between half and twice as much waiting."""
    from harness.measure.conditions import Counters
    from harness.measure.loadgen import run_test

    session = InMemorySession(seconds_a_call=0.002)
    samples = make_samples(make_features(), load="fixed", max_length=50, count=64, seed=1)
    asked = loadgen_settings("server", "quick", 1.0, 1500, 3)
    asked.server_target_qps = 250.0
    asked.server_target_latency_ns = 10**9
    asked.max_duration_ms = 0
    for _ in range(3):
        session.began.clear()
        session.ended.clear()
        tested = run_test(
            asked, samples, 1, lambda rows: session.run(samples.batch(rows)), "server", Counters.reader("cpu"), 1
        )
        mean = tested.result["result_mean_latency_ns"] / 1e9
        if mean < 2 * m_d_1_wait(0.5, 0.002):
            break
    began, ended = session.began[1:], session.ended[1:]  # without the thread's own first call
    calls = np.subtract(ended, began)
    if np.mean(calls) > 1.05 * 0.002:
        pytest.skip("others use the processors: calls take longer than the 2 ms of which the mean latency is known")
    assert tested.served == len(began) >= 1500
    assert 0.9 * m_d_1_wait(0.5, 0.002) - 0.0005 <= mean < 2 * m_d_1_wait(0.5, 0.002)
    assert tested.result["result_scheduled_samples_per_sec"] == pytest.approx(250, rel=0.15)
    assert np.diff(began).min() >= 0.002
    assert math.isclose(tested.seconds, ended[-1] - began[0], rel_tol=0.05)


def test_a_threads_first_call_is_no_query() -> None:
    """Some libraries make what a thread needs at its first call; here that takes 0.3 s, of which no latency tells."""
    from harness.measure.conditions import Counters
    from harness.measure.loadgen import run_test

    samples = make_samples(make_features(), load="fixed", max_length=50, count=4, seed=1)
    of_thread = threading.local()
    sizes: list[int] = []

    def call(rows: Any) -> None:
        sizes.append(len(rows))
        if not hasattr(of_thread, "known"):
            time.sleep(0.3)
        of_thread.known = True

    asked = loadgen_settings("server", "quick", 0.05, 20, 3)
    asked.server_target_qps = 200.0
    asked.server_target_latency_ns = 10**9
    asked.max_duration_ms = 0
    for _ in range(2):
        tested = run_test(asked, samples, 8, call, "server", Counters.reader("cpu"), 1)
        assert tested.result["result_max_latency_ns"] < 0.25e9
    assert sizes[0] == 8  # a full batch, though there are fewer samples
    assert sum(sizes) == 2 * 8 + tested.served * 2


def test_what_fails_at_a_threads_first_call_is_raised() -> None:
    from harness.measure.conditions import Counters
    from harness.measure.loadgen import run_test

    samples = make_samples(make_features(), load="fixed", max_length=50, count=4, seed=1)

    def call(rows: Any) -> None:
        raise ValueError("no memory")

    asked = loadgen_settings("server", "quick", 0.05, 20, 3)
    asked.server_target_qps = 200.0
    asked.max_duration_ms = 0
    with pytest.raises(ValueError, match="no memory"):
        run_test(asked, samples, 2, call, "server", Counters.reader("cpu"), 1)


def test_server_forms_batches_and_finds_a_rate_on_loadgen() -> None:
    """5 ms a call whatever its size up to 4: about 200 calls a second, more samples when they go together."""
    session = InMemorySession(seconds_a_call=0.005)
    samples = make_samples(make_features(), load="real", max_length=50, count=64, seed=1)
    start = time.perf_counter()
    found = run_scenario(
        session,
        samples,
        scenario="server",
        batch_size=4,
        min_duration=0.2,
        min_queries=20,
        max_warmup=0.7,
        seed=1,
        server_latency_ms=60.0,
    )
    assert time.perf_counter() - start < 60
    assert found.search
    if found.qps:  # others on the machine can make a bound impossible
        assert 30 < found.qps < 800
        assert found.p99_ms is not None
        assert found.p99_ms <= 60
        assert found.queries >= 838
        assert max(rows for rows, _ in session.shapes[-found.queries :]) > 1
    assert max(rows for rows, _ in session.shapes) <= 4
    assert found.conditions is not None
    assert found.conditions.ended_seconds > found.conditions.began_seconds


def test_multi_stream_asks_for_a_batch_at_once() -> None:
    session = InMemorySession(seconds_a_call=0.004)
    samples = make_samples(make_features(), load="fixed", max_length=50, count=64, seed=1)
    found = run_scenario(
        session,
        samples,
        scenario="multi_stream",
        batch_size=4,
        min_duration=0.3,
        min_queries=10,
        max_warmup=0.3,
        seed=1,
    )
    calls = found.queries // 4
    assert set(session.shapes[-calls:]) == {(4, 50)}
    assert found.queries == 4 * calls
    agrees_with_the_clock(found, session, calls)
    began, ended = times_of(session, calls)
    assert found.qps == pytest.approx(found.queries / (ended[-1] - began[0]), rel=0.1)
    assert found.early_stopping_ms is None  # needs 662 queries
    assert found.loadgen["effective_samples_per_query"] == 4


def test_profile_mlperf_is_loadgens_own() -> None:
    """Against the published mlperf.conf of MLPerf Inference v6.0, by hand."""
    published = {"single_stream": 100, "multi_stream": 662, "offline": 10_833, "server": 100}
    for scenario, queries in published.items():
        asked = loadgen_settings(scenario, "mlperf", 1.0, 7, 1)
        assert asked.min_duration_ms == 600_000
        assert asked.min_query_count == queries
        assert asked.max_duration_ms == 0
        assert asked.schedule_rng_seed > 2**32
        assert asked.scenario.name.lower() == scenario.replace("_", "")
    assert asked.server_target_latency_ns == 130_000_000
    quick = loadgen_settings("multi_stream", "quick", 1.0, 7, 1)
    assert (quick.min_duration_ms, quick.min_query_count, quick.schedule_rng_seed) == (1000, 7, 1)
