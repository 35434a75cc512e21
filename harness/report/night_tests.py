"""One speed-up a night of every cell, and the tests whether a night is slower than those before it: what the gate fails by, and
what the page of a history marks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from harness.measure.nights import Night, Spread, change, night, quantile, spread, uncertainty
from harness.measure.paired import PairedTest
from harness.records.schema import Record
from harness.records.store import order
from harness.report.comparability import machine_of
from harness.report.compare import baseline_of
from harness.report.speed_ratios import disturbance, interleaved_conditions, shared_rounds

NIGHTS = 10
"""How many earlier nights of a cell are compared with, the newest."""

FALSE_ALARMS = 0.005
"""Chance that a night in which nothing changed fails, by either kind of test."""

Key = tuple[Any, ...]
MACHINE = 5
"""The place of the machine in a key. How nights differ is a property of it."""


def cell_of(record: Record) -> Key:
    """The cell, whatever the versions of code and libraries."""
    cell = (record.suite, record.task, record.model, record.label, record.seed)
    return (*cell, machine_of(record))


def newest_of(records: Iterable[Record]) -> dict[Key, Record]:
    return {cell_of(record): record for record in sorted(records, key=order)}


def nights_of(records: Sequence[Record], untested: dict[str, str]) -> dict[Key, dict[str, Night]]:
    """By cell and load, each night by its record id, in order. Adds why a record has none to `untested`."""
    found: dict[Key, dict[str, Night]] = {}
    in_order = sorted(records, key=lambda record: (record.run_id, order(record)))
    for _, run in groupby(in_order, key=lambda record: record.run_id):
        latest = list(newest_of(run).values())
        bases: dict[tuple[str, int], list[Record]] = {}
        for record in latest:
            if record.baseline:
                bases.setdefault((record.task, record.seed), []).append(record)
        for record in latest:
            base = baseline_of(record, bases.get((record.task, record.seed), ()))
            if base is record or not record.turns:
                continue
            if base is None:
                untested[record.record_id] = "its run has no baseline"
                continue
            for turns in record.turns:
                conditions = interleaved_conditions(record, turns)
                other = next((part for part in base.turns if interleaved_conditions(base, part) == conditions), None)
                rounds = shared_rounds(turns, other) if other else []
                if (
                    why := disturbance([round_ for round_, _ in rounds])
                    if rounds
                    else "no round shared with its baseline"
                ):
                    untested[record.record_id] = why
                elif one := night([b.seconds / a.seconds for a, b in rounds]):
                    cell = (*cell_of(record), turns.load, turns.batch_size, turns.sequence_length)
                    found.setdefault(cell, {})[record.record_id] = one
                else:
                    untested[record.record_id] = "one round shared with its baseline"
    return dict(sorted(found.items(), key=str))


def spreads(nights: Mapping[Key, Mapping[str, Night]], machines: Iterable[str]) -> dict[str, Spread]:
    """How the newest nights differ, by machine."""
    return {
        machine: spread(list(own.values())[-NIGHTS:] for key, own in nights.items() if key[MACHINE] == machine)
        for machine in machines
    }


def slow_downs(old: Sequence[Night], fresh: Sequence[Night], between: Spread) -> list[tuple[str, PairedTest]]:
    """A cell's newest night against those before, and the mean of its last two against the rest: which, and the test. old:
    nights of the reference; fresh: those since."""
    tests = []
    old = old[-NIGHTS:]
    if old:
        tests.append(("tonight", change(fresh[-1:], old, between)))
    two, rest = ([*old, *fresh][-2:], [*old, *fresh][:-2])
    if len(rest) >= 2:
        tests.append(("last two nights", change(two, rest, between)))
    return tests


def is_slower(test: PairedTest, p: float | None, max_slowdown: float) -> bool:
    """Significantly, and not surely by less than the limit. p: corrected."""
    return p is not None and p < FALSE_ALARMS and test.low is not None and test.low <= 1 - max_slowdown


def fails_below(
    one: Night, old: Sequence[Night], between: Spread, max_slowdown: float, tests: int
) -> tuple[float, ...]:
    """The speed-ups below which this night fails against those of the reference: by itself and, where `slow_downs` tests that, by
    its mean with the night before; if no other test of its run has a smaller p. one: what counts is its error. tests: of the run,
    which the smallest p is corrected for."""
    old = old[-NIGHTS:]
    limits = [_lowest([one], old, between, max_slowdown, tests)]
    if len(old) > 2:
        *rest, last = old
        limits.append(2 * _lowest([last, one], rest, between, max_slowdown, tests) - last.value)
    return tuple(map(math.exp, limits))


def _lowest(new: Sequence[Night], old: Sequence[Night], between: Spread, max_slowdown: float, tests: int) -> float:
    """The mean of logarithms below which the new nights are slower."""
    error, freedom = uncertainty(new, old, between)
    significant = quantile(freedom, FALSE_ALARMS / tests) * error
    relevant = math.log(1 - max_slowdown) + quantile(freedom, 0.975) * error
    return statistics.fmean(night.value for night in old) + min(significant, relevant)
