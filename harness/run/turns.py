"""Hands out turns: fresh processes of several cells at once, of which one runs at a time."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.machine.processes import ProcessDied, ServerProcess
from harness.measure.conditions import Counters, conditions_between
from harness.measure.turns import Schedule, of_work, processors, schedule
from harness.plan.spec import Cell
from harness.run.job import Job

START_SECONDS, CALL_SECONDS = 1800.0, 600.0
"""After which a process counts as hung."""


RESTLESS = 3
"""Answers after which a process's threads went on working, and it is left out."""


CONDITIONS = {"affinity", "other_cpu_percent", "steal_percent", "quota_throttled_percent"}
"""Of all players together, in each one's `TurnRound`."""


Found = dict[str, list[dict[str, Any]]]


def turn_groups(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that take turns with one another: of one device, as many threads, and sequences cut at the same length."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.device, cell.measure.threads, cell.shape.max_length), []).append(cell)
    return list(groups.values())


def take_turns(
    jobs: Mapping[str, Job], together: str, lost: Callable[[str, str], None], *, module: str = "harness.run.cell"
) -> Found:
    """One round: of each name what it took for the work that all did, an entry a load, as a record's `TurnRound` with what
    identifies its `Turns`.

    All processes are alive at the same time, so all models must fit into memory together. `lost` is told the name of one that
    ends badly, or whose threads do not rest when it has answered, and why: the others go on without it. Raises OSError where
    no process can be started.
    """
    found: Found = {name: [] for name in jobs}
    first = next(iter(jobs.values()))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quantboard-")))
        served: dict[str, ServerProcess] = {}
        for place, (name, job) in enumerate(jobs.items()):
            path = folder / f"{place}.json"
            replace(job, mode="turns", out=folder / f"{place}.out", started=time.time()).write(path)
            log = folder / f"{place}.log"
            served[name] = stack.enter_context(ServerProcess(module, path, log, threads=job.threads))
        players = Players(served, lost)
        players.ask_all({"cpu": True}, START_SECONDS)  # answered when the session is there
        loads = {name: job.cell.measure.turns(job.cell.batch_sizes) for name, job in jobs.items()}
        for load, size in dict.fromkeys(each for some in loads.values() for each in some):
            names = [name for name, some in loads.items() if (load, size) in some]
            shared = {"load": load, "batch_size": size, "sequence_length": first.cell.shape.max_length}
            measured = _one_load(players, names, load, size, first, f"{together} {load} {size}")
            for name, entry in measured.items():
                found[name].append({**shared, "together": together, **entry})
    return found


class Players:
    """The processes that are still there."""

    def __init__(self, served: dict[str, ServerProcess], lost: Callable[[str, str], None]) -> None:
        self._served, self._lost = served, lost
        self._restless: dict[str, int] = {}
        self.cpu: dict[str, float] = {}
        """Seconds of processor time, as each last said: also of those that are gone."""

    def ask_all(self, question: Mapping[str, Any], timeout: float = CALL_SECONDS) -> dict[str, Any]:
        """At the same time."""
        asked = [name for name in list(self._served) if self._try(name, lambda one: one.send(question))]
        answers = {name: self._try(name, lambda one: one.receive(timeout)) for name in asked}
        return {name: self._noted(name, answer) for name, answer in answers.items() if answer is not None}

    def run(self, name: str, batch: int, cold: int | None) -> Any:
        """Its answer; None where the process is gone, or is left out as its threads will not rest."""
        sent = self._try(name, lambda one: one.send({"run": batch, "cold": cold}))
        answer = self._try(name, lambda one: one.receive(CALL_SECONDS)) if sent else None
        if answer is None:
            return None
        self._restless[name] = self._restless.get(name, 0) + (not answer["rested"])
        if self._restless[name] < RESTLESS:
            return self._noted(name, answer)
        self._drop(
            name, "its threads go on working when it has answered: do OMP_WAIT_POLICY or KMP_BLOCKTIME ask for it?"
        )
        return None

    def _noted(self, name: str, answer: Any) -> Any:
        self.cpu[name] = answer.get("cpu", self.cpu.get(name, 0.0))
        return answer

    def _drop(self, name: str, why: str) -> None:
        if one := self._served.pop(name, None):
            one.stop()
            self._lost(name, why)

    def _try(self, name: str, do: Callable[[ServerProcess], Any]) -> Any:
        one = self._served.get(name)
        if one is None:
            return None
        try:
            return do(one)
        except ProcessDied as gone:
            self._drop(name, str(gone))
            return None


def _one_load(
    players: Players, names: Sequence[str], load: str, size: int, job: Job, seed: str
) -> dict[str, dict[str, Any]]:
    work = players.ask_all({"load": load, "batch_size": size}, START_SECONDS)
    work = {name: work[name] for name in names if name in work}
    available = min((len(one["samples"]) for one in work.values()), default=0)
    known: dict[str, float] = {}
    resting = 0.0
    for name in work:
        if answer := players.run(name, available // 2, available // 2):
            known[name] = answer["seconds"]
            resting = max(resting, answer["resting"])
    if len(known) < 2:
        return {}
    plan = schedule(list(known.values()), available, job.cell.measure.min_duration, resting)
    read = Counters.reader("cpu", cpus=processors(job.threads, job.cell.device))
    players.ask_all({"cpu": True})
    cpu, before = sum(players.cpu.values()), read()
    times = _passes(players, list(known), plan, seed)
    after = read()
    players.ask_all({"cpu": True})
    after = replace(after, own=after.own + sum(players.cpu.values()) - cpu)
    conditions = conditions_between(before, after, before.at, after.at, job.threads).model_dump(include=CONDITIONS)
    return {
        name: {
            "seconds": of_work(found),
            "work": work[name]["work"],
            "samples": sum(work[name]["samples"][number] for number in plan.batches),
            "tokens": sum(work[name]["tokens"][number] for number in plan.batches),
            "batches": len(plan.batches),
            "passes": plan.passes,
            **conditions,
        }
        for name, found in times.items()
        if found and all(len(one) == plan.passes for one in found.values())
    }


def _passes(players: Players, names: list[str], plan: Schedule, seed: str) -> dict[str, dict[int, list[float]]]:
    """A first pass warms up. Who follows whom is drawn anew for every batch: nobody always runs on what the same one left."""
    times: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    order = random.Random(seed)
    for number in range(-1, plan.passes):
        for place, batch in enumerate(plan.batches):
            order.shuffle(names)
            cold = plan.batches[place - 1] if plan.cold else None
            for name in names:
                answer = players.run(name, batch, cold)
                if answer is not None and number >= 0:
                    times[name].setdefault(batch, []).append(answer["seconds"])
    return times
