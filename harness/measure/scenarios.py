"""Load on a session by MLPerf LoadGen, in MLPerf Inference's meanings: single_stream, multi_stream, offline and server.

LoadGen issues the queries, takes the times and computes the percentiles. Samples are token arrays in memory, made before the
test. TIMED says what is inside the timed region. Figures of every profile are 'unverified by MLCommons'.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from backends import Session
from harness.measure.conditions import Counters
from harness.measure.loadgen import MAX_STRETCH, LoadgenResult, loadgen_settings, run_test
from harness.measure.looks import median_over_rounds
from harness.measure.samples import Samples, batches
from harness.measure.steady import WarmUp, warm_up_session
from harness.records.figure import Figure
from harness.records.speed_schema import Probe, SpeedRound
from harness.suite.measure import Profile

TIMED = {
    "interleaved": "from the call of the session's run with arrays in memory to its return: host-device copies inside; tokenization, the making of arrays and padding outside.",
    "single_stream": "from LoadGen's issue of one sample to its completion: the session's run with host-device copies; tokenization and the making of arrays are outside.",
    "multi_stream": "from LoadGen's issue of a query's samples to its completion: copying their rows of int64 arrays into one batch padded to its longest, and the session's run with host-device copies; tokenization is outside.",
    "offline": "from LoadGen's issue of all samples to the last completion: sorting by length, copying rows of int64 arrays into batches padded to their longest, and the session's runs with host-device copies; tokenization is outside.",
    "server": "from the moment at which LoadGen's schedule has a sample arrive to its completion: waiting while the session is busy, copying rows of int64 arrays into a batch of what waits, padded to its longest, and the session's run with host-device copies; tokenization is outside.",
}


SLACK = 1.1
"""LoadGen's own factor: offline's query lasts this many times the minimum duration at the expected rate."""


TRIES = 5
"""How often offline runs, at most. Where a query was done before the minimum duration, LoadGen advises a larger one."""


EXPECTED_LATENCY = 0.25
"""The latency that LoadGen is told to expect, as a share of the one in warm-up. LoadGen draws the queries of single_stream and
multi_stream beforehand, as many as this latency asks for; with a quarter they never run out."""


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
    """Warm up, then run one LoadGen test, which draws samples with replacement; server runs as many tests as its search takes.

    batch_size: for multi_stream the samples of a query; for offline the samples of a batch, sorted by length (its one query
    is a multiple of it); for server the largest batch of samples that wait. min_duration, max_warmup: seconds.
    The test lasts for at least min_duration and min_queries samples, and is cut off at ten times min_duration: a slow engine
    then has too few queries, which `harness.measure.validity` reports. Profile `mlperf` takes duration, counts and seeds from
    LoadGen's own mlperf.conf instead. threads, device: for the record, and to know where energy is read.
    Raises whatever the session raises.
    """
    single = scenario == "single_stream"
    size = 1 if single else batch_size
    warm = _warm_up(session, samples, size, device, max_warmup)
    ready = [samples.batch([row]) for row in range(len(samples))] if single else []

    def call(rows: Sequence[int]) -> None:
        session.run(ready[rows[0]] if single else samples.batch(rows))

    def make_settings(number: int = 0) -> Any:
        return loadgen_settings(scenario, profile, min_duration, min_queries, seed + number)

    def run(settings: Any) -> LoadgenResult:
        return run_test(settings, samples, size, call, scenario, Counters.reader(device), threads)

    if scenario == "server":
        from harness.measure.server import search

        assert server_latency_ms is not None
        qps, result, probes = search(
            make_settings, run, capacity=warm.rate, latency_ms=server_latency_ms, profile=profile
        )
        return _round(result, scenario, warm, qps=qps, probes=probes)
    settings = make_settings()
    expected_ns = max(1, int(1e9 * EXPECTED_LATENCY * size / warm.rate))
    settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = expected_ns
    settings.multi_stream_samples_per_query = size
    if scenario == "offline":
        return _round(_run_offline(run, settings, warm.rate, size, profile), scenario, warm)
    return _round(run(settings), scenario, warm)


def _warm_up(session: Session, samples: Samples, size: int, device: str, max_seconds: float) -> WarmUp:
    """Warm up on the batches of `size` that the samples make, sorted by length."""
    parts = batches(range(len(samples)), size, lambda row: samples.lengths[row])
    start = time.perf_counter()
    if device != "cpu":
        # A GPU loads kernels and takes memory at the first batch of a shape, and may use other kernels for padded batches.
        shortest = min(range(len(samples)), key=lambda row: samples.widths[row])
        for row in {samples.widths[row]: row for part in parts for row in part}.values():
            for last in dict.fromkeys((row, shortest)) if size > 1 else (row,):
                session.run(samples.batch([*[row] * (size - 1), last]))
    shapes_seconds = time.perf_counter() - start
    work = [samples.batch(part) for part in parts]
    warm = warm_up_session(session, work, max_seconds, Counters.reader("cpu"))
    return replace(warm, seconds=warm.seconds + shapes_seconds)


def _run_offline(
    run: Callable[[Any], LoadgenResult], settings: Any, rate: float, size: int, profile: Profile
) -> LoadgenResult:
    """rate: samples a second that are expected. Where the query was done too soon, a larger one is offered."""
    min_samples, seconds = settings.min_query_count, settings.min_duration_ms / 1000
    for _ in range(TRIES):
        settings.offline_expected_qps = rate
        settings.min_query_count = _offline_samples(rate, size, seconds, min_samples, cut_off=profile == "quick")
        result = run(settings)
        if result.log.get("result_min_duration_met", True):
            break
        rate = 1.1 * max(rate, float(result.log.get("result_samples_per_second", rate)))
    return result


def _offline_samples(rate: float, batch_size: int, seconds: float, min_samples: int, *, cut_off: bool) -> int:
    """Samples of offline's query, in whole batches: what duration and count ask for, within the cut-off; at least one batch."""
    wanted = math.ceil(max(min_samples, SLACK * rate * seconds) / batch_size)
    count = min(wanted, int(rate * seconds * MAX_STRETCH / batch_size)) if cut_off else wanted
    return max(1, count) * batch_size


def _round(
    test: LoadgenResult, scenario: str, warm: WarmUp, *, qps: float | None = None, probes: Sequence[Probe] = ()
) -> SpeedRound:
    """qps: the rate that server's search found. In the other scenarios the rate is measured."""
    log, samples = test.log, test.samples
    kept = {key: value for key, value in log.items() if isinstance(value, int | float | str | bool)}

    def milliseconds(key: str) -> float | None:
        return float(log[key]) / 1e6 if float(log.get(key, 0)) > 0 else None

    if scenario == "offline":
        qps = float(log["result_samples_per_second"])
    elif scenario == "single_stream":
        qps = float(log["result_qps_with_loadgen_overhead"])
    elif qps is None:
        qps = samples / test.seconds
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
        queries=samples,
        mean_tokens=test.tokens / samples if samples else None,
        duration_seconds=samples / qps if scenario in ("offline", "single_stream") else test.seconds,
        warmup_seconds=warm.seconds,
        warmup_ended=warm.ended,
        search=list(probes),
        conditions=test.conditions,
        loadgen=kept,
    )


def mean_over_rounds(values: Sequence[float | None]) -> Figure | None:
    """The mean over rounds with Student's t interval: rounds are the independent repetitions (Kalibera & Jones 2013). None
    where a round has no value."""
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


def summarise(
    rounds: Sequence[SpeedRound], looks: int | None = None, *, interleaved: bool = False
) -> dict[str, Figure | None]:
    """Every figure of a Speed, from its rounds: the median where they are interleaved or end at one of several looks, else their
    mean."""

    def over_rounds(values: Sequence[float | None]) -> Figure | None:
        return median_over_rounds(values, looks) if looks or interleaved else mean_over_rounds(values)

    names = ("qps", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "early_stopping_ms")
    figures = {name: over_rounds([getattr(speed_round, name) for speed_round in rounds]) for name in names}
    return figures | {"joules_a_query": over_rounds([_joules_a_query(speed_round) for speed_round in rounds])}


def _joules_a_query(speed_round: SpeedRound) -> float | None:
    joules = speed_round.conditions.energy_joules if speed_round.conditions else None
    return joules / speed_round.queries if joules is not None and speed_round.queries else None
