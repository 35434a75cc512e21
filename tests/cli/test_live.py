"""The live view: what it knows after each step, what it shows, and where it is left out."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.cli.live import Progress, View, live_view
from harness.plan.plan import Plan
from harness.plan.spec import Cell
from harness.run.events import Event
from tests.bench.measuring import Bench
from tests.machine.machines import MACHINE


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    cell = Bench(tmp_path / "bench").cell()
    measure = replace(cell.measure, rounds=2)
    base = replace(cell, key="a", backend="torch_fp32", label="torch_fp32", baseline=True, measure=measure)
    return [
        base,
        replace(base, key="b", backend="onnxruntime_int8_dynamic", label="onnxruntime_int8_dynamic", baseline=False),
    ]


def step(progress: Progress, clock: Clock, seconds: float, event: Event) -> None:
    progress.add(replace(event, done=False, results={}))
    clock.now += seconds
    progress.add(replace(event, done=True))


def turns(**seconds: float) -> dict[str, Any]:
    return {
        key: [{"batch_size": 1, "seconds": 9.0}, {"batch_size": 16, "seconds": value}] for key, value in seconds.items()
    }


def measured(cells: list[Cell]) -> tuple[Progress, Clock]:
    clock = Clock()
    progress = Progress(cells, clock=clock)
    for key, value in (("a", 91.3), ("b", 91.1)):
        split = {"metrics": {"accuracy": value}, "primary": "accuracy"}
        step(progress, clock, 10, Event("accuracy", (key,), results={key: {"splits": [split]}}))
    for key in ("a", "b"):
        step(progress, clock, 5, Event("speed", (key,), 1, results={key: {}}))
    step(progress, clock, 20, Event("turns", ("a", "b"), 1, results=turns(a=3.0, b=1.0)))
    return progress, clock


def test_figures_and_time_left_come_from_the_steps(cells: list[Cell]) -> None:
    progress, _ = measured(cells)
    assert progress.accuracy == {"a": 91.3, "b": 91.1}
    assert progress.speed_up(cells[1]) == pytest.approx(3.0)
    assert progress.left == pytest.approx(2 * 5 + 20), "a second round of each, and one together"
    progress.add(Event("record", ("a",), done=True, results={"a": "ok"}))
    progress.add(Event("record", ("b",), done=True, results={"b": "failed"}))
    assert progress.left == 0
    assert progress.now == {"a": "done", "b": "failed"}


def test_it_fits_80_columns_and_repeats_colour_in_words(cells: list[Cell]) -> None:
    progress, _ = measured(cells)
    progress.add(Event("speed", ("b",), 2))
    file = io.StringIO()
    Console(file=file, width=80).print(View(progress, "tickets", MACHINE).render())
    shown = file.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "0:50" in shown and "less than a minute left" in shown
    row = next(line for line in shown.splitlines() if "ORT INT8 dynamic" in line)
    assert row.split() == ["ORT", "INT8", "dynamic", "91.1", "3.00×", "is", "timed,", "round", "2", "of", "2"]
    assert "Ctrl-C stops and keeps what is done" in shown


@pytest.mark.parametrize(("terminal", "no_color", "shown"), [(True, "", True), (True, "1", False), (False, "", False)])
def test_lines_are_printed_where_there_is_no_terminal_or_no_colour(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch, terminal: bool, no_color: str, shown: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    suite: Any = type("Named", (), {"name": "tickets"})
    assert (live_view(Plan(suite, tuple(cells), False), MACHINE, timed=True) is not None) == shown
