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

NAMES = {
    "single_stream": "SingleStream",
    "multi_stream": "MultiStream",
    "offline": "Offline",
    "server": "Server",
}
"""LoadGen's."""


MAX_STRETCH = 10.0
"""A scenario is cut off at so many times its minimum duration, however few queries it has had by then; only one full batch
of offline is always run."""


@dataclass(frozen=True)
class Outcome:
    """One LoadGen test: its own result lines (of its detail log) by name, the samples that were run and their tokens, padding
    not counted, seconds from the first issue to the last completion, and what went on in the machine."""

    result: Mapping[str, Any]
    served: int
    tokens: int
    seconds: float
    conditions: Conditions


def loadgen_settings(scenario: str, profile: str, min_duration: float, min_queries: int, seed: int) -> Any:
    """LoadGen's settings of a test. `mlperf`: of the mlperf.conf that is compiled into it, for BERT."""
    import mlperf_loadgen as lg

    found = lg.TestSettings()
    if profile == "mlperf":
        if found.FromConfig("", "bert", NAMES[scenario], 0) != 0:
            raise RuntimeError("LoadGen did not take its own mlperf.conf")
        found.performance_sample_count_override = 0  # as many as are held in memory
    else:
        found.min_duration_ms = round(1000 * min_duration)
        found.max_duration_ms = round(1000 * min_duration * MAX_STRETCH)
        found.sample_index_rng_seed = found.qsl_rng_seed = found.schedule_rng_seed = seed
        found.min_query_count = min_queries
    found.scenario = getattr(lg.TestScenario, NAMES[scenario])
    found.mode = lg.TestMode.PerformanceOnly
    return found


def run_test(
    settings: Any,
    samples: Samples,
    size: int,
    call: Callable[[Sequence[int]], object],
    scenario: str,
    read: Callable[[], Counters],
    threads: int,
) -> Outcome:
    """Run one test. `call` runs the samples of these rows, at most `size`. Raises what `call` does, once LoadGen, which cannot
    pass it on, has its answers. The cyclic garbage collector rests meanwhile, as under `timeit`."""
    import mlperf_loadgen as lg

    lengths = samples.lengths
    served: list[int] = []
    first = last = 0.0
    trouble: list[BaseException] = []
    clock, complete = time.perf_counter, lg.QuerySamplesComplete
    responses = [lg.QuerySampleResponse(0, 0, 0) for _ in range(size)]  # used again: to make them takes time

    def answer(numbers: Sequence[int], rows: Sequence[int]) -> None:
        """numbers: LoadGen's, of the samples of these rows. What can be done beforehand is: after the call caches are cold."""
        nonlocal last
        for response, number in zip(responses, numbers, strict=False):
            response.id = number
        done = responses if len(rows) == size else responses[: len(rows)]
        if not trouble:
            try:
                call(rows)
            except BaseException as error:
                trouble.append(error)
        complete(done)
        last = clock()
        served.extend(rows)

    def issue(numbers: list[int], rows: list[int]) -> None:
        nonlocal first
        first = first or clock()
        if len(rows) <= size:  # all of single_stream and multi_stream
            answer(numbers, rows)
        else:
            for part in batches(zip(numbers, rows, strict=True), size, lambda one: lengths[one[1]]):
                answer([number for number, _ in part], [row for _, row in part])

    def begin() -> None:
        try:
            call([row % len(lengths) for row in range(size)])
        except BaseException as error:
            trouble.append(error)

    waiting = Waiting(answer, size, begin) if scenario == "server" else None

    def arrive(numbers: list[int], rows: list[int]) -> None:
        nonlocal first
        first = first or clock()
        assert waiting is not None
        waiting.add(numbers, rows)

    with tempfile.TemporaryDirectory(prefix="quantboard-loadgen-") as folder:
        output = lg.LogOutputSettings()
        output.outdir = folder
        output.copy_summary_to_stdout = False
        log = lg.LogSettings()
        log.log_output = output
        log.enable_trace = False
        library = lg.ConstructQSL(len(samples), len(samples), lambda rows: None, lambda rows: None)
        system = lg.ConstructFastSUT(arrive if waiting else issue, lambda: None)
        gc.collect()
        gc.disable()
        before = read()
        try:
            lg.StartTestWithLogSettings(system, library, settings, log, "")  # no audit file of the current folder
        finally:
            after = read()
            gc.enable()
            if waiting:
                waiting.close()
            lg.DestroyFastSUT(system)
            lg.DestroyQSL(library)
        if trouble:
            raise trouble[0]
        found = _result_lines(Path(folder) / "mlperf_log_detail.txt")
    tokens = sum(lengths[row] for row in served)
    return Outcome(found, len(served), tokens, last - first, conditions_between(before, after, first, last, threads))


def _result_lines(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in path.read_text().splitlines():
        if line.startswith(":::MLLOG"):
            entry = json.loads(line.removeprefix(":::MLLOG").strip())
            if entry["key"].startswith(("result_", "effective_", "loadgen_version", "early_stopping")):
                found[entry["key"]] = entry["value"]
    return found


class Waiting:
    """Samples that wait while the session is busy; a thread answers as many as there are, `size` at most, oldest first.

    begin: called in that thread, and waited for here: libraries keep handles and teams of threads for each thread that calls
    them, and make them at its first call. It must not raise."""

    def __init__(
        self, answer: Callable[[Sequence[int], Sequence[int]], None], size: int, begin: Callable[[], None]
    ) -> None:
        self._answer, self._size, self._begin = answer, size, begin
        self._queue: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="server", daemon=True)
        self._thread.start()
        self._ready.wait()

    def add(self, numbers: Sequence[int], rows: Sequence[int]) -> None:
        for one in zip(numbers, rows, strict=True):
            self._queue.put(one)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            self._begin()
        finally:
            self._ready.set()
        while (one := self._queue.get()) is not None:
            part = [one]
            try:
                while len(part) < self._size and (one := self._queue.get_nowait()) is not None:
                    part.append(one)
            except Empty:
                pass
            self._answer([number for number, _ in part], [row for _, row in part])
            if one is None:
                return
