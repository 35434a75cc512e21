"""The live view of a run, redrawn in place: what runs, what is done, the time left. Only on a terminal, and not with NO_COLOR."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from harness.errors import visible
from harness.run.events import Event, Step

if TYPE_CHECKING:
    from rich.live import Live

    from harness.machine.hardware import Machine
    from harness.plan.plan import Plan
    from harness.plan.spec import Cell

_FAULTS = (": failed", ": skipped", "interleaved, round", "put aside", "put back", "measured again", "left out")
"""What lines about faults have in common."""
MOST_ROWS = 20
"""Cells that are shown at once: those that run, and the ones after them."""
GUESS: dict[Step, float] = {"checkpoint": 10, "accuracy": 20, "build": 20, "speed": 8, "turns": 20}
"""Seconds of a step until the first of its kind has ended."""
WORDS: dict[Step, str] = {"accuracy": "answers", "build": "is built", "speed": "is timed", "turns": "takes turns"}


def live_view(plan: Plan, machine: Machine, *, timed: bool) -> View | None:
    """None where lines are printed instead. timed: whether speed is measured."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return None
    return View(Progress([cell for cell in plan.cells if not cell.blocked], timed), plan.suite.name, machine)


@dataclass
class Progress:
    """What is known of a run so far. Times are seconds of `clock`."""

    cells: list[Cell]
    timed: bool = True
    clock: Any = time.monotonic
    now: dict[str, str] = field(default_factory=dict)
    accuracy: dict[str, float | None] = field(default_factory=dict)
    speed: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By cell: in each interleaved round, seconds of the largest batch that all ran."""
    ended: set[str] = field(default_factory=set)
    making: str = ""

    def __post_init__(self) -> None:
        self.start = self.clock()
        self.seconds: dict[Step, list[float]] = defaultdict(list)
        self.steps: Counter[Step] = Counter()
        self._begun: dict[Step, float] = {}

    def add(self, event: Event) -> None:
        if event.step == "record":
            self.ended |= set(event.cells)
            self.now |= {
                key: "done" if status in ("ok", "invalid") else status for key, status in event.results.items()
            }
            return
        if not event.done:
            self._begun[event.step] = self.clock()
            self.making = event.words
            self.now |= {key: self._words(event) for key in event.cells}
            return
        self.seconds[event.step].append(self.clock() - self._begun.get(event.step, self.clock()))
        self.steps[event.step] += 1
        self.making = ""
        for key in event.cells:
            self.now[key] = "waits its turn"
            result = event.results.get(key)
            if event.step == "accuracy" and result:
                part = next(iter(result["splits"]), None)  # random weights have none
                self.accuracy[key] = part["metrics"][part["primary"]] if part else None
            if event.step == "turns" and result:
                self.speed[key].append(max(result, key=lambda load: load["batch_size"])["seconds"])

    def _words(self, event: Event) -> str:
        if event.number:
            rounds = max((cell.measure.looks[-1] for cell in self.cells if cell.key in event.cells), default=0)
            return f"{WORDS[event.step]}, round {event.number} of {rounds}"
        return WORDS[event.step]

    @property
    def total(self) -> Counter[Step]:
        """Steps of the whole run, as far as the plan says them; a cell that has ended early needs no more."""
        from backends import get_backend

        cells = [cell for cell in self.cells if cell.key in self.accuracy or cell.key not in self.ended]
        steps: Counter[Step] = Counter()
        steps["accuracy"] = len(cells)
        timed = [cell for cell in cells if self.timed and not get_backend(cell.backend).simulated]
        steps["speed"] = sum(cell.measure.looks[-1] for cell in timed)
        tables = {(cell.task, cell.seed): cell.measure.looks[-1] for cell in timed}
        steps["turns"] = sum(tables.values())
        return steps

    @property
    def left(self) -> float:
        """Seconds to go, by what steps of each kind took so far."""
        seconds = 0.0
        for step, count in self.total.items():
            each = statistics.fmean(self.seconds[step]) if self.seconds[step] else GUESS[step]
            seconds += each * max(0, count - self.steps[step])
        return 0.0 if len(self.ended) >= len(self.cells) else seconds

    def speed_up(self, cell: Cell) -> float | None:
        """Of the baseline's time in the same rounds."""
        base = next(
            (one for one in self.cells if one.baseline and (one.task, one.seed) == (cell.task, cell.seed)), None
        )
        if base is None or not self.speed.get(cell.key) or not self.speed.get(base.key):
            return None
        return statistics.median(self.speed[base.key]) / statistics.median(self.speed[cell.key])


class View:
    """Shows a Progress until the run ends. Lines that are said meanwhile are kept back, but for faults."""

    def __init__(self, progress: Progress, title: str, machine: Machine) -> None:
        self._progress, self._title, self._machine = progress, title, machine
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(
            get_renderable=self.render, console=Console(stderr=True), refresh_per_second=2, transient=True
        )
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def watch(self, event: Event) -> None:
        self._progress.add(event)

    def say(self, line: str) -> None:
        """Faults stay on the screen."""
        if self._live and any(word in line for word in _FAULTS):
            self._live.console.print(visible(line), markup=False, highlight=False, soft_wrap=True)

    def render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        progress = self._progress
        spent, left = progress.clock() - progress.start, progress.left
        where = f"{self._machine.cores} cores" + (
            f", {self._machine.gpus[0].name}" if self._machine.gpus else ", no GPU"
        )
        top = Table.grid(expand=True)
        top.add_column()
        top.add_column(justify="right")
        top.add_row(self._title, where)
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(width=6, justify="right")
        bar.add_column(ratio=1)
        bar.add_column(justify="right")
        bar.add_row(_clock(spent), ProgressBar(total=spent + left, completed=spent), _left(left))
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for name, right in (("  Method", False), ("Score %", True), ("Speed", True), ("Now", False)):
            table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
        models, tasks = ({getattr(cell, name) for cell in progress.cells} for name in ("model", "task"))
        for cell in self._shown():
            accuracy, speed_up = progress.accuracy.get(cell.key), progress.speed_up(cell)
            table.add_row(
                Text("  " + _name(cell, len(models) > 1, len(tasks) > 1)),
                "" if accuracy is None else f"{accuracy:.1f}",
                "" if speed_up is None else f"{speed_up:.2f}×",
                progress.now.get(cell.key, "waits its turn"),
            )
        made = [Text(f"  {progress.making}", overflow="ellipsis", no_wrap=True)] if progress.making else []
        foot = Text("  Ctrl-C stops and keeps what is done; the same command goes on from there.", overflow="ellipsis")
        return Group(top, bar, Text(), table, *made, Text(), foot)

    def _shown(self) -> list[Cell]:
        """All cells, or of many those that have not ended."""
        cells = self._progress.cells
        if len(cells) <= MOST_ROWS:
            return cells
        return [cell for cell in cells if cell.key not in self._progress.ended][:MOST_ROWS]


def _name(cell: Cell, with_model: bool, with_task: bool) -> str:
    from backends import get_backend

    title = getattr(get_backend(cell.backend), "title", "") if cell.label == cell.backend else ""
    parts = [cell.task if with_task else "", cell.model if with_model else "", title or cell.label]
    return " ".join(filter(None, parts))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _left(seconds: float) -> str:
    if seconds < 60:
        return "less than a minute left"
    return f"about {round(seconds / 60)} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"
