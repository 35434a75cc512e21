"""The progress of a training: a live bar on a terminal, elsewhere a line every half minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

LINE_SECONDS = 30.0


class Display:
    """A context manager; call `update` after every step."""

    def __init__(self, steps: int, first_step: int, log: Callable[[str], None]) -> None:
        """steps: of the whole training. first_step: of those, how many are done already. log: takes the lines."""
        self._steps, self._first, self._log = steps, first_step, log
        self._start = self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self._task = self._bar.add_task("", total=steps, completed=first_step, text="")

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
        """step: the number of steps done. loss: a recent mean."""
        now = time.monotonic()
        if not self._bar and now - self._last_line < LINE_SECONDS:
            return
        self._last_line = now
        pace = (now - self._start) / (step - self._first)
        rate = f"{pace:.2f} s a step" if pace > 0.5 else f"{1 / max(pace, 1e-9):.1f} steps/s"
        left = round(pace * (self._steps - step))
        text = f"loss {loss:.3f}, {rate}, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        if self._bar:
            self._bar.update(self._task, completed=step, text=text)
        else:
            self._log(f"step {step:,} of {self._steps:,}: {text}")
