"""Speed rounds of a cell, on a session that notes what it is given."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness.run.cell
from backends import Batch, Settings
from harness.plan.spec import Cell, CheckpointSpec
from harness.records.speed_schema import Speed
from harness.run.assemble import speeds
from harness.run.cell import speed
from harness.run.features import write_samples
from harness.run.job import Job
from harness.suite.measure import Measure
from tasks import DataRef, Shape
from tests.backends.in_memory import InMemorySession
from tests.measure.features import make_features

LENGTH = 50


class NotingSession(InMemorySession):
    """lengths: true lengths of the rows of every call."""

    def __init__(self, seconds_a_call: float, seconds_to_build: float = 0.0) -> None:
        super().__init__(seconds_a_call)
        self.lengths: list[list[int]] = []
        self.built, self.build_seconds = seconds_to_build > 0, seconds_to_build
        time.sleep(seconds_to_build)

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        self.lengths.append([int(length) for length in batch["attention_mask"].sum(1)])
        return super().run(batch)


class Rounds:
    """Runs speed rounds in this process. session: that of the last round."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setattr(harness.run.cell, "get_backend", lambda name: self)
        write_samples(folder / "samples.npz", make_features(), 64)

    def prepare(self, checkpoint: Path, settings: Settings, device: str) -> NotingSession:
        self.session = NotingSession(**settings.options)
        return self.session

    def run(self, number: int, load: str = "real", scenario: str = "single_stream", **options: float) -> dict[str, Any]:
        measure = Measure((scenario,), (load,), min_duration=0.1, min_queries=20, max_warmup=0.2, threads=1)
        data, shape = DataRef("sample"), Shape(LENGTH)
        spec = CheckpointSpec("m", "squad_v1", "load", "scratch", 0, shape, data)
        cell = Cell(
            suite="s",
            model="m",
            seed=3,
            task="squad_v1",
            backend="noting",
            scheme=None,
            label="noting",
            options={"seconds_a_call": 0.001} | options,
            shape=shape,
            padding="longest",
            batch_sizes=(4,),
            measure=measure,
            limit=None,
            data=data,
            checkpoint=spec,
            device="cpu",
            key="k",
        )
        samples = self.folder / "samples.npz"
        self.cell, folder = cell, self.folder
        return speed(
            Job("speed", cell, folder, folder, folder / "out", folder / "scores", samples, time.time(), 1, number)
        )

    def tested(self, results: dict[str, Any]) -> list[int]:
        """True lengths of the samples that the round's only test ran, in order."""
        queries = results["rounds"][0]["round"]["queries"]
        return [length for call in self.session.lengths for length in call][-queries:]

    def speed(self, *results: dict[str, Any]) -> Speed:
        (of_test,) = speeds(self.cell, results)
        return of_test


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    return Rounds(tmp_path, monkeypatch)


@pytest.mark.slow
def test_cells_draw_the_same_samples_in_a_round_and_others_in_the_next(rounds: Rounds) -> None:
    fast = rounds.tested(rounds.run(1))
    slow = rounds.tested(rounds.run(1, seconds_a_call=0.004))
    later = rounds.tested(rounds.run(2))
    assert 5 <= len(slow) < len(fast)  # on a busy machine calls take longer
    assert fast[: len(slow)] == slow
    assert later[: len(slow)] != fast[: len(slow)]


@pytest.mark.slow
@pytest.mark.parametrize("load", ["real", "fixed"])
@pytest.mark.parametrize("scenario", ["single_stream", "offline"])
def test_mean_tokens_are_of_the_samples_that_were_run(rounds: Rounds, load: str, scenario: str) -> None:
    results, true = [], []
    for number in (1, 2):
        results.append(rounds.run(number, load, scenario))
        true.append(float(np.mean(rounds.tested(results[-1]))))
    figures = rounds.speed(*results)
    assert [speed_round.mean_tokens for speed_round in figures.rounds] == pytest.approx(true)
    assert true[0] != true[1]
    assert figures.mean_tokens == pytest.approx(np.mean(true))


def test_cold_start_is_the_sum_of_its_parts_without_the_build(rounds: Rounds) -> None:
    results = rounds.run(1, seconds_to_build=0.3)
    whole = results["cold_start_seconds"]
    assert results["build_seconds"] == 0.3
    assert 0 < whole < 0.3
    assert whole == pytest.approx(sum(results["cold_start"].values()))
    assert all(part >= 0 for part in results["cold_start"].values())
