"""Charts as SVG, for light and dark pages."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.schema import Record
from harness.report.boards import Board
from harness.report.compare import accuracy_of, speed_of


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
        part, speed = accuracy_of(row.record, board.split), speed_of(row.record, "offline", "real")
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


def curve_labels(boards: Sequence[Board]) -> dict[Curve, str]:
    """The legend's labels for one page: the backend's label, with model, device and seed where the page has several."""
    curves = sorted({curve_of(row.record) for board in boards for row in board.rows if row.record.speed})
    models = {row.record.model for board in boards for row in board.rows}
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


def _draw(points: Sequence[Point], metric: str, labels: Sequence[str]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    theme = LIGHT
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "quantboard",
        "font.family": "sans-serif",
        "font.sans-serif": ["system-ui", "sans-serif", "DejaVu Sans"],
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.grid,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(8, 4.2), layout="constrained")  # pyplot would take a second to import
        axes = figure.add_subplot()
        markers = "osD^vPX"
        for point in points:
            index = labels.index(point.label)  # a label keeps its colour in every chart of the page
            axes.errorbar(
                [point.x],
                [point.y],
                xerr=[[max(0.0, point.x - point.x_low)], [max(0.0, point.x_high - point.x)]],
                yerr=[[max(0.0, point.y - point.y_low)], [max(0.0, point.y_high - point.y)]],
                fmt=markers[index % len(markers)],
                color=theme.series[index % len(theme.series)],
                label=point.label,
                markersize=8,
                capsize=3,
                linewidth=1.2,
            )
        axes.set_xlabel("samples per second, offline, real lengths (right is faster)")
        axes.set_ylabel(f"{metric}, % (up is better)")
        axes.set_xlim(left=0)
        axes.grid(color=theme.grid, linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue().decode()
