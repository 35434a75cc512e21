"""What one quantized method costs on every task: the line above the index's cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.pick import Limits, Ratio
from harness.report.standings import Standing

FEWEST = 4
"""Tasks; of fewer the cards say it all."""

WIDTH, LOW, HIGH = 96.0, 0.94, 1.02
"""Of a task's line in pixels, and the shares kept at its ends; what lies outside is cut off there."""


@dataclass(frozen=True)
class TaskCost:
    """kept, interval: the share of the baseline's metric. low, at, high: where they stand on the line, in pixels. below: less than
    the limit is kept."""

    title: str
    page: str
    metric: str
    kept: str
    interval: str
    low: float
    at: float
    high: float
    below: bool


@dataclass(frozen=True)
class Strip:
    """limit, whole: where the limit and 100% stand on a task's line, in pixels."""

    method: str
    model: str
    machine: str
    limit: float
    whole: float
    width: float
    tasks: tuple[TaskCost, ...]


def cost_strip(standings: Sequence[Standing]) -> Strip | None:
    """Of the method, model and machine with the most tasks, among methods that quantize after training; real and whole data only.
    standings: in the order of the index. None where it has fewer than four tasks."""
    found: dict[tuple[object, ...], list[tuple[Standing, Ratio]]] = {}
    for board in standings:
        if board.subject.sample or board.subject.limit:
            continue
        for method, name in zip(board.methods, board.names, strict=True):
            if method.kept and name.kind in ("static", "dynamic"):
                found.setdefault((name.title, board.subject.model, board.machine), []).append((board, method.kept))
    most = max(found.items(), key=lambda item: len(item[1]), default=None)
    if most is None or len(most[1]) < FEWEST:
        return None
    (title, model, _), rows = most
    return Strip(
        method=str(title),
        model=str(model),
        machine=rows[0][0].machine.title,
        limit=_x(Limits().keep),
        whole=_x(1.0),
        width=WIDTH,
        tasks=tuple(_cost(board, kept) for board, kept in rows),
    )


def _cost(board: Standing, kept: Ratio) -> TaskCost:
    low, high = (kept.value if end is None else end for end in (kept.low, kept.high))
    return TaskCost(
        title=board.subject.title,
        page=board.page,
        metric=board.subject.metric,
        kept=f"{100 * kept.value:.2f}%",
        interval=f"{100 * low:.1f}–{100 * high:.1f}" if low < high else "no interval",
        low=_x(low),
        at=_x(kept.value),
        high=_x(high),
        below=kept.value < Limits().keep,
    )


def _x(share: float) -> float:
    return round(WIDTH * (min(max(share, LOW), HIGH) - LOW) / (HIGH - LOW), 1)
