"""Where the marks of a chart of share kept against speed-up stand: coordinates of an SVG, laid out when the site is built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.pick import Method

SHAPES = {
    "baseline": "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z",
    "float": "M0,-6.2L6.2,0L0,6.2L-6.2,0Z",
    "static": "M-4.8,-4.8H4.8V4.8H-4.8Z",
    "dynamic": "M0,-6L5.8,4.6H-5.8Z",
    "trained": "M-2.1,-5.6H2.1V-2.1H5.6V2.1H2.1V5.6H-2.1V2.1H-5.6V-2.1H-2.1Z",
}
"""A path about (0, 0) by the kind of a method: circle, diamond, square, triangle, cross. Colour alone says nothing."""


@dataclass(frozen=True)
class Mark:
    """A method at (x, y). clamped: its share lies outside the chart, above (-1) or below (1). machine: 0 is filled, others are
    hollow."""

    x: float
    y: float
    kind: str
    shape: str
    title: str
    machine: int = 0
    picked: bool = False
    clamped: int = 0


def drawn(methods: Sequence[Method]) -> list[Method]:
    """Those that have both figures of the chart."""
    return [method for method in methods if method.kept and method.speed_up]


def frontier(methods: Sequence[Method]) -> list[Method]:
    """Those that no other beats in both speed and share kept, the slowest first."""

    def figures(method: Method) -> tuple[float, float]:
        assert method.speed_up and method.kept
        return method.speed_up.value, method.kept.value

    found = []
    for method in sorted(drawn(methods), key=figures):
        speed, kept = figures(method)
        others = [figures(other) for other in drawn(methods) if other is not method]
        if not any(s >= speed and k >= kept and (s, k) != (speed, kept) for s, k in others):
            found.append(method)
    return found


def steps(low: float, high: float, most: int) -> list[float]:
    """Round values between two ends, at most so many."""
    step = next(s * 10.0**e for e in range(-4, 6) for s in (1, 2, 5) if (high - low) / (s * 10.0**e) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 6) for number in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Scale:
    """From figures to coordinates. left, right, top, bottom: of the plot; x_low .. y_high: the figures at its edges."""

    left: float
    right: float
    top: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, speed: float) -> float:
        share = (speed - self.x_low) / (self.x_high - self.x_low)
        return round(self.left + min(max(share, 0.0), 1.0) * (self.right - self.left), 1)

    def y(self, kept: float) -> float:
        share = (self.y_high - kept) / (self.y_high - self.y_low)
        return round(self.top + min(max(share, 0.0), 1.0) * (self.bottom - self.top), 1)

    def path(self, methods: Sequence[Method]) -> str:
        """The frontier as steps: what is kept at most at each speed. Empty of fewer than two."""
        points = [(self.x(m.speed_up.value), self.y(m.kept.value)) for m in frontier(methods) if m.speed_up and m.kept]
        if len(points) < 2:
            return ""
        steps = "".join(f"V{y:g}H{x:g}" for x, y in points)
        return f"M{self.left:g} {points[0][1]:g}{steps}V{self.bottom:g}"
