"""The chart of a figure by night: the figure with the band of its 95% interval, how each night was judged, what changed, and
where the level changed. An SVG, laid out when the site is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.records.figure import Figure
from harness.report.history import NightPoint
from harness.report.plots import steps

CHANGES = ("commit", "library", "machine")
"""The rows of marks below the chart, from the top."""

TEXTS = {"wide": 8, "narrow": 3}
"""How many dates stand below a chart."""


@dataclass(frozen=True)
class NightMark:
    """A night's figure. what: how it was judged, which decides the mark."""

    x: float
    y: float
    what: str
    title: str


@dataclass(frozen=True)
class ChangeMark:
    kind: str
    x: float
    y: float
    title: str


@dataclass(frozen=True)
class HistoryChart:
    """band: outline of the intervals. levels: (x, text, x of the text, which end of it stands there) of new levels. gate: steps of the speed-up below which a night fails; empty
    of another figure. rows: (height, name)."""

    name: str
    label: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    y_ticks: tuple[tuple[float, str], ...]
    x_ticks: tuple[tuple[float, str, str], ...]
    band: str
    line: str
    gate: str
    marks: tuple[NightMark, ...]
    changes: tuple[ChangeMark, ...]
    rows: tuple[tuple[float, str], ...]
    levels: tuple[tuple[float, str, float, str], ...]


def history_charts(
    points: Sequence[NightPoint],
    figures: Sequence[Figure | None],
    label: str,
    unit: str,
    levels: Sequence[tuple[int, str]] = (),
    gate: Sequence[float | None] = (),
) -> tuple[HistoryChart, ...]:
    """For wide and for narrow screens; none of fewer than two figures. figures: of the points. levels: (place, text). gate: where each night would fail."""
    if sum(figure is not None for figure in figures) < 2:
        return ()
    return tuple(
        _chart(points, figures, label, unit, levels, gate, name, *size)
        for name, *size in (("wide", 1120.0, 300.0), ("narrow", 340.0, 260.0))
    )


def _chart(
    points: Sequence[NightPoint],
    figures: Sequence[Figure | None],
    label: str,
    unit: str,
    levels: Sequence[tuple[int, str]],
    gate: Sequence[float | None],
    name: str,
    width: float,
    height: float,
) -> HistoryChart:
    left, right, top, bottom = 64.0, width - 12, 28.0 if levels else 12.0, height - 68
    low, high = _ends([figure for figure in figures if figure], [value for value in gate if value])
    slot = (right - left) / len(points)

    def x(place: float) -> float:
        return round(left + (place + 0.5) * slot, 1)

    def y(value: float) -> float:
        share = min(max((high - value) / (high - low), 0.0), 1.0)
        return round(top + share * (bottom - top), 1)

    shown = [(place, figure) for place, figure in enumerate(figures) if figure]
    upper = [f"{x(place)} {y(figure.value if figure.high is None else figure.high)}" for place, figure in shown]
    lower = [f"{x(place)} {y(figure.value if figure.low is None else figure.low)}" for place, figure in shown]
    every = -(-len(points) // TEXTS[name])
    return HistoryChart(
        name=name,
        label=label,
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        y_ticks=tuple((y(value), f"{value:g}{unit}") for value in steps(low, high, 5)),
        x_ticks=tuple(
            (x(place), _date(point, name), "end" if place == len(points) - 1 and place else "middle")
            for place, point in enumerate(points)
            if (len(points) - 1 - place) % every == 0
        ),
        band=f"M{'L'.join([*upper, *reversed(lower)])}Z",
        line=f"M{'L'.join(f'{x(place)} {y(figure.value)}' for place, figure in shown)}",
        gate=" ".join(
            f"M{x(place - 0.5)} {y(value)}H{x(place + 0.5)}"
            for place, value in enumerate(gate)
            if value and low <= value <= high
        ),
        marks=tuple(
            NightMark(
                x(place),
                y(figure.value),
                points[place].what,
                f"{points[place].date}: {figure.value:.2f}{unit}, {points[place].what}",
            )
            for place, figure in shown
        ),
        changes=tuple(
            ChangeMark(kind, x(place), bottom + 16 + 14 * CHANGES.index(kind), f"{point.date}: {what}")
            for place, point in enumerate(points)
            for kind, what in dict(reversed(point.changes)).items()
        ),
        rows=tuple((bottom + 16 + 14 * place, word) for place, word in enumerate(CHANGES)),
        levels=tuple(_level(x(place - 0.5), text, left, right) for place, text in levels),
    )


def _date(point: NightPoint, name: str) -> str:
    """What stands below a night: month and day, with the time where the day has several. A narrow chart has no room for both."""
    day, time = point.date[5:10], point.date[11:]
    return time or day if name == "narrow" else f"{day} {time}".strip()


def _ends(figures: Sequence[Figure], gate: Sequence[float]) -> tuple[float, float]:
    """Wide enough for all figures; a very wide interval and a very distant gate are cut off."""
    values = [figure.value for figure in figures]
    lows = [figure.value if figure.low is None else figure.low for figure in figures]
    highs = [figure.value if figure.high is None else figure.high for figure in figures]
    spread = max(max(values) - min(values), 0.02 * abs(max(values)), 1e-6)
    low, high = max(min([*lows, *gate]), min(values) - 2 * spread), min(max([*highs, *gate]), max(values) + 2 * spread)
    pad = 0.06 * max(high - low, spread)
    return low - pad, high + pad


def _level(x: float, text: str, left: float, right: float) -> tuple[float, str, float, str]:
    if right - left < 400:  # too narrow for a text on one side of the line
        return x, text, right, "end"
    return (x, text, x + 6, "start") if x < (left + right) / 2 else (x, text, x - 6, "end")
