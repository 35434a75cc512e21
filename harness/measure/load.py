"""Load on a session by MLPerf LoadGen, in MLPerf Inference's meanings: single_stream and offline.

LoadGen issues the queries, takes the times and computes the percentiles. Samples are token arrays in memory, made before the
test; what is timed is said in TIMED. Durations and counts are short beside MLPerf's: figures are 'unverified by MLCommons'.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backends import Batch, Session
from harness.cells import Measure
from harness.measure.inference import make_batch
from harness.record import Figure, Finding, Speed, SpeedRound
from tasks import Features

TIMED = {
    "single_stream": "from LoadGen's issue of one sample to its completion: the session's run with host-device copies; tokenization and the making of arrays are outside.",
    "offline": "from LoadGen's issue of all samples to the last completion: sorting by length, forming padded batches, and the session's runs with host-device copies; tokenization is outside.",
}
WINDOW_SECONDS = 0.15
WINDOWS = 4
STEADY = 0.03
MAX_STRETCH = 10.0
"""A scenario is cut off at so many times its minimum duration, however few queries it has had by then."""
NOISE_BOUND = 0.25
"""Largest (highest - lowest) / mean over a figure's rounds."""


@dataclass(frozen=True)
class Samples:
    """Sequences that a scenario draws from. fixed: every one is padded to max_length."""

    features: Features
    fixed: bool
    max_length: int

    def batch(self, rows: Sequence[int]) -> dict[str, np.ndarray[Any, Any]]:
        chosen = np.asarray(rows)
        width = self.max_length if self.fixed else int(self.features.lengths[chosen].max())
        return make_batch(self.features, chosen, width)

    def __len__(self) -> int:
        return len(self.features)


def make_samples(
    features: Features, *, load: Literal["fixed", "real"] | str, max_length: int, count: int, seed: int
) -> Samples:
    """A seeded draw of `count` sequences. `fixed` offers each at max_length with its padding masked, as a fixed-shape
    deployment would; `real` at its own length."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(features))[:count])
    drawn = Features(
        features.input_ids[chosen],
        features.token_type_ids[chosen],
        features.lengths[chosen],
        features.example_index[chosen],
    )
    return Samples(drawn, load == "fixed", max_length)


def warm_up(once: Callable[[], int], max_seconds: float) -> tuple[float, str, float]:
    """Call `once` (which says how many samples it took) until four successive windows of at least 0.15 s have a coefficient of
    variation of at most 3% (Georges, Buytaert & Eeckhout 2007). Returns (seconds, why it ended, samples a second)."""
    rates: list[float] = []
    start = time.perf_counter()
    while True:
        began, samples = time.perf_counter(), 0
        while time.perf_counter() - began < WINDOW_SECONDS:
            samples += once()
        rates.append(samples / (time.perf_counter() - began))
        spent = time.perf_counter() - start
        last = rates[-WINDOWS:]
        if len(last) == WINDOWS and statistics.pstdev(last) <= STEADY * statistics.fmean(last):
            return spent, f"steady: {WINDOWS} windows within {STEADY:.0%}", statistics.fmean(last)
        if spent >= max_seconds:
            return spent, f"not steady within {max_seconds:g} s", statistics.fmean(last)


def run_scenario(
    session: Session,
    samples: Samples,
    *,
    scenario: Literal["single_stream", "offline"] | str,
    batch_size: int,
    min_duration: float,
    min_queries: int,
    max_warmup: float,
    seed: int,
) -> SpeedRound:
    """Warm up, then one LoadGen test. batch_size caps the batches that offline forms. Durations in seconds."""
    import mlperf_loadgen as lg

    single = scenario == "single_stream"
    made: list[Batch] = [samples.batch([row]) for row in range(len(samples))] if single else []
    turn = iter(_forever(len(samples), batch_size, seed))

    def once() -> int:
        rows = next(turn)
        if single:
            session.run(made[rows[0]])
            return 1
        session.run(samples.batch(rows))
        return len(rows)

    warm_seconds, warm_ended, rate = warm_up(once, max_warmup)
    served = 0
    trouble: list[Exception] = []

    def issue(queries: list[Any]) -> None:
        nonlocal served
        try:
            if single:
                for query in queries:
                    session.run(made[query.index])
                    served += 1
                    lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0)])
                return
            queries = sorted(queries, key=lambda query: -int(samples.features.lengths[query.index]))
            for at in range(0, len(queries), batch_size):
                part = queries[at : at + batch_size]
                session.run(samples.batch([query.index for query in part]))
                served += len(part)
                lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0) for query in part])
        except Exception as error:  # LoadGen cannot pass it on: kept, and raised below once the queries are answered
            trouble.append(error)
            lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0) for query in queries])

    settings = lg.TestSettings()
    settings.scenario = lg.TestScenario.SingleStream if single else lg.TestScenario.Offline
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = int(1000 * min_duration)
    settings.max_duration_ms = int(1000 * min_duration * MAX_STRETCH)
    settings.min_query_count = min_queries
    settings.sample_index_rng_seed = settings.qsl_rng_seed = settings.schedule_rng_seed = seed
    if single:
        settings.single_stream_expected_latency_ns = max(1, int(1e9 / rate))
    else:
        settings.offline_expected_qps = rate
    result = _loadgen(lg, settings, issue, len(samples))
    if trouble:
        raise trouble[0]
    return _round(result, single, served, warm_seconds, warm_ended)


def _forever(count: int, batch_size: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(count)
        for at in range(0, count, batch_size):
            yield [int(row) for row in order[at : at + batch_size]]


def _loadgen(lg: Any, settings: Any, issue: Callable[[list[Any]], None], count: int) -> dict[str, Any]:
    """Run one test; LoadGen's own result lines (keys of its detail log) by name."""
    with tempfile.TemporaryDirectory(prefix="quantboard-loadgen-") as folder:
        output = lg.LogOutputSettings()
        output.outdir = folder
        output.copy_summary_to_stdout = False
        log = lg.LogSettings()
        log.log_output = output
        log.enable_trace = False
        library = lg.ConstructQSL(count, count, lambda rows: None, lambda rows: None)
        system = lg.ConstructSUT(issue, lambda: None)
        try:
            lg.StartTestWithLogSettings(system, library, settings, log)
        finally:
            lg.DestroySUT(system)
            lg.DestroyQSL(library)
        found: dict[str, Any] = {}
        for line in (Path(folder) / "mlperf_log_detail.txt").read_text().splitlines():
            if line.startswith(":::MLLOG"):
                entry = json.loads(line.removeprefix(":::MLLOG").strip())
                if entry["key"].startswith(("result_", "effective_", "loadgen_version", "early_stopping")):
                    found[entry["key"]] = entry["value"]
    return found


def _round(result: Mapping[str, Any], single: bool, served: int, warm_seconds: float, warm_ended: str) -> SpeedRound:
    kept = {key: value for key, value in result.items() if isinstance(value, int | float | str | bool)}
    if not single:
        qps = float(result["result_samples_per_second"])
        return SpeedRound(
            qps=qps,
            queries=served,
            duration_seconds=served / qps,
            warmup_seconds=warm_seconds,
            warmup_ended=warm_ended,
            loadgen=kept,
        )

    def milliseconds(key: str) -> float:
        return float(result[key]) / 1e6

    qps = float(result["result_qps_with_loadgen_overhead"])
    return SpeedRound(
        qps=qps,
        mean_ms=milliseconds("result_mean_latency_ns"),
        p50_ms=milliseconds("result_50.00_percentile_latency_ns"),
        p90_ms=milliseconds("result_90.00_percentile_latency_ns"),
        p99_ms=milliseconds("result_99.00_percentile_latency_ns"),
        queries=served,
        duration_seconds=served / qps,
        warmup_seconds=warm_seconds,
        warmup_ended=warm_ended,
        loadgen=kept,
    )


def summarise(rounds: Sequence[SpeedRound]) -> dict[str, Figure | None]:
    """The mean over rounds with Student's t interval over them (rounds are the independent repetitions: Kalibera & Jones 2013)."""

    def over(values: Sequence[float | None]) -> Figure | None:
        known = [value for value in values if value is not None]
        if len(known) != len(rounds) or not known:
            return None
        mean = statistics.fmean(known)
        if len(known) < 2:
            return Figure(value=mean, method="no interval: a single round")
        from scipy.stats import t

        half = float(t.ppf(0.975, len(known) - 1)) * statistics.stdev(known) / len(known) ** 0.5
        return Figure(
            value=mean,
            low=max(0.0, mean - half),
            high=mean + half,
            method=f"mean and t interval over {len(known)} fresh-process rounds",
        )

    names = ("qps", "mean_ms", "p50_ms", "p90_ms", "p99_ms")
    return {name: over([getattr(one, name) for one in rounds]) for name in names}


def findings(speed: Sequence[Speed], placement: Mapping[str, Any], measure: Measure) -> list[Finding]:
    """Validity rules that fail: wrong_provider, too_few_queries, noisy."""
    found = []
    elsewhere = [
        row
        for row in placement["detail"]
        if is_product(row[1]) and placement["claimed"] not in row[2] and "Provider" in row[2]
    ]
    if elsewhere:
        found.append(
            Finding(
                rule="wrong_provider",
                what=f"matrix products ran elsewhere than on {placement['claimed']}",
                measured=f"{len(elsewhere)} nodes, the first {elsewhere[0][0]} on {elsewhere[0][2]}",
                bound="none",
                remedy="install the engine for this device (`quantboard doctor`), or run the cell on the CPU and call it so",
            )
        )
    for one in speed:
        name = f"{one.scenario}, {one.load} lengths, batch {one.batch_size}"
        fewest = min(entry.queries for entry in one.rounds)
        if fewest < measure.min_queries:
            found.append(
                Finding(
                    rule="too_few_queries",
                    what=f"{name}: too few queries in a round",
                    measured=str(fewest),
                    bound=f"at least {measure.min_queries}",
                    remedy="raise measure.min_duration",
                )
            )
        rates = [entry.qps for entry in one.rounds]
        spread = (max(rates) - min(rates)) / statistics.fmean(rates)
        if spread > NOISE_BOUND:
            found.append(
                Finding(
                    rule="noisy",
                    what=f"{name}: rounds differ",
                    measured=f"{spread:.0%} between slowest and fastest",
                    bound=f"{NOISE_BOUND:.0%}",
                    remedy="run it again with --fresh on a quiet machine, with a longer measure.min_duration",
                )
            )
    return found


def is_product(operator: str) -> bool:
    return any(word in operator for word in ("MatMul", "Gemm", "Attention"))
