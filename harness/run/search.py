"""Which layers to keep in float so that static INT8 keeps a share of the accuracy, and is still faster than the baseline.

1. Each part of the encoder is quantized alone (simulated), which gives an order: how far it moves the logits.
2. The most sensitive 0, 1, 2, 4, 8 ... parts stay float, until the engine's own score keeps the wanted share of the baseline's;
   then the number is halved down between the last that did not and the first that did.
3. The candidates that keep enough, the one without float layers and the baseline run the same batches interleaved. Of those that
   keep enough, the fastest is the result.

Everything is chosen on training rows that the ranges were not calibrated on (`harness.run.search_steps`); the evaluation split is
not read. The share of the result is therefore that of the rows that chose it: a run of the suite file that is written tells.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import QuantboardError
from harness.machine.digests import digest
from harness.machine.processes import run_module
from harness.measure.paired import PairedTest, differences, ratio
from harness.plan.spec import Cell
from harness.records.scores import read_scores
from harness.run.context import TIMEOUT, Run, work_folder
from harness.run.job import Job
from harness.run.search_steps import SPLIT, keeping
from harness.run.steps import ensure_checkpoint, make_job
from harness.run.turns import run_interleaved
from tasks import Scores

ROUNDS = 5
"""Interleaved rounds of all candidates, each in fresh processes."""


@dataclass(frozen=True)
class Candidate:
    """scheme: its full name. kept: what stays float, the most sensitive first. score: of the primary metric, in percent.
    difference: from the baseline, in points. speed: samples a second over the baseline's, at the largest batch."""

    scheme: str
    kept: tuple[str, ...]
    score: float
    difference: PairedTest
    speed: PairedTest | None = None

    def share(self, baseline: float) -> float:
        return self.score / baseline


@dataclass(frozen=True)
class Found:
    """What a search found. sensitivities: (pattern, error), the largest first. best: None where no candidate will do; `why` is the
    reason then."""

    metric: str
    examples: int
    baseline: float
    sensitivities: tuple[tuple[str, float], ...]
    candidates: tuple[Candidate, ...]
    best: Candidate | None
    why: str = ""


def search(cell: Cell, baseline: Cell, keep: float, run: Run) -> Found:
    """cell: static INT8 with a post-training scheme. baseline: what accuracy and speed are held against. Raises QuantboardError
    for what cannot be searched, and where a process ends badly."""
    if cell.checkpoint.recipe != "ptq" or cell.scheme is None:
        raise QuantboardError(
            f"{cell.label}: its ranges come with the model; a search needs a backend with a post-training scheme, such as"
            " onnxruntime_int8 with scheme engine_int8"
        )
    trial = _Trial(cell, baseline, run)
    try:
        return _search(trial, keep)
    finally:
        trial.clean()


def _search(trial: _Trial, keep: float) -> Found:
    base = trial.score(trial.baseline)
    metric = base.primary
    if base.scores.metrics[metric] <= 0:
        raise QuantboardError(
            f"the baseline's {metric} on the slice is not positive, so that no share of it can be kept"
        )
    order = trial.sensitivities()

    def candidate(count: int) -> Candidate:
        kept = tuple(pattern for pattern, _ in order[:count])
        cell = trial.candidate(kept)
        scored = trial.score(cell)
        (difference,) = differences([scored.scores, base.scores], metric, [(0, 1)])
        found = Candidate(cell.scheme or "", kept, scored.scores.metrics[metric], difference)
        trial.run.say(
            f"{count} of {len(order)} parts in float: {metric} {found.score:.2f}, {100 * found.share(base.value):.2f}% kept"
        )
        return found

    tried = try_counts(len(order), candidate, lambda one: one.share(base.value) >= keep)
    enough = [one.scheme for one in tried if not one.kept or one.share(base.value) >= keep]
    speeds = trial.speeds(enough)
    candidates = tuple(replace(one, speed=speeds.get(one.scheme)) for one in tried)
    best, why = choose(candidates, base.value, keep, len(order))
    return Found(metric, base.examples, base.value, tuple(order), candidates, best, why)


def try_counts(
    parts: int, candidate: Callable[[int], Candidate], keeps: Callable[[Candidate], bool]
) -> list[Candidate]:
    """Candidates with 0, 1, 2, 4 ... of the parts in float up to the first that keeps enough, and those that halve the step
    before it; by number of parts in float. All of them in float would not be INT8."""
    tried: dict[int, Candidate] = {}
    steps = [
        0,
        *(2**power for power in range(parts.bit_length()) if 2**power < parts - 1),
        *([parts - 1] if parts > 1 else []),
    ]
    last = -1
    for count in steps:
        tried[count] = candidate(count)
        if keeps(tried[count]):
            while count - last > 1:
                middle = (last + count) // 2
                tried[middle] = candidate(middle)
                last, count = (last, middle) if keeps(tried[middle]) else (middle, count)
            break
        last = count
    return [tried[number] for number in sorted(tried)]


def choose(candidates: Sequence[Candidate], baseline: float, keep: float, parts: int) -> tuple[Candidate | None, str]:
    """The fastest candidate that keeps enough and is faster than the baseline; or None, and why there is none."""
    enough = [one for one in candidates if one.share(baseline) >= keep]
    if not enough:
        most = max(candidates, key=lambda one: one.score)
        return None, (
            f"no candidate keeps {100 * keep:g}%: the most is {100 * most.share(baseline):.2f}%, with {len(most.kept)} of {parts}"
            " parts in float; lower --keep, take another scheme, or train the model with quantizers (recipe qat)"
        )
    timed = [one for one in enough if one.speed]
    if not timed:
        return None, "the candidates could not be timed together; the lines above say why"
    best = max(timed, key=lambda one: one.speed.value if one.speed else 0.0)
    assert best.speed is not None
    if best.speed.value <= 1:
        return None, (
            f"what keeps {100 * keep:g}% is not faster than the baseline here ({best.speed.value:.2f} times its samples a second):"
            " ship the baseline, or lower --keep"
        )
    return best, ""


@dataclass(frozen=True)
class Scored:
    scores: Scores
    primary: str
    examples: int

    @property
    def value(self) -> float:
        return self.scores.metrics[self.primary]


class _Trial:
    """The processes of one search. Work folders are its own, and are removed at the end."""

    def __init__(self, cell: Cell, baseline: Cell, run: Run) -> None:
        self.cell, self.run = cell, run
        self.baseline = self._own(replace(cell, backend=baseline.backend, scheme=None, options=baseline.options))
        self._cells = {"": self.baseline}

    def candidate(self, kept: Sequence[str]) -> Cell:
        assert self.cell.scheme is not None
        scheme = keeping(self.cell.scheme, kept)
        made = self._own(replace(self.cell, scheme=scheme, checkpoint=replace(self.cell.checkpoint, scheme=scheme)))
        self._cells[scheme] = made
        return made

    def score(self, cell: Cell) -> Scored:
        self._make(cell)
        result = self._step(cell, "score")
        file = work_folder(cell, self.run) / "scores.npz"
        scores = read_scores(file, SPLIT, result["statistics"], result["metrics"])
        return Scored(scores, result["primary"], result["examples"])

    def sensitivities(self) -> list[tuple[str, float]]:
        self._make(self.cell)
        found = self._step(self._own(self.cell), "sensitivity")
        return [(one["pattern"], one["error"]) for one in found]

    def speeds(self, schemes: Sequence[str]) -> dict[str, PairedTest]:
        """Over the baseline's, of the largest batch, by scheme."""
        samples = work_folder(self.baseline, self.run) / "samples.npz"
        seconds: dict[str, dict[str, float]] = {}
        for number in range(1, ROUNDS + 1):
            jobs = {
                name: replace(make_job(self._cells[name], self.run, "turns", "turns", number), samples=samples)
                for name in ("", *schemes)
            }
            for name, loads in run_interleaved(jobs, f"search {number}", self._lost).loads.items():
                largest = max(loads, key=lambda load: load["batch_size"], default=None)
                if largest:
                    seconds.setdefault(name, {})[largest["together"]] = largest["seconds"]
        return {name: test for name in schemes for test in _ratios(seconds.get(name, {}), seconds.get("", {}))}

    def clean(self) -> None:
        for cell in (self._own(self.cell), *self._cells.values()):
            shutil.rmtree(work_folder(cell, self.run), ignore_errors=True)

    def _own(self, cell: Cell) -> Cell:
        return replace(
            cell, key=digest({"search": self.cell.key, "backend": cell.backend, "scheme": cell.scheme or ""})
        )

    def _lost(self, name: str, why: str) -> None:
        self.run.say(f"{name or 'the baseline'} is not timed: {why}")

    def _make(self, cell: Cell) -> None:
        if missing := ensure_checkpoint(cell.checkpoint, self.run):
            raise QuantboardError(f"{missing.reason}; {missing.remedy}".rstrip("; "))

    def _step(self, cell: Cell, mode: str) -> Any:
        job: Job = make_job(cell, self.run, mode, mode, 0)
        job.out.parent.mkdir(parents=True, exist_ok=True)
        path, log = job.out.with_suffix(".job"), job.out.with_suffix(".log")
        job.write(path)
        ended = run_module(
            "harness.run.search_steps", path, log, timeout=TIMEOUT, threads=job.threads, keep_memory=True
        )
        if ended.reason:
            raise QuantboardError("; ".join((f"search, {mode}: {ended.reason}", *ended.log[-1:])))
        return json.loads(job.out.read_text())


def _ratios(mine: dict[str, float], theirs: dict[str, float]) -> Iterator[PairedTest]:
    rounds = [name for name in mine if name in theirs]
    if rounds:
        yield ratio([1 / mine[name] for name in rounds], [1 / theirs[name] for name in rounds], interleaved=True)
