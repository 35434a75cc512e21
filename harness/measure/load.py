"""Load on a session by MLPerf LoadGen, in MLPerf Inference's meanings: single_stream and offline.

LoadGen issues the queries, takes the times and computes the percentiles. Samples are token arrays in memory, made before the
test; what is timed is said in TIMED. Durations and counts are short beside MLPerf's: figures are 'unverified by MLCommons'.
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from backends import Batch, Session
from harness.cells import Measure
from harness.measure.inference import make_batch
from harness.record import Figure, Finding, Speed, SpeedRound
from tasks import Features

Item = TypeVar("Item")

TIMED = {
    "single_stream": "from LoadGen's issue of one sample to its completion: the session's run with host-device copies; tokenization and the making of arrays are outside.",
    "offline": "from LoadGen's issue of all samples to the last completion: sorting by length, copying rows of int64 arrays into batches padded to their longest, and the session's runs with host-device copies; tokenization is outside.",
}
WINDOW_SECONDS = 0.15
WINDOWS = 4
STEADY = 0.03
LARGEST_CYCLE = 64
SLACK = 1.1
"""LoadGen's own factor: a query of offline is this much longer than the shortest duration at the expected rate."""
MAX_STRETCH = 10.0
"""A scenario is cut off at so many times its minimum duration, however few queries it has had by then; only one full batch
of offline is always run."""
TRIES = 3
"""Offline is offered a larger query, as LoadGen advises, when it was done before min_duration; at most so many in all."""
NOT_STEADY = "not steady"
NOISE_BOUND = 0.25
"""Largest (highest - lowest) / mean over a figure's rounds."""


@dataclass(frozen=True)
class Samples:
    """What a scenario draws from, in memory before any clock starts.

    arrays: a session's three inputs, each (count, width) int64. lengths: (count,) true lengths, by which offline sorts.
    widths: (count,) what each is padded to when it stands alone: its own length, or max_length under `fixed` load.
    """

    arrays: Mapping[str, np.ndarray[Any, Any]]
    lengths: Sequence[int]
    widths: Sequence[int]

    def batch(self, rows: Sequence[int]) -> dict[str, np.ndarray[Any, Any]]:
        width = max(self.widths[row] for row in rows)
        return {name: np.ascontiguousarray(values[rows, :width]) for name, values in self.arrays.items()}

    def __len__(self) -> int:
        return len(self.lengths)


def make_samples(
    features: Features, *, load: Literal["fixed", "real"] | str, max_length: int, count: int, seed: int
) -> Samples:
    """A seeded draw of at most `count` sequences. `fixed` offers each at max_length with its padding masked, as a fixed-shape
    deployment would; `real` at its own length."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(features))[:count])
    lengths = [int(length) for length in features.lengths[chosen]]
    widths = [max_length] * len(lengths) if load == "fixed" else lengths
    return Samples(make_batch(features, chosen, max(widths)), lengths, widths)


def warm_up(once: Callable[[], int], max_seconds: float) -> tuple[float, str, float]:
    """Call `once`, which does the same work every time and says how many samples that was, until the rates of the last four
    windows of at least 0.15 s have a coefficient of variation of at most 3% (the steady state of Georges, Buytaert & Eeckhout
    2007, with short windows in the place of whole iterations). Returns (seconds, why it ended, samples a second)."""
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
            why = NOT_STEADY if len(rates) >= 2 * WINDOWS else f"cut off after {len(rates)} windows, too few to judge,"
            return spent, f"{why} within {max_seconds:g} s", statistics.fmean(last)


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
    """Warm up, then one LoadGen test, which draws samples with replacement. Durations in seconds.

    batch_size is what offline forms of its one query, whose size is a multiple of it, sorted by length. The test is long
    enough for min_duration and min_queries samples, and cut off at ten times min_duration: a slow engine has too few
    queries then, which `findings` tells. Raises whatever the session does.
    """
    import mlperf_loadgen as lg

    single = scenario == "single_stream"
    size = 1 if single else batch_size
    parts = _parts(range(len(samples)), size, lambda row: samples.lengths[row])
    warm_seconds, warm_ended, rate = _warm_up_on(session, [samples.batch(part) for part in parts], max_warmup)
    ready = [samples.batch([row]) for row in range(len(samples))] if single else []

    def call(rows: Sequence[int]) -> None:
        session.run(ready[rows[0]] if single else samples.batch(rows))

    settings = lg.TestSettings()
    settings.scenario = lg.TestScenario.SingleStream if single else lg.TestScenario.Offline
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = round(1000 * min_duration)
    settings.max_duration_ms = round(1000 * min_duration * MAX_STRETCH)
    settings.sample_index_rng_seed = settings.qsl_rng_seed = settings.schedule_rng_seed = seed
    settings.min_query_count = min_queries
    settings.single_stream_expected_latency_ns = max(1, int(0.25e9 / rate))  # so short that queries never run out
    for _ in range(1 if single else TRIES):
        if not single:
            settings.offline_expected_qps = rate
            settings.min_query_count = _offline_samples(rate, size, min_duration, min_queries)
        result, served = _loadgen(settings, samples, size, call)
        if result.get("result_min_duration_met", True):
            break
        rate = float(result.get("result_samples_per_second", rate))
    return _round(result, single, served, warm_seconds, warm_ended)


def _offline_samples(rate: float, batch_size: int, min_duration: float, min_queries: int) -> int:
    """Whole batches: at least one, no more than the cut-off allows, else what duration and count ask for."""
    wanted = max(min_queries, SLACK * rate * min_duration)
    batches = min(math.ceil(wanted / batch_size), int(rate * min_duration * MAX_STRETCH / batch_size))
    return max(1, batches) * batch_size


def _parts(items: Iterable[Item], size: int, length: Callable[[Item], int]) -> list[list[Item]]:
    """Longest first, `size` together."""
    ordered = sorted(items, key=length, reverse=True)
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]


def _warm_up_on(session: Session, work: Sequence[Batch], max_seconds: float) -> tuple[float, str, float]:
    """`warm_up` on a cycle of calls, the same each time, whose lengths are spread as those of all the work (sorted by length)
    are; as many as fit into a window."""
    start = time.perf_counter()
    session.run(work[len(work) // 2])
    began = time.perf_counter()
    session.run(work[len(work) // 2])
    size = max(1, min(int(WINDOW_SECONDS / (time.perf_counter() - began)), LARGEST_CYCLE, len(work)))
    cycle = [work[(2 * number + 1) * len(work) // (2 * size)] for number in range(size)]
    count = sum(len(batch["input_ids"]) for batch in cycle)

    def once() -> int:
        for batch in cycle:
            session.run(batch)
        return count

    _, why, rate = warm_up(once, max_seconds)
    return time.perf_counter() - start, why, rate


def _loadgen(
    settings: Any, samples: Samples, size: int, call: Callable[[Sequence[int]], None]
) -> tuple[dict[str, Any], int]:
    """Run one test. `call` runs the samples of these rows, at most `size`. Returns LoadGen's own result lines (of its detail
    log) by name, and how many samples were run. Raises what `call` does, once LoadGen, which cannot pass it on, has its
    answers. The cyclic garbage collector rests meanwhile, as under `timeit`."""
    import mlperf_loadgen as lg

    lengths = samples.lengths
    served = 0
    trouble: list[BaseException] = []

    def issue(queries: list[Any]) -> None:
        nonlocal served
        alone = len(queries) == 1
        for part in [queries] if alone else _parts(queries, size, lambda query: lengths[query.index]):
            try:
                if not trouble:
                    call([query.index for query in part])
                    served += len(part)
            except BaseException as error:
                trouble.append(error)
            lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0) for query in part])

    with tempfile.TemporaryDirectory(prefix="quantboard-loadgen-") as folder:
        output = lg.LogOutputSettings()
        output.outdir = folder
        output.copy_summary_to_stdout = False
        log = lg.LogSettings()
        log.log_output = output
        log.enable_trace = False
        library = lg.ConstructQSL(len(samples), len(samples), lambda rows: None, lambda rows: None)
        system = lg.ConstructSUT(issue, lambda: None)
        gc.collect()
        gc.disable()
        try:
            lg.StartTestWithLogSettings(system, library, settings, log, "")  # no audit file of the current folder
        finally:
            gc.enable()
            lg.DestroySUT(system)
            lg.DestroyQSL(library)
        if trouble:
            raise trouble[0]
        found: dict[str, Any] = {}
        for line in (Path(folder) / "mlperf_log_detail.txt").read_text().splitlines():
            if line.startswith(":::MLLOG"):
                entry = json.loads(line.removeprefix(":::MLLOG").strip())
                if entry["key"].startswith(("result_", "effective_", "loadgen_version", "early_stopping")):
                    found[entry["key"]] = entry["value"]
    return found, served


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
    """Validity rules that fail: wrong_provider, too_few_queries, too_short, not_steady, noisy."""
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
        short = [entry for entry in one.rounds if entry.loadgen.get("result_min_duration_met") is False]
        if short:
            found.append(
                Finding(
                    rule="too_short",
                    what=f"{name}: done before the shortest duration",
                    measured=f"{min(entry.duration_seconds for entry in short):.2f} s in {len(short)} rounds",
                    bound=f"at least {measure.min_duration:g} s",
                    remedy="run it again with --fresh on a quiet machine, or raise measure.max_warmup",
                )
            )
        unsteady = [entry for entry in one.rounds if entry.warmup_ended.startswith(NOT_STEADY)]
        if 2 * len(unsteady) > len(one.rounds):
            found.append(
                Finding(
                    rule="not_steady",
                    what=f"{name}: warm-up did not become steady",
                    measured=f"{len(unsteady)} of {len(one.rounds)} rounds, the first {unsteady[0].warmup_ended}",
                    bound=f"{WINDOWS} windows within {STEADY:.0%} in at least half of the rounds",
                    remedy="run it again with --fresh on a quiet machine, or raise measure.max_warmup",
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
