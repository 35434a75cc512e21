"""The runner's side of interleaved measurement: one fresh process a cell, all alive at once, of which one runs at a time."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.machine.processes import ProcessDied, ServerProcess
from harness.measure.conditions import Counters, conditions_between
from harness.measure.turns import Schedule, processors, schedule, speed_round, work_seconds
from harness.measure.watch import Watch
from harness.plan.spec import Cell
from harness.records.speed_schema import SpeedRound
from harness.run.context import longer, memory_limit, under_limit
from harness.run.job import Job

START_SECONDS, CALL_SECONDS = 1800.0, 600.0
"""How long a process may take to start, and to answer, before it counts as hung, where the suite has no `speed_timeout`."""


MAX_BUSY_ANSWERS = 3
"""A process is left out after this many answers whose threads kept running."""


CONDITIONS = {
    "affinity",
    "other_cpu_percent",
    "steal_percent",
    "worst_other_percent",
    "worst_steal_percent",
    "quota_throttled_percent",
}
"""Of all processes together; they are in every cell's `TurnRound`."""


@dataclass
class Interleaved:
    """What an interleaved round gave, by cell. loads: of each load the fields of a record's `TurnRound` and what identifies its
    `Turns`. processes: as a LoadGen round's process returns them, with tests of scenario `interleaved`. logs: the last lines of
    each process that ended or hung."""

    loads: dict[str, list[dict[str, Any]]]
    processes: dict[str, dict[str, Any]]
    logs: dict[str, tuple[str, ...]] = field(default_factory=dict)


def turn_groups(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that can be interleaved: on the same device, with as many threads, and sequences cut at the same length."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.device, cell.measure.threads, cell.shape.max_length), []).append(cell)
    return list(groups.values())


def run_interleaved(
    jobs: Mapping[str, Job], together: str, lost: Callable[[str, str], None], *, module: str = "harness.run.cell"
) -> Interleaved:
    """One interleaved round of the jobs, which have names: how long each took for the work that all of them did.

    together: names the round in records. lost: called with the name of a process that ends badly, or whose threads do not
    become idle after an answer, and the reason; the others go on without it. A process may take as long in all as its cell's
    `speed_timeout` says, while it has its turn, and as much memory as `memory_gib` says. All processes are alive at the same time,
    so all models must fit into memory together. Raises OSError where no process can be started.
    """
    results = Interleaved({name: [] for name in jobs}, {})
    first = next(iter(jobs.values()))
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quantboard-")))
        processes: dict[str, ServerProcess] = {}
        for number, (name, job) in enumerate(jobs.items()):
            path, log = folder / f"{number}.json", folder / f"{number}.log"
            replace(job, mode="turns", out=folder / f"{number}.out", started=time.time()).write(path)
            processes[name] = stack.enter_context(
                ServerProcess(module, path, log, threads=job.threads, memory=memory_limit(job.cell))
            )
        workers = Workers(processes, lost, {name: job.cell for name, job in jobs.items()}, results.logs)
        workers.ask_all({"cpu": True}, START_SECONDS)  # answered once the session is there
        loads = {name: job.cell.measure.turns(job.cell.batch_sizes) for name, job in jobs.items()}
        tests: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
        with Watch(first.cell.device) as watch:
            for load, size in dict.fromkeys(pair for pairs in loads.values() for pair in pairs):
                names = [name for name, pairs in loads.items() if (load, size) in pairs]
                shared = {"load": load, "batch_size": size, "sequence_length": first.cell.shape.max_length}
                measured = _run_load(workers, names, load, size, first, f"{together} {load} {size}")
                for name, (times, round_) in measured.items():
                    results.loads[name].append({**shared, "together": together, **times})
                    tests[name].append({**shared, "scenario": "interleaved", "round": round_.model_dump()})
        for name, facts in workers.ask_all({"facts": True}).items():
            watch.add_conditions(tests[name], others=len(processes) - 1)
            results.processes[name] = facts | {"started": started, "rounds": tests[name]}
    return results


class Workers:
    """The processes that still answer; each runs a `harness.measure.turns.Worker`."""

    def __init__(
        self,
        processes: dict[str, ServerProcess],
        lost: Callable[[str, str], None],
        cells: Mapping[str, Cell],
        logs: dict[str, tuple[str, ...]],
    ) -> None:
        self._processes, self._lost, self._cells, self._logs = processes, lost, cells, logs
        limits = {name: cell.measure.speed_timeout for name, cell in cells.items()}
        self._seconds_left = {name: seconds for name, seconds in limits.items() if seconds}
        self._busy_answers: dict[str, int] = {}
        self.cpu: dict[str, float] = {}
        """Seconds of processor time as each process last reported it; processes that have ended keep theirs."""

    def ask_all(self, question: Mapping[str, Any], timeout: float = CALL_SECONDS) -> dict[str, Any]:
        """The answers of all processes, which work on the question at the same time."""
        asked = [name for name in list(self._processes) if self._try(name, lambda process: process.send(question))]
        deadline = time.monotonic() + timeout  # of all: one that has answered meanwhile is not late
        answers = {name: self._receive(name, deadline - time.monotonic()) for name in asked}
        return {name: self._noted(name, answer) for name, answer in answers.items() if answer is not None}

    def run(self, name: str, batch: int, cold: int | None) -> Any:
        """One process's answer to running a batch; None where it has ended or is left out."""
        sent = self._try(name, lambda process: process.send({"run": batch, "cold": cold}))
        answer = self._receive(name, CALL_SECONDS) if sent else None
        if answer is None:
            return None
        self._busy_answers[name] = self._busy_answers.get(name, 0) + (not answer["idle"])
        if self._busy_answers[name] < MAX_BUSY_ANSWERS:
            return self._noted(name, answer)
        self._drop(name, "its threads keep running after an answer; check OMP_WAIT_POLICY and KMP_BLOCKTIME")
        return None

    def _noted(self, name: str, answer: Any) -> Any:
        self.cpu[name] = answer.get("cpu", self.cpu.get(name, 0.0))
        return answer

    def _receive(self, name: str, timeout: float) -> Any:
        """An answer within `timeout`, or within the rest of the time that the suite allows."""
        began, allowed = time.monotonic(), max(0.0, self._seconds_left.get(name, timeout))
        answer = self._try(name, lambda process: process.receive(allowed))
        if name in self._seconds_left:
            self._seconds_left[name] = allowed - (time.monotonic() - began)
        return answer

    def _drop(self, name: str, why: str) -> None:
        if process := self._processes.pop(name, None):
            process.stop()
            self._lost(name, why)

    def _try(self, name: str, do: Callable[[ServerProcess], Any]) -> Any:
        process = self._processes.get(name)
        if process is None:
            return None
        try:
            return do(process)
        except ProcessDied as death:
            self._logs[name] = death.log
            self._drop(name, self._how(name, death))
            return None

    def _how(self, name: str, death: ProcessDied) -> str:
        if not death.timed_out:
            return under_limit(str(death), self._cells[name])
        limit = self._cells[name].measure.speed_timeout
        took = f"took longer than {limit:g} s and was stopped" if limit else str(death)
        return f"{took}; {longer('speed_timeout')}"


def _run_load(
    workers: Workers, names: Sequence[str], load: str, size: int, job: Job, seed: str
) -> dict[str, tuple[dict[str, Any], SpeedRound]]:
    """Times of the processes that finished all passes under one load, and their figures; empty where too few can start."""
    work = workers.ask_all({"load": load, "batch_size": size}, START_SECONDS)
    work = {name: work[name] for name in names if name in work}
    available = min((len(answer["samples"]) for answer in work.values()), default=0)
    seconds: dict[str, float] = {}
    idle_seconds = 0.0
    for name in work:
        if answer := workers.run(name, available // 2, available // 2):
            seconds[name] = answer["seconds"]
            idle_seconds = max(idle_seconds, answer["idle_seconds"])
    if len(seconds) < (1 if job.cell.measure.is_interleaved else 2):
        return {}
    budget = job.cell.measure.min_duration
    plan = schedule(list(seconds.values()), available, budget, idle_seconds, queries=size == 1)
    read = Counters.reader("cpu", cpus=processors(job.threads, job.cell.device))
    workers.ask_all({"cpu": True})
    cpu, before = sum(workers.cpu.values()), read()
    times, warmup = _run_passes(workers, list(seconds), plan, seed)
    after = read()
    workers.ask_all({"cpu": True})
    after = replace(after, own=after.own + sum(workers.cpu.values()) - cpu)
    conditions = conditions_between(before, after, before.at, after.at, job.threads)
    # Energy and waiting are counted for the runner, not for the cells that take turns.
    conditions = conditions.model_copy(
        update={"waited_percent": None, "energy_joules": None, "energy_source": "not measured: cells take turns"}
    )
    results = {}
    for name, calls in times.items():
        if not calls or any(len(of_batch) != plan.passes for of_batch in calls.values()):
            continue
        counts = {unit: sum(work[name][unit][batch] for batch in plan.batches) for unit in ("samples", "tokens")}
        turn = {
            "seconds": work_seconds(calls),
            "work": work[name]["work"],
            **counts,
            "batches": len(plan.batches),
            "passes": plan.passes,
            **conditions.model_dump(include=CONDITIONS),
        }
        results[name] = turn, speed_round(calls, counts["samples"], counts["tokens"], warmup.get(name, 0.0), conditions)
    return results


def _run_passes(
    workers: Workers, names: list[str], plan: Schedule, seed: str
) -> tuple[dict[str, dict[int, list[float]]], dict[str, float]]:
    """Seconds of every timed call, by process and batch, and of the first pass, by process: it warms up and is not timed. The
    order of the processes is drawn anew for every batch, so that none always runs on the caches that the same other one left
    behind."""
    times: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    warmup = dict.fromkeys(names, 0.0)
    order = random.Random(seed)
    for number in range(-1, plan.passes):
        for position, batch in enumerate(plan.batches):
            order.shuffle(names)
            cold = plan.batches[position - 1] if plan.cold else None
            for name in names:
                answer = workers.run(name, batch, cold)
                if answer is None:
                    continue
                if number < 0:
                    warmup[name] += answer["seconds"]
                else:
                    times[name].setdefault(batch, []).append(answer["seconds"])
    return times, warmup
