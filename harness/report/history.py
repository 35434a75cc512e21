"""The methods of a leaderboard night by night: speed-up, accuracy and latency, how each night was judged, and what changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.measure.change_points import change_points, deviation
from harness.measure.nights import Night
from harness.measure.paired import PairedTest
from harness.records.figure import Figure
from harness.records.schema import Record
from harness.report.compare import accuracy_of
from harness.report.judged import Judged, Nights
from harness.report.leaderboards import Entry, Leaderboard
from harness.report.shown_speed import latency_of

UNTOLD = ("memory_bytes", "python")
"""Parts of a machine whose change is not told: memory differs a little between boots, Python stands among the libraries."""


@dataclass(frozen=True)
class NightPoint:
    """What a history shows of a night. what: how it was judged: `first`, `pass`, `slower`, `not judged`, `failed` or `skipped`.
    below: the speed-ups below which the gate fails, as of `fails_below`. changes: (`commit`, `library` or `machine`; what changed since the night before)."""

    record: Record
    date: str
    what: str
    why: str
    speed: Figure | None
    against: PairedTest | None
    below: tuple[float, ...]
    metric: Figure | None
    p90: Figure | None
    changes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class History:
    """points: the oldest first. levels: the places of points that begin a new level of the speed-up."""

    entry: Entry
    points: tuple[NightPoint, ...]
    levels: tuple[int, ...]


def with_nights(board: Leaderboard, nights: Nights) -> list[Entry]:
    """The methods that were measured in at least two nights."""
    return [entry for entry in board.entries if nights.count(entry.record) > 1]


def histories(board: Leaderboard, nights: Nights) -> list[History]:
    """Of the methods that were measured in at least two nights."""
    entries = with_nights(board, nights)
    points = {id(entry): tuple(_points(nights.judged(entry.record), board.subject.split)) for entry in entries}
    series = {name: [math.log(p.speed.value) for p in own if p.speed] for name, own in points.items()}
    noise = deviation(series.values())
    found = []
    for entry in entries:
        own = points[id(entry)]
        places = [at for at, point in enumerate(own) if point.speed]
        levels = tuple(places[at] for at in change_points(series[id(entry)], noise))
        found.append(History(entry, own, levels))
    return found


def level_change(history: History, place: int) -> float:
    """By how much the speed-up changed at a level's first night, as a share: means of logarithms before and after."""
    ends = [0, *history.levels, len(history.points)]
    at = ends.index(place, 1)

    def mean(low: int, high: int) -> float:
        logs = [math.log(point.speed.value) for point in history.points[low:high] if point.speed]
        return sum(logs) / len(logs)

    return math.exp(mean(ends[at], ends[at + 1]) - mean(ends[at - 1], ends[at])) - 1


def _points(judged: Sequence[Judged], split: str) -> Iterable[NightPoint]:
    changes = [(), *(tuple(what_changed(a.record, b.record)) for a, b in pairwise(judged))]
    dates = [each.record.finished[:10] for each in judged]
    for each, changed, date in zip(judged, changes, dates, strict=True):
        record = each.record
        part = accuracy_of(record, split)
        single = latency_of(record)
        yield NightPoint(
            record=record,
            date=date if dates.count(date) == 1 else f"{date} {record.finished[11:16]}",
            what=_what(each),
            why=each.why or (record.why if not record.measured else ""),
            speed=_figure(each.night) if each.night else None,
            against=each.against,
            below=each.below if each.night else (),
            metric=part.metrics[part.primary] if part else None,
            p90=single.p90_ms if single else None,
            changes=changed,
        )


def _what(each: Judged) -> str:
    if not each.record.measured:
        return each.record.status
    if each.night is None:
        return "baseline" if each.record.baseline else "not judged"
    if each.against is None:
        return "first"
    return "slower" if each.slower else "pass"


def _figure(night: Night) -> Figure:
    """A speed-up with Student's t interval over the rounds of its night."""
    from scipy.special import stdtrit

    half = float(stdtrit(night.rounds - 1, 0.975)) * night.error
    low, value, high = (math.exp(end) for end in (night.value - half, night.value, night.value + half))
    return Figure(value=value, low=low, high=high)


def what_changed(before: Record, after: Record) -> Iterable[tuple[str, str]]:
    if before.commit != after.commit:
        yield "commit", (after.commit or "none")[:7] + (", uncommitted changes" if after.dirty else "")
    for name, version in after.software.items():
        if before.software.get(name, version) != version:
            yield "library", f"{name} {before.software[name]} → {version}"
    yield from _machine_changes(before.machine, after.machine)


def _machine_changes(before: Mapping[str, object], after: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    """What of a machine may change without its becoming another: kernel, microcode, driver."""
    for name, value in after.items():
        old = before.get(name, value)
        if old != value and name not in UNTOLD:
            plain = isinstance(value, str | int | float) and isinstance(old, str | int | float)
            yield "machine", f"{name.replace('_', ' ')} {old} → {value}" if plain else name.replace("_", " ")
