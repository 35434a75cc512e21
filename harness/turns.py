"""Hands out turns: fresh processes of all cells of a table at once, of which one runs at a time."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.cell import Job
from harness.children import Gone, Served
from harness.measure.turns import Schedule, of_work, schedule

START_SECONDS, CALL_SECONDS = 1800.0, 600.0
"""After which a process counts as hung."""
Found = dict[str, list[dict[str, Any]]]


def take_turns(
    jobs: Mapping[str, Job], together: str, lost: Callable[[str, str], None], *, module: str = "harness.cell"
) -> Found:
    """One round: of each name what it took for the work that all did, an entry a load, as a record's `TurnRound` with what
    identifies its `Turns`.

    All processes are alive at the same time, so all models must fit into memory together; `lost` is told the name of one that
    ends badly, and why: the others go on without it. Cells of a single thread share one processor (the last that this
    process may use): two processors of a machine need not be equally fast.
    """
    found: Found = {name: [] for name in jobs}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quantboard-")))
        served: dict[str, Served] = {}
        for place, (name, job) in enumerate(jobs.items()):
            path = folder / f"{place}.json"
            replace(job, mode="turns", out=folder / f"{place}.out", started=time.time()).write(path)
            log = folder / f"{place}.log"
            served[name] = stack.enter_context(Served(module, path, log, threads=job.threads))
        players = Players(served, lost)
        players.ask_all({}, START_SECONDS)
        loads = {name: job.cell.measure.turns(job.cell.batch_sizes) for name, job in jobs.items()}
        for load, size in dict.fromkeys(each for some in loads.values() for each in some):
            names = [name for name, some in loads.items() if (load, size) in some]
            for name, entry in _one_load(players, names, load, size, jobs).items():
                length = jobs[name].cell.shape.max_length
                found[name].append(
                    {"load": load, "batch_size": size, "sequence_length": length, "together": together} | entry
                )
    return found


class Players:
    """The processes that are still there."""

    def __init__(self, served: dict[str, Served], lost: Callable[[str, str], None]) -> None:
        self._served, self._lost = served, lost

    def ask_all(self, question: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """At the same time."""
        asked = [name for name in self._served if self._try(name, lambda one: one.send(question)) is not None]
        answers = {name: self._try(name, lambda one: one.receive(timeout)) for name in asked}
        return {name: answer for name, answer in answers.items() if answer is not None}

    def ask(self, name: str, question: Mapping[str, Any]) -> Any:
        """None where the process is gone."""
        if self._try(name, lambda one: one.send(question)) is None:
            return None
        return self._try(name, lambda one: one.receive(CALL_SECONDS))

    def _try(self, name: str, do: Callable[[Served], Any]) -> Any:
        one = self._served.get(name)
        if one is None:
            return None
        try:
            return do(one)
        except Gone as gone:
            del self._served[name]
            self._lost(name, str(gone))
            return None


def _one_load(players: Players, names: Sequence[str], load: str, size: int, jobs: Mapping[str, Job]) -> Found:
    work = players.ask_all({"load": load, "batch_size": size}, START_SECONDS)
    work = {name: work[name] for name in names if name in work}
    if len(work) < 2:
        return {}
    available = min(len(one["samples"]) for one in work.values())
    trial = {"run": available // 2, "cold": 1, "calls": 1}
    seconds = {name: players.ask(name, trial) for name in work}
    known = [answer["seconds"][0] for answer in seconds.values() if answer]
    if len(known) < 2:
        return {}
    plan = schedule(known, available, min(jobs[name].cell.measure.min_duration for name in work))
    times = _passes(players, list(work), plan, seed=size)
    return {
        name: {
            "seconds": of_work(found),
            "samples": sum(work[name]["samples"][number] for number in plan.batches),
            "tokens": sum(work[name]["tokens"][number] for number in plan.batches),
            "batches": len(plan.batches),
            "calls": plan.passes * plan.calls,
        }
        for name, found in times.items()
        if found and all(len(one) == plan.passes * plan.calls for one in found.values())
    }


def _passes(players: Players, names: list[str], plan: Schedule, seed: int) -> dict[str, dict[int, list[float]]]:
    """A first pass warms up. Who follows whom is drawn anew for every batch: nobody always runs on what the same one left."""
    times: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    order = random.Random(seed)
    for number in range(-1, plan.passes):
        for batch in plan.batches:
            order.shuffle(names)
            for name in names:
                answer = players.ask(name, {"run": batch, "cold": plan.cold, "calls": plan.calls})
                if answer is not None and number >= 0:
                    times[name].setdefault(batch, []).extend(answer["seconds"])
    return times
