"""What a speed round of a cell tells, on a session that notes what it is given."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness.machine.processes
import harness.run.cell
import harness.run.features
import harness.run.job
from backends import Batch, Settings
from harness.plan.spec import Cell, CheckpointSpec
from harness.records.speed_schema import Speed
from harness.run.assemble import cold_start_seconds, selected_on, speeds
from harness.run.cell import speed
from harness.run.features import write_samples
from harness.run.job import Job
from harness.suite.measure import Measure
from tasks import DataRef, Shape
from tests.backends.in_memory import InMemorySession
from tests.measure.features import make_features

LENGTH = 50


class Noting(InMemorySession):
    """`lengths`: true lengths of every call's rows."""

    def __init__(self, seconds_a_call: float, seconds_to_build: float = 0.0) -> None:
        super().__init__(seconds_a_call)
        self.lengths: list[list[int]] = []
        self.built, self.build_seconds = seconds_to_build > 0, seconds_to_build
        time.sleep(seconds_to_build)

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        self.lengths.append([int(length) for length in batch["attention_mask"].sum(1)])
        return super().run(batch)


class Rounds:
    """Runs speed rounds in this process; `session` is the last one's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setattr(harness.run.cell, "get_backend", lambda name: self)
        write_samples(folder / "samples.npz", make_features(), 64)

    def prepare(self, checkpoint: Path, settings: Settings, device: str) -> Noting:
        self.session = Noting(**settings.options)
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

    def tested(self, found: dict[str, Any]) -> list[int]:
        """True lengths of what the one test of a round ran, in its order."""
        queries = found["rounds"][0]["round"]["queries"]
        return [length for call in self.session.lengths for length in call][-queries:]

    def record(self, *found: dict[str, Any]) -> Speed:
        return speeds(self.cell, found, {"claimed": "memory", "detail": []})[0][0]


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    return Rounds(tmp_path, monkeypatch)


def test_cells_draw_alike_in_a_round_and_otherwise_in_the_next(rounds: Rounds) -> None:
    fast = rounds.tested(rounds.run(1))
    slow = rounds.tested(rounds.run(1, seconds_a_call=0.004))
    later = rounds.tested(rounds.run(2))
    assert 5 <= len(slow) < len(fast)  # on a busy machine calls take longer
    assert fast[: len(slow)] == slow
    assert later[: len(slow)] != fast[: len(slow)]


@pytest.mark.parametrize("load", ["real", "fixed"])
@pytest.mark.parametrize("scenario", ["single_stream", "offline"])
def test_mean_tokens_are_of_what_was_run(rounds: Rounds, load: str, scenario: str) -> None:
    found, true = [], []
    for number in (1, 2):
        found.append(rounds.run(number, load, scenario))
        true.append(float(np.mean(rounds.tested(found[-1]))))
    one = rounds.record(*found)
    assert [entry.mean_tokens for entry in one.rounds] == pytest.approx(true)
    assert true[0] != true[1]
    assert one.mean_tokens == pytest.approx(np.mean(true))


def test_cold_start_is_the_sum_of_its_parts_without_what_was_built(rounds: Rounds) -> None:
    found = rounds.run(1, seconds_to_build=0.3)
    whole = found["cold_start_seconds"]
    assert found["build_seconds"] == 0.3
    assert 0 < whole < 0.3
    assert whole == pytest.approx(sum(found["cold_start"].values()))
    assert all(part >= 0 for part in found["cold_start"].values())


@pytest.mark.parametrize(
    ("starts", "median"), [([], None), ([3.0], 3.0), ([20.0, 1.0, 2.0], 2.0), ([20.0, 1.0, 5.0, 2.0], 3.5)]
)
def test_cold_start_is_the_median_of_rounds(starts: list[float], median: float | None) -> None:
    assert cold_start_seconds([{"cold_start_seconds": value} for value in starts]) == median


def test_what_weights_were_chosen_on_is_unknown_where_others_made_them() -> None:
    load = CheckpointSpec("m", "squad_v1", "load", "hub:a/b", 0, Shape(LENGTH), DataRef("sample"))
    trained = replace(load, recipe="finetune")
    told = {
        "published": (load, "unknown: weights as published"),
        "its ranges": (
            replace(load, recipe="ptq", parent=load),
            "unknown: weights as published; ranges calibrated on training examples",
        ),
        "trained here": (trained, "nothing; last step of training"),
        "its ranges, trained here": (
            replace(load, recipe="ptq", parent=trained),
            "nothing; ranges calibrated on training examples",
        ),
    }
    for name, (spec, words) in told.items():
        assert selected_on(spec) == words, name
