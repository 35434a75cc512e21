"""Load on a session by MLPerf LoadGen, in MLPerf Inference's meanings: single_stream, multi_stream, offline and server.

LoadGen issues the queries, takes the times and computes the percentiles. Samples are token arrays in memory, made before the
test; what is timed is said in TIMED. Whatever the profile, figures are 'unverified by MLCommons'.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any, Literal

from backends import Session
from harness.measure.conditions import Counters
from harness.measure.loadgen import MAX_STRETCH, Outcome, loadgen_settings, run_test
from harness.measure.samples import Samples, batches
from harness.measure.steady import warm_up_on
from harness.records.figure import Figure
from harness.records.speed_schema import Probe, SpeedRound
from harness.suite.measure import Profile

TIMED = {
    "single_stream": "from LoadGen's issue of one sample to its completion: the session's run with host-device copies; tokenization and the making of arrays are outside.",
    "multi_stream": "from LoadGen's issue of a query's samples to its completion: copying their rows of int64 arrays into one batch padded to its longest, and the session's run with host-device copies; tokenization is outside.",
    "offline": "from LoadGen's issue of all samples to the last completion: sorting by length, copying rows of int64 arrays into batches padded to their longest, and the session's runs with host-device copies; tokenization is outside.",
    "server": "from the moment at which LoadGen's schedule has a sample arrive to its completion: waiting while the session is busy, copying rows of int64 arrays into a batch of what waits, padded to its longest, and the session's run with host-device copies; tokenization is outside.",
}


SLACK = 1.1
"""LoadGen's own factor: a query of offline is this much longer than the shortest duration at the expected rate."""


TRIES = 5
"""Offline is offered a larger query, as LoadGen advises, when it was done before min_duration; at most so many in all."""


def run_scenario(
    session: Session,
    samples: Samples,
    *,
    scenario: Literal["single_stream", "multi_stream", "offline", "server"] | str,
    batch_size: int,
    min_duration: float,
    min_queries: int,
    max_warmup: float,
    seed: int,
    profile: Profile = "quick",
    server_latency_ms: float | None = None,
    threads: int = 0,
    device: str = "cpu",
) -> SpeedRound:
    """Warm up, then one LoadGen test, which draws samples with replacement; of server as many as its search takes. Seconds.

    batch_size: samples of one query of multi_stream; what offline forms of its one query, whose size is a multiple of it,
    sorted by length; the most that server forms of what waits. The test is long enough for min_duration and min_queries
    samples, and cut off at ten times min_duration: a slow engine has too few queries then, which `validity` tells.
    profile `mlperf`: duration, counts and seeds of LoadGen's own mlperf.conf instead. threads, device: for the record, and
    where to read energy. Raises whatever the session does.
    """
    single = scenario == "single_stream"
    size = 1 if single else batch_size
    parts = batches(range(len(samples)), size, lambda row: samples.lengths[row])
    began = time.perf_counter()
    if device != "cpu":
        # A GPU loads kernels and takes memory for a shape at first sight, and may have others for a batch with padding.
        shortest = min(range(len(samples)), key=lambda row: samples.widths[row])
        for row in {samples.widths[row]: row for part in parts for row in part}.values():
            for last in dict.fromkeys((row, shortest)) if size > 1 else (row,):
                session.run(samples.batch([*[row] * (size - 1), last]))
    every_shape = time.perf_counter() - began
    warm_seconds, warm_ended, rate = warm_up_on(session, [samples.batch(part) for part in parts], max_warmup)
    warm_seconds += every_shape
    ready = [samples.batch([row]) for row in range(len(samples))] if single else []

    def call(rows: Sequence[int]) -> None:
        session.run(ready[rows[0]] if single else samples.batch(rows))

    def settings(number: int = 0) -> Any:
        return loadgen_settings(scenario, profile, min_duration, min_queries, seed + number)

    def test(asked: Any) -> Outcome:
        return run_test(asked, samples, size, call, scenario, Counters.reader(device), threads)

    if scenario == "server":
        from harness.measure.server import search

        assert server_latency_ms is not None
        rate, tested, probes = search(settings, test, capacity=rate, latency_ms=server_latency_ms, profile=profile)
        return _round(tested, scenario, warm_seconds, warm_ended, rate=rate, search=probes)
    asked = settings()
    quickly = max(1, int(0.25e9 * size / rate))  # so short that queries never run out
    asked.single_stream_expected_latency_ns = asked.multi_stream_expected_latency_ns = quickly
    asked.multi_stream_samples_per_query = size
    least = asked.min_query_count
    for _ in range(TRIES if scenario == "offline" else 1):
        if scenario == "offline":
            asked.offline_expected_qps = rate
            seconds = asked.min_duration_ms / 1000
            asked.min_query_count = _offline_samples(rate, size, seconds, least, cut_off=profile == "quick")
        tested = test(asked)
        if tested.result.get("result_min_duration_met", True):
            break
        rate = 1.1 * max(rate, float(tested.result.get("result_samples_per_second", rate)))
    return _round(tested, scenario, warm_seconds, warm_ended)


def _offline_samples(rate: float, batch_size: int, seconds: float, least: int, *, cut_off: bool) -> int:
    """Whole batches: at least one, no more than the cut-off allows, else what duration and count ask for."""
    wanted = math.ceil(max(least, SLACK * rate * seconds) / batch_size)
    batches = min(wanted, int(rate * seconds * MAX_STRETCH / batch_size)) if cut_off else wanted
    return max(1, batches) * batch_size


def _round(
    tested: Outcome,
    scenario: str,
    warm_seconds: float,
    warm_ended: str,
    *,
    rate: float | None = None,
    search: Sequence[Probe] = (),
) -> SpeedRound:
    """rate: what server found; other scenarios are as fast as they are."""
    result, served = tested.result, tested.served
    kept = {key: value for key, value in result.items() if isinstance(value, int | float | str | bool)}

    def milliseconds(key: str) -> float | None:
        return float(result[key]) / 1e6 if float(result.get(key, 0)) > 0 else None

    if scenario == "offline":
        qps = float(result["result_samples_per_second"])
    elif scenario == "single_stream":
        qps = float(result["result_qps_with_loadgen_overhead"])
    else:
        qps = served / tested.seconds if rate is None else rate
    per_query = "_per_query" if scenario == "multi_stream" else ""
    latencies: dict[str, Any] = {}
    if scenario != "offline":
        mean = "result_mean_query_latency_ns" if per_query else "result_mean_latency_ns"
        early = {"single_stream": "early_stopping_latency_ss", "multi_stream": "early_stopping_latency_ms"}
        latencies = {
            "mean_ms": milliseconds(mean),
            **{f"p{p}_ms": milliseconds(f"result_{p}.00_percentile{per_query}_latency_ns") for p in (50, 90, 99)},
            "early_stopping_ms": milliseconds(early[scenario]) if scenario in early else None,
        }
    return SpeedRound(
        qps=qps,
        **latencies,
        queries=served,
        mean_tokens=tested.tokens / served if served else None,
        duration_seconds=served / qps if scenario in ("offline", "single_stream") else tested.seconds,
        warmup_seconds=warm_seconds,
        warmup_ended=warm_ended,
        search=list(search),
        conditions=tested.conditions,
        loadgen=kept,
    )


def over_rounds(values: Sequence[float | None]) -> Figure | None:
    """The mean over rounds with Student's t interval over them (rounds are the independent repetitions: Kalibera & Jones
    2013); None where a round has no value."""
    known = [value for value in values if value is not None]
    if len(known) != len(values) or not known:
        return None
    mean = statistics.fmean(known)
    if len(known) < 2:
        return Figure(value=mean, method="no interval: a single round")
    from scipy.special import stdtrit

    half = float(stdtrit(len(known) - 1, 0.975)) * statistics.stdev(known) / len(known) ** 0.5
    return Figure(
        value=mean,
        low=max(0.0, mean - half),
        high=mean + half,
        method=f"mean and t interval over {len(known)} fresh-process rounds",
    )


def summarise(rounds: Sequence[SpeedRound]) -> dict[str, Figure | None]:
    """Every figure of a Speed over its rounds."""
    names = ("qps", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "early_stopping_ms")
    figures = {name: over_rounds([getattr(one, name) for one in rounds]) for name in names}
    energy = [
        one.conditions.energy_joules / one.queries
        if one.conditions and one.conditions.energy_joules is not None and one.queries
        else None
        for one in rounds
    ]
    return figures | {"joules_a_query": over_rounds(energy)}
