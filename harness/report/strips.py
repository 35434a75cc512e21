"""Pictures of a few figures on one scale: a line each, with its interval, its rounds, and the value in words. SVGs without a
view box, whose places along the line are percent of its width, so that marks stay round on any screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.report.plots import steps

TICKS = 4
"""At most so many below a picture."""

HEIGHT, A_ROUND, MOST = 22, 2, 12
"""Of a line in pixels, what each round adds to 16, and how many of them do so."""


@dataclass(frozen=True)
class Line:
    """Figures before they have a place. dots: (value, what it is) in order. rules: (value, kind) of lines across it, `zero` or `limit`.
    text: the figure in words."""

    label: str
    text: str
    interval: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    kind: str = "static"
    imprecise: str = ""
    dots: Sequence[tuple[float, str]] = ()
    rules: Sequence[tuple[float, str]] = ()
    hollow: bool = False


@dataclass(frozen=True)
class Dot:
    """A round. x in percent, y and radius in pixels."""

    x: float
    y: float
    radius: float
    title: str


@dataclass(frozen=True)
class Strip:
    """x, low, high: in percent of the line; None where the line has none. width: from low to high. kind: of the method, which decides
    the colour."""

    label: str
    text: str
    interval: str
    imprecise: str
    kind: str
    hollow: bool
    height: int
    x: float | None
    low: float | None
    high: float | None
    width: float
    dots: tuple[Dot, ...]
    rules: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Strips:
    """form: an interval is a whisker with a point (`interval`), a band with a tick (`rounds`), or a bar from the left (`bar`). ticks:
    (x in percent, text, which end of the text stands there)."""

    form: Literal["interval", "rounds", "bar"]
    rows: tuple[Strip, ...]
    ticks: tuple[tuple[float, str, str], ...]


def strips(
    lines: Sequence[Line],
    form: Literal["interval", "rounds", "bar"],
    unit: str = "",
    *,
    include: Iterable[float] = (),
    ends: tuple[float, float] | None = None,
) -> Strips | None:
    """include: values that have to be on the scale. ends: of the scale, where they are given. None without anything to show."""
    values = [value for line in lines for value in _values(line)]
    if not values:
        return None
    least, most = ends or _ends(lines, [*values, *include])
    length = most - least

    def x(value: float) -> float:
        return round(min(max(100 * (value - least) / length, 0.0), 100.0), 1)

    marks = steps(least, most, TICKS)
    return Strips(form, tuple(_strip(line, x) for line in lines), tuple(_tick(x(mark), mark, unit) for mark in marks))


def _values(line: Line) -> list[float]:
    return [*([line.value] if line.value is not None else []), *(value for value, _ in line.dots)]


def _ends(lines: Sequence[Line], values: Sequence[float]) -> tuple[float, float]:
    """Wide enough for all figures; a very wide interval is cut off."""
    whole = [*values, *(value for line in lines for value, _ in line.rules)]
    span = max(whole) - min(whole) or abs(whole[0]) or 1.0
    lows = [line.low for line in lines if line.low is not None]
    highs = [line.high for line in lines if line.high is not None]
    least = max(min([*whole, *lows]), min(whole) - span)
    most = min(max([*whole, *highs]), max(whole) + span)
    pad = 0.04 * (most - least or span)
    return least - pad if least else least, most + pad


def _strip(line: Line, x: Callable[[float], float]) -> Strip:
    height = max(HEIGHT, 16 + A_ROUND * min(len(line.dots), MOST))
    step = (height - 10) / max(len(line.dots) - 1, 1)
    first = 5.0 if len(line.dots) > 1 else height / 2
    low, high = (None if end is None else x(end) for end in (line.low, line.high))
    return Strip(
        label=line.label,
        text=line.text,
        interval=line.interval,
        imprecise=line.imprecise,
        kind=line.kind,
        hollow=line.hollow,
        height=height,
        x=None if line.value is None else x(line.value),
        low=low,
        high=high,
        width=0.0 if low is None or high is None else round(high - low, 1),
        dots=tuple(
            Dot(x(value), round(first + step * place, 1), 3.5 if len(line.dots) <= MOST else 2.5, title)
            for place, (value, title) in enumerate(line.dots)
        ),
        rules=tuple((x(value), kind) for value, kind in line.rules),
    )


def _tick(x: float, value: float, unit: str) -> tuple[float, str, str]:
    text = f"{value:g}{unit}".replace("-", "\N{MINUS SIGN}")
    return x, text, "start" if x < 4 else "end" if x > 96 else "middle"
