"""The rows of a task's table: of each method its figures with their intervals, its verdict, and what the row opens to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.measure.precision import half_width, in_words
from harness.records.figure import Figure
from harness.records.schema import Record
from harness.report.boards import page_name
from harness.report.ceiling import ceiling_fact
from harness.report.columns import p_text
from harness.report.comparability import wanted_precision
from harness.report.leaderboards import SPEED_ONLY, Entry, Leaderboard
from harness.report.pick import Limits, Pick, Ratio
from harness.report.plots import SHAPES
from harness.report.shown_speed import latencies, latency_of, throughput_of
from harness.report.speed_ratios import INTERLEAVED
from harness.report.tables import Badge


@dataclass(frozen=True)
class Shown:
    """A figure in a table. imprecise: how wide its interval is, where that is wider than the suite asks for."""

    text: str = ""
    interval: str = ""
    order: float | None = None
    imprecise: str = ""


@dataclass(frozen=True)
class Bar:
    """Of a speed-up, in percent of the widest: its value, and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MethodRow:
    """place: among the leaderboard's methods. facts: (name, value) of what the row opens to. compare: where it is compared with
    the pick."""

    place: int
    title: str
    how: str
    identifier: str
    kind: str
    shape: str
    metric: Shown
    kept: Shown
    speed: Shown
    bar: Bar | None
    p90: Shown
    size: Shown
    verdict: Badge
    picked: bool
    outside: bool
    page: str
    facts: tuple[tuple[str, str], ...]
    rerun: str
    export: str
    compare: str


def method_rows(board: Leaderboard, choice: Pick) -> Iterable[MethodRow]:
    outside = {id(method): why for method, why in choice.outside}
    ends = [m.speed_up.high or m.speed_up.value for m in board.methods if m.speed_up]
    values = [m.speed_up.value for m in board.methods if m.speed_up]
    widest = min(max(ends, default=1.0), 1.5 * max(values, default=1.0))
    for place, entry in enumerate(board.entries):
        method, record = entry.method, entry.record
        picked, why = method is choice.ship, outside.get(id(method), "")
        yield MethodRow(
            place=place,
            title=entry.name.title,
            how=entry.name.how,
            identifier=method.name,
            kind=entry.name.kind,
            shape=SHAPES[entry.name.kind],
            metric=_metric(entry),
            kept=shown_share(method.kept),
            speed=shown_speed(method.speed_up, record),
            bar=_bar(method.speed_up, widest),
            p90=_latency(entry),
            size=Shown(f"{method.size_mib:.1f}", order=method.size_mib) if method.size_mib else Shown(),
            verdict=Badge("", SPEED_ONLY) if board.subject.speed_only else _verdict(entry, why, picked),
            picked=picked,
            outside=bool(why),
            page=page_name(record),
            facts=tuple(_details(entry)),
            rerun=f"quantboard rerun {record.record_id}",
            export="" if record.speed_only else export_command(record),
            compare=board.compare_link(_with_pick(board, entry, choice)),
        )


def _with_pick(board: Leaderboard, entry: Entry, choice: Pick) -> list[Entry]:
    """The method and the pick; the pick itself stands beside the baseline, or beside any other."""
    others = [other for other in board.entries if other is not entry]
    picked = [other for other in others if other.method is choice.ship]
    baselines = [other for other in others if other.name.kind == "baseline"]
    return [entry, *[*picked, *baselines, *others][:1]]


def export_command(record: Record) -> str:
    return f"quantboard export {record.record_id} --format onnx out/"


def _verdict(entry: Entry, why: str, picked: bool) -> Badge:
    if picked:
        return Badge("best", "ship this")
    if why:
        return Badge("", why)
    if entry.name.kind == "baseline":
        return Badge("", "baseline")
    low = entry.method.kept.low if entry.method.kept else None
    sure = low is not None and low >= Limits().keep
    return Badge("ok", "fits") if sure else Badge("maybe", "fits, close call")


def shown_share(ratio: Ratio | None) -> Shown:
    if ratio is None:
        return Shown()
    interval = "" if ratio.low is None or ratio.high is None else f"{100 * ratio.low:.2f}–{100 * ratio.high:.2f}"
    exact = ratio.low == ratio.high and ratio.low is not None
    return Shown(f"{100 * ratio.value:.2f}", "" if exact else interval, ratio.value)


def shown_speed(ratio: Ratio | None, record: Record) -> Shown:
    if ratio is None:
        return Shown("no valid speed" if record.speed or record.turns else "not timed")
    figure = Figure(value=ratio.value, low=ratio.low, high=ratio.high)
    exact = ratio.low == ratio.high
    interval = "" if ratio.low is None or ratio.high is None or exact else f"{ratio.low:.2f}–{ratio.high:.2f}"
    return Shown(f"{ratio.value:.2f}×", interval, ratio.value, _imprecise(figure, record))


def _imprecise(figure: Figure, record: Record) -> str:
    width = half_width(figure)
    wide = width is not None and width > wanted_precision(record)
    return in_words(figure, wanted_precision(record)) if wide else ""


def _bar(ratio: Ratio | None, widest: float) -> Bar | None:
    if ratio is None:
        return None
    low, high = (ratio.value if end is None else end for end in (ratio.low, ratio.high))
    value, low, high = (round(100 * min(end / widest, 1.0), 1) for end in (ratio.value, low, high))
    return Bar(value, low, high)


def _metric(entry: Entry) -> Shown:
    figure = entry.method.accuracy
    if figure is None:
        return Shown()
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.2f}–{figure.high:.2f}"
    return Shown(f"{figure.value:.2f}", interval, figure.value)


def _latency(entry: Entry) -> Shown:
    value, record = entry.method.p90_ms, entry.record
    if value is None:
        return Shown()
    speed = latency_of(record)
    return Shown(
        f"{value:.1f}", order=value, imprecise=_imprecise(speed.p90_ms, record) if speed and speed.p90_ms else ""
    )


def _details(entry: Entry) -> Iterable[tuple[str, str]]:
    record, row, method = entry.record, entry.row, entry.method
    if offline := throughput_of(record):
        yield f"samples/s, batch {offline.batch_size}", f"{offline.qps.value:.1f}"
    if single := latency_of(record):
        yield latencies(single)
    load = row.comparison.speed_up
    if load:
        how = "interleaved" if load[0] == INTERLEAVED else "each measured alone"
        yield "speed-up", f"{how}, batch {load[2]}"
        if p := p_text(row.comparison.corrected_ratio(load)):
            yield "its test, Holm", p
    if p := p_text(row.comparison.corrected):
        yield "accuracy's test, Holm", p
    if len(entry.rows) > 1:
        yield "seeds", ", ".join(str(row.record.seed) for row in entry.rows)
    if record.flops:
        yield "INT8 share of the products", f"{100 * record.flops.int8_share:.1f}%"
    if share := ceiling_fact(record):
        yield "of what the processor can multiply", share
    if method.memory_mib:
        yield "peak memory, MiB", f"{method.memory_mib:.0f}"
    if record.cold_start_seconds is not None:
        yield "cold start, s", f"{record.cold_start_seconds:.2f}"
    if record.checkpoint and record.checkpoint.train_seconds:
        yield "training, min", f"{record.checkpoint.train_seconds / 60:.0f}"
    yield "suite", record.suite
    yield "measured", record.finished[:16].replace("T", " ")
