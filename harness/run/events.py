"""What a run tells a view of it: which step began or ended, of which cells, and what it measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Step = Literal["checkpoint", "accuracy", "build", "speed", "turns", "record"]


@dataclass(frozen=True)
class Event:
    """step: `speed` is one round of one cell, `turns` an interleaved round of several, `record` a cell's end. cells: keys; none
    for a checkpoint. number: of the round, from 1. done: it ended; else it began. results: by cell, what a step that ended
    measured, as its process returned it; of `record` the status. words: what is made, of a checkpoint."""

    step: Step
    cells: tuple[str, ...] = ()
    number: int = 0
    done: bool = False
    results: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""


Watch = Callable[[Event], None]


def unwatched(event: Event) -> None:
    """The view of a run that nobody watches."""
