"""The chart of a task's page: share kept against speed-up, with 95% crosses, frontier, the limit's region and direct labels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.report.leaderboards import Entry, Leaderboard
from harness.report.pick import Limits, Pick
from harness.report.plots import SHAPES, Scale, drawn, steps

LETTER, LINE = 7.7, 13.0
"""Mean width and height of a label's letters in pixels, to keep labels apart."""

Box = tuple[float, float, float, float]

LABEL, MARK, BAR = 100, 10, 1
"""How bad it is for a label to stand upon another label, upon a mark, upon the bar of an interval."""

NEAR, FAR = 20.0, 25.0
"""Pixels from a mark to its label: beyond NEAR a line leads to it, and each FAR more are as bad as a bar."""


@dataclass(frozen=True)
class ChartMark:
    """A method: its mark, the ends of its two intervals, where its label stands, and the line that leads there, if it is far. place:
    among the leaderboard's methods."""

    place: int
    kind: str
    shape: str
    title: str
    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    label: str
    label_x: float
    label_y: float
    leader: str
    fits: bool
    picked: bool


@dataclass(frozen=True)
class TaskChart:
    """name: `wide` or `narrow`. limit: the height of the limit that the page is built with. y_low, y_high: shares at the bottom
    and the top, which the page's script needs to move the limit."""

    name: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    y_low: float
    y_high: float
    limit: float
    limit_x: float
    limit_anchor: str
    limit_text: str
    x_title: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    frontier: str
    marks: tuple[ChartMark, ...]


def task_charts(board: Leaderboard, choice: Pick) -> tuple[TaskChart, ...]:
    """For wide and for narrow screens; none of fewer than two methods with both figures."""
    if len(drawn(board.methods)) < 2:
        return ()
    return _chart(board, choice, "wide", 740, 520), _chart(board, choice, "narrow", 340, 340)


def _chart(board: Leaderboard, choice: Pick, name: str, width: float, height: float) -> TaskChart:
    small = width < 500
    scale = _scale(board, Scale(56, width - (12 if small else 24), 12, height - 44, 0.85, 2, 0.98, 1.004))
    limit = Limits().keep
    boxes = list[tuple[Box, int]]()
    shown = [(place, entry) for place, entry in enumerate(board.entries) if entry.method.kept and entry.method.speed_up]
    for _, entry in shown:
        boxes += _boxes(entry, scale)
    limit_box = min(_limit_boxes(scale, scale.y(limit)), key=lambda box: sum(w for b, w in boxes if _overlap(box, b)))
    on_left = limit_box[0] == scale.left
    boxes.append((limit_box, LABEL))
    outside = {id(method) for method, _ in choice.outside}
    marks = []
    for place, entry in sorted(shown, key=lambda item: item[1].method is not choice.ship):
        label = entry.name.short.removeprefix("ORT ") if small else entry.name.short
        at = _label(label, _point(entry, scale), scale, boxes)
        marks.append(
            _mark(place, entry, scale, label, at, id(entry.method) not in outside, entry.method is choice.ship)
        )
    baseline = next((entry.name.short for entry in board.entries if entry.name.kind == "baseline"), "baseline")
    return TaskChart(
        name=name,
        width=width,
        height=height,
        left=scale.left,
        right=scale.right,
        top=scale.top,
        bottom=scale.bottom,
        y_low=scale.y_low,
        y_high=scale.y_high,
        limit=scale.y(limit),
        limit_x=scale.left + 8 if on_left else scale.right - 8,
        limit_anchor="start" if on_left else "end",
        limit_text=f"your limit, {100 * limit:.1f}%",
        x_title=f"speed, {baseline} = 1 → faster",
        x_ticks=tuple((scale.x(value), f"{value:g}×") for value in steps(1.0, scale.x_high, 6)),
        y_ticks=tuple((scale.y(value), f"{100 * value:.4g}%") for value in steps(scale.y_low, scale.y_high, 7)),
        frontier=scale.path(board.methods),
        marks=tuple(marks),
    )


def _limit_boxes(scale: Scale, y: float) -> tuple[Box, Box]:
    """Where the text of the limit may stand: below its line, on the left or on the right."""
    return (scale.left, y + 3, scale.left + 118, y + 21), (scale.right - 118, y + 3, scale.right, y + 21)


def _scale(board: Leaderboard, frame: Scale) -> Scale:
    """Wide enough for every mark; intervals may be cut off at the edge."""
    methods = drawn(board.methods)
    speeds = [m.speed_up.value for m in methods if m.speed_up]
    ends = [m.speed_up.high or m.speed_up.value for m in methods if m.speed_up]
    kept = [m.kept.value for m in methods if m.kept]
    lows = [m.kept.low or m.kept.value for m in methods if m.kept]
    highs = [m.kept.high or m.kept.value for m in methods if m.kept]
    spread = max(max(kept) - min(kept), 0.01)
    x_high = min(max(ends), 1.3 * max(speeds)) + 0.25
    y_low = max(min(lows), min(kept) - spread) - 0.003
    y_high = min(max(*highs, 1.0), max(kept) + spread) + 0.003
    x_low = min(0.85, min(speeds) - 0.1)
    return Scale(frame.left, frame.right, frame.top, frame.bottom, x_low, x_high, min(y_low, 0.985), max(y_high, 1.003))


def _point(entry: Entry, scale: Scale) -> tuple[float, float]:
    assert entry.method.speed_up and entry.method.kept
    return scale.x(entry.method.speed_up.value), scale.y(entry.method.kept.value)


def _ends(entry: Entry, scale: Scale) -> Box:
    """x_low, x_high, y_low, y_high of the intervals; of a figure without one the figure itself."""
    speed, kept = entry.method.speed_up, entry.method.kept
    assert speed and kept
    low, high = (speed.value if end is None else end for end in (speed.low, speed.high))
    least, most = (kept.value if end is None else end for end in (kept.low, kept.high))
    return scale.x(low), scale.x(high), scale.y(least), scale.y(most)


def _boxes(entry: Entry, scale: Scale) -> Iterable[tuple[Box, int]]:
    """What a label should leave free: the mark and its cross."""
    x, y = _point(entry, scale)
    x_low, x_high, y_low, y_high = _ends(entry, scale)
    bars = ((x_low, y - 1, x_high, y + 1), BAR), ((x - 1, y_high, x + 1, y_low), BAR)
    return ((x - 9, y - 9, x + 9, y + 9), MARK), *bars


def _label(
    text: str, point: tuple[float, float], scale: Scale, boxes: list[tuple[Box, int]]
) -> tuple[float, float, str]:
    """The place about the mark that is freest and near, which is taken then; and the line that leads there, if it is far."""
    (x, y), width = point, LETTER * len(text)
    right, left = 13.0, -13 - width
    tried = [(right, -9.0), (left, -9.0), (right, 18.0), (left, 18.0), (-width / 2, -16.0), (-width / 2, 26.0)]
    tried += [
        (side, float(dy)) for far in range(30, 160, 14) for dy in (far, 6 - far) for side in (right, left, -width / 2)
    ]
    worst, chosen = math.inf, (x, y, x, y)
    for dx, dy in tried:
        box = (x + dx - 3, y + dy - LINE, x + dx + width + 3, y + dy + 4)
        if box[0] < scale.left - 12 or box[2] > scale.right + 20 or box[1] < scale.top or box[3] > scale.bottom:
            continue
        gap = math.dist(point, _nearest(point, box))
        harm = sum(weight for other, weight in boxes if _overlap(box, other)) + max(0.0, gap - NEAR) / FAR
        if harm < worst:
            worst, chosen = harm, box
        if not harm:
            break
    boxes.append((chosen, LABEL))
    end = _nearest(point, chosen)
    leader = f"M{x:.1f} {y:.1f}L{end[0]:.1f} {end[1]:.1f}" if math.dist(point, end) > NEAR else ""
    return round(chosen[0] + 3, 1), round(chosen[1] + LINE, 1), leader


def _nearest(point: tuple[float, float], box: Box) -> tuple[float, float]:
    """Of a box."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _mark(
    place: int, entry: Entry, scale: Scale, label: str, at: tuple[float, float, str], fits: bool, picked: bool
) -> ChartMark:
    assert entry.method.speed_up and entry.method.kept
    x, y = _point(entry, scale)
    title = f"{entry.name.title}: {entry.method.speed_up.value:.2f}×, {100 * entry.method.kept.value:.2f}%"
    ends = _ends(entry, scale)
    return ChartMark(place, entry.name.kind, SHAPES[entry.name.kind], title, x, y, *ends, label, *at, fits, picked)
