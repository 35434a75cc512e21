"""Charts as SVG, for light and dark pages."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import escape

from harness.records.schema import Record
from harness.report.boards import Board, Outline
from harness.report.compare import accuracy_of
from harness.report.plots import SHAPES, Scale, steps
from harness.report.shown_speed import throughput_of


@dataclass(frozen=True)
class Point:
    label: str
    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float


@dataclass(frozen=True)
class Theme:
    name: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    "light",
    "#1b1f24",
    "#57606a",
    "#d8dee4",
    ("#0b62c4", "#b3430f", "#1a7a3c", "#7b3fc4", "#a8641a", "#b3256e", "#2b7a8c"),
)


DARK = Theme(
    "dark",
    "#e6edf3",
    "#9aa4af",
    "#343b44",
    ("#6cb2ff", "#ff9a6b", "#5fd38a", "#c49bff", "#e0b060", "#ff86bd", "#6fd0e0"),
)


Curve = tuple[str, str, str, int]
"""Model, label, device and seed of what has a speed."""


def chart_points(board: Board, labels: Mapping[Curve, str]) -> list[Point]:
    """Accuracy against offline throughput at real lengths, of cells whose throughput is valid."""
    points = []
    for row in board.rows:
        part, speed = accuracy_of(row.record, board.split), throughput_of(row.record)
        if part is None or speed is None or not row.in_chart:
            continue
        y, x = part.metrics[part.primary], speed.qps
        points.append(
            Point(
                labels[curve_of(row.record)],
                x.value,
                x.low if x.low is not None else x.value,
                x.high if x.high is not None else x.value,
                y.value,
                y.low if y.low is not None else y.value,
                y.high if y.high is not None else y.value,
            )
        )
    return points


def curve_of(record: Record) -> Curve:
    return record.model, record.label, record.device, record.seed


def curve_labels(boards: Sequence[Board | Outline]) -> dict[Curve, str]:
    """The legend's labels for one page: the backend's label, with model, device and seed where the page has several."""
    curves = sorted({curve_of(record) for board in boards for record in board.records if record.speed})
    models = {record.model for board in boards for record in board.records}
    devices, seeds = ({curve[place] for curve in curves} for place in (2, 3))
    return {
        (model, label, device, seed): (f"{model} " if len(models) > 1 else "")
        + label
        + (f" ({device})" if len(devices) > 1 else "")
        + (f", seed {seed}" if len(seeds) > 1 else "")
        for model, label, device, seed in curves
    }


def accuracy_against_qps(points: Sequence[Point], metric: str, labels: Sequence[str]) -> dict[str, str]:
    """By theme a data URI of an SVG; error bars are 95% intervals. labels: of all points of all charts of a page; a label's
    place in it decides its colour. The chart is drawn once in the light theme's colours, which the dark one's then replace."""
    svg = _draw(points, metric, labels)
    return {theme.name: _data_uri(_recoloured(svg, theme)) for theme in (LIGHT, DARK)}


def _colours(theme: Theme) -> tuple[str, ...]:
    return theme.ink, theme.muted, theme.grid, *theme.series


def _recoloured(svg: str, theme: Theme) -> str:
    colours = dict(zip(_colours(LIGHT), _colours(theme), strict=True))
    return re.sub("|".join(colours), lambda match: colours[match.group()], svg)


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LEGEND = 800, 400, 64, 12, 48, 240
"""Of the drawing in pixels: its size, the space for axes, and the width of the legend."""


def _draw(points: Sequence[Point], metric: str, labels: Sequence[str]) -> str:
    """As SVG, laid out by hand: a plotting library takes half a second for each."""
    theme = LIGHT
    scale = _scale(points)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif"'
        f' font-size="13" fill="{theme.ink}">'
    ]
    for value in steps(scale.y_low, scale.y_high, 7):
        y = scale.y(value)
        lines.append(f'<path d="M{scale.left} {y}H{scale.right}" stroke="{theme.grid}"/>')
        lines.append(f'<text x="{scale.left - 8}" y="{y + 4}" text-anchor="end" fill="{theme.muted}">{value:g}</text>')
    for value in steps(0.0, scale.x_high, 7):
        x = scale.x(value)
        lines.append(f'<path d="M{x} {scale.top}V{scale.bottom}" stroke="{theme.grid}"/>')
        text = f'<text x="{x}" y="{scale.bottom + 18}" text-anchor="middle" fill="{theme.muted}">{value:g}</text>'
        lines.append(text)
    title = "samples per second, offline, real lengths (right is faster)"
    lines.append(f'<text x="{scale.right}" y="{HEIGHT - 8}" text-anchor="end">{title}</text>')
    middle = (scale.top + scale.bottom) / 2
    turned = f'transform="rotate(-90 14 {middle})" text-anchor="middle"'
    lines.append(f'<text x="14" y="{middle}" {turned}>{escape(metric)}, % (up is better)</text>')
    for place, point in enumerate(points):
        lines += _point(point, labels.index(point.label), scale)  # a label keeps its colour in every chart of the page
        lines += _legend(point, labels.index(point.label), 20 + 22 * place, scale.right + 24)
    return "".join([*lines, "</svg>"])


def _scale(points: Sequence[Point]) -> Scale:
    x_high = max(point.x_high for point in points)
    low, high = min(point.y_low for point in points), max(point.y_high for point in points)
    margin = 0.05 * (high - low) or 1.0
    frame = (LEFT, WIDTH - LEGEND, TOP, HEIGHT - BOTTOM)
    return Scale(*frame, 0.0, 1.05 * x_high or 1.0, low - margin, high + margin)


def _mark(index: int) -> str:
    """The mark and colour of a label."""
    shapes = list(SHAPES.values())
    return f'd="{shapes[index % len(shapes)]}" fill="{LIGHT.series[index % len(LIGHT.series)]}"'


def _point(point: Point, index: int, scale: Scale) -> Iterable[str]:
    x, y, colour = scale.x(point.x), scale.y(point.y), LIGHT.series[index % len(LIGHT.series)]
    cross = f"M{scale.x(point.x_low)} {y}H{scale.x(point.x_high)}M{x} {scale.y(point.y_low)}V{scale.y(point.y_high)}"
    yield f'<path d="{cross}" stroke="{colour}" stroke-width="1.5"/>'
    yield f'<path transform="translate({x} {y})" {_mark(index)}/>'


def _legend(point: Point, index: int, y: float, x: float) -> Iterable[str]:
    yield f'<path transform="translate({x} {y})" {_mark(index)}/>'
    yield f'<text x="{x + 14}" y="{y + 4}">{escape(point.label)}</text>'
