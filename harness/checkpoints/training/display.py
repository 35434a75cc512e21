"""How a training shows that it goes on: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

LINE_SECONDS = 30.0


class Display:
    """A context manager; `update` after every step."""

    def __init__(self, steps: int, done: int, say: Callable[[str], None]) -> None:
        self._steps, self._first, self._say = steps, done, say
        self._start = self._said = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self._task = self._bar.add_task("", total=steps, completed=done, text="")

    def __enter__(self) -> Display:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, step: int, loss: float) -> None:
        """loss: a recent mean."""
        now = time.monotonic()
        if not self._bar and now - self._said < LINE_SECONDS:
            return
        self._said = now
        pace = (now - self._start) / (step - self._first)
        rate = f"{pace:.2f} s a step" if pace > 0.5 else f"{1 / max(pace, 1e-9):.1f} steps/s"
        left = round(pace * (self._steps - step))
        text = f"loss {loss:.3f}, {rate}, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        if self._bar:
            self._bar.update(self._task, completed=step, text=text)
        else:
            self._say(f"step {step:,} of {self._steps:,}: {text}")
