"""The methods of a leaderboard night by night: speed-up, accuracy and latency, how each night was judged, and what changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from harness.measure.change_points import change_points, deviation
from harness.measure.nights import Night, Spread
from harness.measure.paired import PairedTest, holm
from harness.records.figure import Figure
from harness.records.schema import Record
from harness.records.store import order
from harness.report.compare import accuracy_of
from harness.report.gate import Limits
from harness.report.leaderboards import Entry, Leaderboard
from harness.report.methods import compared_turns
from harness.report.night_tests import (
    MACHINE,
    NIGHTS,
    Key,
    cell_of,
    is_slower,
    newest_of,
    nights_of,
    slow_downs,
    spreads,
)
from harness.report.shown_speed import latency_of

UNTOLD = ("memory_bytes", "python")
"""Parts of a machine whose change is not told: memory differs a little between boots, Python stands among the libraries."""


@dataclass(frozen=True)
class Judged:
    """A night of a cell. night: its speed-up; None where it was not compared, and why. against: the test with the nights before,
    of several the one that fails; None of the first. slower: it fails the gate's rule."""

    record: Record
    night: Night | None
    why: str = ""
    against: PairedTest | None = None
    slower: bool = False


@dataclass(frozen=True)
class NightPoint:
    """What a history shows of a night. what: how it was judged: `first`, `pass`, `slower`, `not judged`, `failed` or `skipped`.
    changes: (`commit`, `library` or `machine`; what changed since the night before)."""

    record: Record
    date: str
    what: str
    why: str
    speed: Figure | None
    against: PairedTest | None
    metric: Figure | None
    p90: Figure | None
    changes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class History:
    """points: the oldest first. levels: the places of points that begin a new level of the speed-up."""

    entry: Entry
    points: tuple[NightPoint, ...]
    levels: tuple[int, ...]


class Nights:
    """All nights of all cells, judged. Every night is compared with all before it, as `quantboard gate` compares it, with
    Holm's correction over its run."""

    def __init__(self, records: Sequence[Record], limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._by_cell: dict[Key, list[Record]] = {}
        in_order = sorted(records, key=lambda record: (record.run_id, order(record)))
        for _, run in groupby(in_order, key=lambda record: record.run_id):
            for cell, record in newest_of(run).items():
                self._by_cell.setdefault(cell, []).append(record)
        often = [record for own in self._by_cell.values() if len(own) > 1 for record in own]
        needed = {record.run_id for record in often}
        self._untested: dict[str, str] = {}
        self._nights = nights_of([record for record in in_order if record.run_id in needed], self._untested)
        self._judged = self._judge(in_order)

    def between(self, machine: str) -> Spread:
        """How the speed-ups of one cell differ between runs on a machine, from all cells that were measured more than once."""
        return spreads(self._nights, [machine])[machine]

    def records_of(self, record: Record) -> list[Record]:
        """All nights of its cell, the oldest first."""
        return self._by_cell.get(cell_of(record), [])

    def judged(self, record: Record) -> list[Judged]:
        """All nights of the record's cell under the load that tables compare, the oldest first."""
        turns = compared_turns(record)
        load = (turns.load, turns.batch_size, turns.sequence_length) if turns else ()
        own = self._nights.get((*cell_of(record), *load), {})
        found = []
        for one in self.records_of(record):
            key = (one.record_id, *load)
            night = own.get(one.record_id)
            why = self._untested.get(one.record_id, "") if night is None else ""
            found.append(self._judged.get(key, Judged(one, night, why)))
        return found

    def _judge(self, in_order: Sequence[Record]) -> dict[Key, Judged]:
        """By record id and load."""
        by_id = {record.record_id: record for record in in_order}
        by_run: dict[str, list[tuple[Key, str]]] = {}
        for cell, nights in self._nights.items():
            for record_id in nights:
                by_run.setdefault(by_id[record_id].run_id, []).append((cell, record_id))
        before: dict[Key, dict[str, Night]] = {}
        judged: dict[Key, Judged] = {}
        for run_id in sorted(by_run):
            between = spreads(before, {cell[MACHINE] for cell, _ in by_run[run_id]})
            tests = [
                (cell, record_id, test)
                for cell, record_id in by_run[run_id]
                for _, test in slow_downs(
                    list(before.get(cell, {}).values()), [self._nights[cell][record_id]], between[cell[MACHINE]]
                )
            ]
            corrected = holm([test.p for _, _, test in tests])
            for cell, record_id in by_run[run_id]:
                judged[(record_id, *cell[MACHINE + 1 :])] = Judged(by_id[record_id], self._nights[cell][record_id])
            for (cell, record_id, test), p in zip(tests, corrected, strict=True):
                key = (record_id, *cell[MACHINE + 1 :])
                slower = is_slower(test, p, self._limits.max_slowdown)
                if judged[key].against is None or slower:
                    judged[key] = replace(judged[key], against=test, slower=slower or judged[key].slower)
            for cell, record_id in by_run[run_id]:
                kept = before.setdefault(cell, {})
                kept[record_id] = self._nights[cell][record_id]
                if len(kept) > NIGHTS:
                    del kept[next(iter(kept))]
        return judged


def histories(board: Leaderboard, nights: Nights) -> list[History]:
    """Of the methods that were measured in at least two nights."""
    points = {
        id(entry): tuple(_points(nights.judged(entry.record), board.subject.split))
        for entry in board.entries
        if len(nights.records_of(entry.record)) > 1
    }
    series = {name: [math.log(p.speed.value) for p in own if p.speed] for name, own in points.items()}
    noise = deviation(series.values())
    found = []
    for entry in board.entries:
        if own := points.get(id(entry)):
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
