"""One MLPerf LoadGen test on a session: what is issued, how samples that wait are answered, and what LoadGen reports."""

from __future__ import annotations

import gc
import json
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from harness.measure.conditions import Counters, conditions_between
from harness.measure.samples import Samples, batches
from harness.records.speed_schema import Conditions

SCENARIO_NAMES = {
    "single_stream": "SingleStream",
    "multi_stream": "MultiStream",
    "offline": "Offline",
    "server": "Server",
}
"""LoadGen's name of each scenario."""


MAX_STRETCH = 10.0
"""A test is cut off at this many times its minimum duration, even if it has had too few queries by then. Only offline always
runs at least one full batch."""


@dataclass(frozen=True)
class LoadgenResult:
    """One LoadGen test.

    log: the values of LoadGen's detail log by key. samples: how many were run. tokens: of those samples, without padding.
    seconds: from the first issue to the last completion. conditions: what else the machine did meanwhile.
    """

    log: Mapping[str, Any]
    samples: int
    tokens: int
    seconds: float
    conditions: Conditions


def loadgen_settings(scenario: str, profile: str, min_duration: float, min_queries: int, seed: int) -> Any:
    """LoadGen's settings of a test. Profile `mlperf` takes them from the mlperf.conf that is compiled into LoadGen, for BERT."""
    import mlperf_loadgen as lg

    settings = lg.TestSettings()
    if profile == "mlperf":
        if settings.FromConfig("", "bert", SCENARIO_NAMES[scenario], 0) != 0:
            raise RuntimeError("LoadGen did not accept its own mlperf.conf")
        settings.performance_sample_count_override = 0  # as many as are held in memory
    else:
        settings.min_duration_ms = round(1000 * min_duration)
        settings.max_duration_ms = round(1000 * min_duration * MAX_STRETCH)
        settings.sample_index_rng_seed = settings.qsl_rng_seed = settings.schedule_rng_seed = seed
        settings.min_query_count = min_queries
    settings.scenario = getattr(lg.TestScenario, SCENARIO_NAMES[scenario])
    settings.mode = lg.TestMode.PerformanceOnly
    return settings


def run_test(
    settings: Any,
    samples: Samples,
    size: int,
    call: Callable[[Sequence[int]], object],
    scenario: str,
    read: Callable[[], Counters],
    threads: int,
) -> LoadgenResult:
    """Run one test. `call` runs the samples of the given rows, at most `size` of them.

    LoadGen cannot pass on an exception of `call`, so it gets its answers first; then the exception is raised here. Python's
    cyclic garbage collector is off during the test, as under `timeit`.
    """
    import mlperf_loadgen as lg

    system = _System(call, samples.lengths, size)
    queue = SampleQueue(system.answer, size, system.first_call) if scenario == "server" else None

    def enqueue(ids: list[int], rows: list[int]) -> None:
        assert queue is not None
        system.began = system.began or time.perf_counter()
        queue.add(ids, rows)

    with tempfile.TemporaryDirectory(prefix="quantboard-loadgen-") as folder:
        library = lg.ConstructQSL(len(samples), len(samples), lambda rows: None, lambda rows: None)
        handle = lg.ConstructFastSUT(enqueue if queue else system.issue, lambda: None)
        log_settings = _log_settings(folder)
        gc.collect()
        gc.disable()
        before = read()
        try:
            # The last argument is the audit file: LoadGen must not read one from the current folder.
            lg.StartTestWithLogSettings(handle, library, settings, log_settings, "")
        finally:
            after = read()
            gc.enable()
            if queue:
                queue.close()
            lg.DestroyFastSUT(handle)
            lg.DestroyQSL(library)
        if system.error:
            raise system.error
        log = _read_log(Path(folder) / "mlperf_log_detail.txt")
    return LoadgenResult(
        log=log,
        samples=len(system.rows),
        tokens=sum(samples.lengths[row] for row in system.rows),
        seconds=system.ended - system.began,
        conditions=conditions_between(before, after, system.began, system.ended, threads),
    )


class _System:
    """What LoadGen calls its system under test: answers queries, and keeps which rows were run, when, and the first error."""

    def __init__(self, call: Callable[[Sequence[int]], object], lengths: Sequence[int], size: int) -> None:
        import mlperf_loadgen as lg

        self._call, self._lengths, self._size = call, lengths, size
        self._complete = lg.QuerySamplesComplete
        self._responses = [lg.QuerySampleResponse(0, 0, 0) for _ in range(size)]  # reused: making them takes time
        self.rows: list[int] = []
        self.began = self.ended = 0.0
        self.error: BaseException | None = None

    def issue(self, ids: list[int], rows: list[int]) -> None:
        """LoadGen's query: an id for the sample of each row. Offline's one query is cut into batches, sorted by length."""
        self.began = self.began or time.perf_counter()
        if len(rows) <= self._size:  # every query of single_stream and multi_stream
            self.answer(ids, rows)
        else:
            for part in batches(zip(ids, rows, strict=True), self._size, lambda pair: self._lengths[pair[1]]):
                self.answer([sample_id for sample_id, _ in part], [row for _, row in part])

    def answer(self, ids: Sequence[int], rows: Sequence[int]) -> None:
        """Run these rows as one batch. After the call the processor's caches are cold, so all that can be prepared is."""
        clock, complete, responses = time.perf_counter, self._complete, self._responses
        for response, sample_id in zip(responses, ids, strict=False):
            response.id = sample_id
        if len(rows) < self._size:
            responses = responses[: len(rows)]
        if self.error is None:
            try:
                self._call(rows)
            except BaseException as error:
                self.error = error
        complete(responses)
        self.ended = clock()
        self.rows.extend(rows)

    def first_call(self) -> None:
        """A full batch, which is no query."""
        try:
            self._call([row % len(self._lengths) for row in range(self._size)])
        except BaseException as error:
            self.error = error


def _log_settings(folder: str) -> Any:
    import mlperf_loadgen as lg

    output = lg.LogOutputSettings()
    output.outdir = folder
    output.copy_summary_to_stdout = False
    settings = lg.LogSettings()
    settings.log_output = output
    settings.enable_trace = False
    return settings


def _read_log(path: Path) -> dict[str, Any]:
    """The results and effective settings in LoadGen's detail log."""
    values: dict[str, Any] = {}
    for line in path.read_text().splitlines():
        if line.startswith(":::MLLOG"):
            item = json.loads(line.removeprefix(":::MLLOG").strip())
            if item["key"].startswith(("result_", "effective_", "loadgen_version", "early_stopping")):
                values[item["key"]] = item["value"]
    return values


class SampleQueue:
    """Samples that wait while the session is busy. A thread answers those that wait together, oldest first, at most `size`.

    first_call: called in that thread before any sample, and awaited by the constructor. Libraries keep handles and thread
    pools for each thread that calls them, and create them at its first call. It must not raise.
    """

    def __init__(
        self, answer: Callable[[Sequence[int], Sequence[int]], None], size: int, first_call: Callable[[], None]
    ) -> None:
        self._answer, self._size, self._first_call = answer, size, first_call
        self._queue: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="server", daemon=True)
        self._thread.start()
        self._ready.wait()

    def add(self, ids: Sequence[int], rows: Sequence[int]) -> None:
        for pair in zip(ids, rows, strict=True):
            self._queue.put(pair)

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            self._first_call()
        finally:
            self._ready.set()
        while (pair := self._queue.get()) is not None:
            batch = [pair]
            try:
                while len(batch) < self._size and (pair := self._queue.get_nowait()) is not None:
                    batch.append(pair)
            except Empty:
                pass
            self._answer([sample_id for sample_id, _ in batch], [row for _, row in batch])
            if pair is None:
                return
