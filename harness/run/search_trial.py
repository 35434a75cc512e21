"""The processes of one search: checkpoints of its candidates, their scores on the slice, and their interleaved speed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.errors import QuantboardError
from harness.machine.digests import digest
from harness.machine.processes import run_module
from harness.measure.inference import PAST_THE_END
from harness.plan.spec import Cell, CheckpointSpec
from harness.records.scores import read_scores
from harness.run.context import TIMEOUT, Run, work_folder
from harness.run.job import Job
from harness.run.search_steps import SPLIT, outputs_file
from harness.run.steps import TORCH, ensure_checkpoint, imports_of, make_job
from harness.run.turns import run_interleaved
from tasks import Scores

ROUNDS = 5
"""Interleaved rounds of all candidates, each in fresh processes."""


@dataclass(frozen=True, eq=False)
class Scored:
    """outputs: of every sequence of the slice, as `harness.measure.inference` has them."""

    scores: Scores
    primary: str
    examples: int
    outputs: np.ndarray[Any, Any]

    @property
    def value(self) -> float:
        return self.scores.metrics[self.primary]

    def error(self, baseline: Scored) -> float:
        """Mean squared difference of the logits of real tokens, in units of the baseline's variance."""
        real = baseline.outputs > PAST_THE_END / 2
        exact = baseline.outputs[real].astype(np.float64)
        return float(np.mean((self.outputs[real] - exact) ** 2) / exact.var())


@dataclass(frozen=True)
class Part:
    """pattern: its name in `keep_float`. error: the mean squared change of the logits when it alone is quantized, in units of their
    variance. share: of the products of all parts."""

    pattern: str
    error: float
    share: float


class Trial:
    """Work folders are its own, and are removed at the end. rows: of the slice, at most."""

    def __init__(self, cell: Cell, baseline: Cell, run: Run, rows: int) -> None:
        self.cell, self.run, self.rows = cell, run, rows
        self.baseline = self.own(replace(cell, backend=baseline.backend, scheme=None, options=baseline.options))
        self._cells = {"": self.baseline}

    def candidate(self, scheme: str) -> Cell:
        made = self.own(replace(self.cell, scheme=scheme, checkpoint=replace(self.cell.checkpoint, scheme=scheme)))
        self._cells[scheme] = made
        return made

    def add(self, name: str, cell: Cell) -> None:
        """A cell that is timed under a name of its own."""
        self._cells[name] = cell

    def score(self, cell: Cell) -> Scored:
        self.make(cell.checkpoint)
        result = self._step(cell, "score")
        folder = work_folder(cell, self.run)
        scores = read_scores(folder / "scores.npz", SPLIT, result["statistics"], result["metrics"])
        outputs = np.load(outputs_file(folder / "scores.npz"), allow_pickle=False)
        return Scored(scores, result["primary"], result["examples"], outputs)

    def sensitivities(self, scheme: str) -> list[Part]:
        return [Part(**one) for one in self._step(self.candidate(scheme), "sensitivity")]

    def seconds(self, schemes: Sequence[str]) -> dict[str, dict[str, float]]:
        """For the largest batch, by scheme ("" is the baseline) and round."""
        samples = work_folder(self.baseline, self.run) / "samples.npz"
        seconds: dict[str, dict[str, float]] = {}
        for number in range(1, (ROUNDS if schemes else 0) + 1):
            jobs = {
                name: replace(make_job(self._cells[name], self.run, "turns", "turns", number), samples=samples)
                for name in ("", *schemes)
            }
            for name, loads in run_interleaved(jobs, f"search {number}", self._lost).loads.items():
                largest = max(loads, key=lambda load: load["batch_size"], default=None)
                if largest:
                    seconds.setdefault(name, {})[largest["together"]] = largest["seconds"]
        return seconds

    def clean(self) -> None:
        for cell in self._cells.values():
            shutil.rmtree(work_folder(cell, self.run), ignore_errors=True)

    def own(self, cell: Cell) -> Cell:
        """The cell with a work folder of this search."""
        what = {"backend": cell.backend, "scheme": cell.scheme or "", "checkpoint": cell.checkpoint.key}
        return replace(cell, key=digest({"search": self.cell.key, **what}))

    def _lost(self, name: str, why: str) -> None:
        self.run.say(f"{name or 'the baseline'} is not timed: {why}")

    def make(self, checkpoint: CheckpointSpec) -> None:
        """Raises QuantboardError where it cannot be made."""
        if missing := ensure_checkpoint(checkpoint, self.run):
            raise QuantboardError(f"{missing.reason}; {missing.remedy}".rstrip("; "))

    def _step(self, cell: Cell, mode: str) -> Any:
        job: Job = make_job(cell, self.run, mode, mode, self.rows)
        job.out.parent.mkdir(parents=True, exist_ok=True)
        path, log = job.out.with_suffix(".job"), job.out.with_suffix(".log")
        job.write(path)
        imported = TORCH if mode == "sensitivity" else imports_of(cell)
        ended = run_module(
            "harness.run.search_steps",
            path,
            log,
            timeout=TIMEOUT,
            threads=job.threads,
            keep_memory=True,
            imported=() if self.run.machine.gpus else imported,
        )
        if ended.reason:
            raise QuantboardError("; ".join((f"search, {mode}: {ended.reason}", *ended.log[-1:])))
        return json.loads(job.out.read_text())
