"""The gate: whether tonight's records are worse than those of earlier nights, and by how much.

A cell is worse where it lost accuracy or speed significantly and not surely by less than the limit allows, or where its row
was good and is now invalid, failed or skipped. p-values are corrected over all of a gate's tests (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harness.measure.paired import PairedTest, differences, holm
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report.comparability import examples_of, has_valid_accuracy, machine_of
from harness.report.compare import accuracy_of
from harness.report.night_tests import (
    FALSE_ALARMS,
    MACHINE,
    Key,
    is_slower,
    newest_of,
    nights_of,
    slow_downs,
    spreads,
)


@dataclass(frozen=True)
class Limits:
    """max_slowdown: share of speed. max_loss: points of the primary metric."""

    max_slowdown: float = 0.05
    max_loss: float = 0.5


@dataclass(frozen=True)
class Check:
    """One comparison of a cell. words: what was found, for people. p: corrected over the gate's checks."""

    record: Record
    kind: Literal["row", "accuracy", "speed"]
    worse: bool
    words: str
    test: PairedTest | None = None
    p: float | None = None


@dataclass(frozen=True)
class Gate:
    """checks: what was compared. untested: by record id, why a cell's speed was not. absent: rows of the reference that were
    not measured again."""

    checks: tuple[Check, ...]
    untested: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[Record, ...] = ()

    @property
    def worse(self) -> list[Check]:
        return [check for check in self.checks if check.worse]


def gate(new: Sequence[Record], reference: Sequence[Record], stored: ScoreStore, limits: Limits) -> Gate:
    """new: records since the reference. reference: records of earlier nights. Of each the newest of a cell counts as its state,
    and each run as a night."""
    tonight, before = newest_of(new), newest_of(reference)
    rows = [_row(record, before[key]) for key, record in tonight.items() if key in before]
    speed, untested = _speed_checks(new, reference, limits)
    accuracy = _accuracy_checks(tonight, before, stored, limits)
    suites = {(record.suite, machine_of(record)) for record in new}
    absent = [
        record
        for key, record in before.items()
        if key not in tonight and record.measured and (record.suite, machine_of(record)) in suites
    ]
    return Gate((*filter(None, rows), *accuracy, *speed), untested, tuple(absent))


def _row(record: Record, before: Record) -> Check | None:
    """A row that was good and is not any more."""
    good = before.standing == "ok"
    if not good or record.standing == "ok":
        return None
    reason = f": {' '.join(record.why.split())[:200]}" if record.why else ""
    return Check(record, "row", True, f"was ok, is {record.standing}{reason}")


def _accuracy_checks(
    tonight: Mapping[Key, Record], before: Mapping[Key, Record], stored: ScoreStore, limits: Limits
) -> list[Check]:
    tests: list[tuple[Record, str, PairedTest]] = []
    for key, record in tonight.items():
        other = before.get(key)
        if other is None or not (has_valid_accuracy(record) and has_valid_accuracy(other)):
            continue
        if examples_of(record) != examples_of(other):
            continue
        for part in record.accuracy:
            theirs = accuracy_of(other, part.split)
            scores = stored.scores(record, part.split), stored.scores(other, part.split)
            if theirs is None or scores[0] is None or scores[1] is None:
                continue
            (test,) = differences([scores[0], scores[1]], part.primary, [(0, 1)])
            tests.append((record, f"{part.primary} of {part.split}", test))
    checks = []
    for (record, what, test), p in zip(tests, holm([test.p for _, _, test in tests]), strict=True):
        lost = p is not None and p < FALSE_ALARMS and test.value < 0
        worse = lost and test.low is not None and test.low <= -limits.max_loss
        ends = f" [{test.low:+.2f}, {test.high:+.2f}]" if test.low is not None and test.high is not None else ""
        checks.append(Check(record, "accuracy", worse, f"{what}: {test.value:+.2f}{ends} points", test, p))
    return checks


def _speed_checks(
    new: Sequence[Record], reference: Sequence[Record], limits: Limits
) -> tuple[list[Check], dict[str, str]]:
    """Speed-ups over the baseline of the same rounds, so that a slower machine does not look like a slower engine."""
    untested: dict[str, str] = {}
    earlier, later = nights_of(reference, {}), nights_of(new, untested)
    between = spreads(earlier, {key[MACHINE] for key in later})
    by_id = {record.record_id: record for record in new}
    tests = [
        (by_id[list(nights)[-1]], words, test)
        for cell, nights in later.items()
        for words, test in slow_downs(
            list(earlier.get(cell, {}).values()), list(nights.values()), between[cell[MACHINE]]
        )
    ]
    checks = []
    for (record, nights_words, test), p in zip(tests, holm([test.p for _, _, test in tests]), strict=True):
        assert test.low is not None and test.high is not None
        worse = is_slower(test, p, limits.max_slowdown)
        percent = [100 * (value - 1) for value in (test.value, test.low, test.high)]
        words = f"speed-up, {nights_words}: {percent[0]:+.1f}% [{percent[1]:+.1f}, {percent[2]:+.1f}]"
        checks.append(Check(record, "speed", worse, words, test, p))
    return checks, untested
