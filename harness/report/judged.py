"""All nights of all cells, judged: each is compared with those before it, as `quantboard gate` compares it, with Holm's correction
over its run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from harness.measure.nights import Night, Spread, contribution, pooled
from harness.measure.paired import PairedTest, holm
from harness.records.schema import Record
from harness.records.store import order
from harness.report.gate import Limits
from harness.report.methods import compared_turns
from harness.report.night_tests import MACHINE, NIGHTS, Key, cell_of, fails_below, is_slower, nights_of, slow_downs

Load = tuple[str, int, int]
"""Load, batch size, sequence length of interleaved rounds."""


@dataclass(frozen=True)
class Part:
    """What a record adds to the history of its cell. at: when it was measured, as `store.order` says. nights: its speed-up by load.
    why: why one is missing."""

    record_id: str
    run_id: str
    at: tuple[str, str, str]
    cell: tuple[str, str, str, str, int, str]
    nights: tuple[tuple[Load, Night], ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Judged:
    """A night of a cell. night: its speed-up; None where it was not compared, and why. against: the test with the nights before,
    of several the one that fails; None of the first. slower: it fails the gate's rule. below: as of `fails_below`; empty of the first."""

    record: Record
    night: Night | None
    why: str = ""
    against: PairedTest | None = None
    slower: bool = False
    below: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Verdict:
    against: PairedTest | None = None
    slower: bool = False
    below: tuple[float, ...] = ()


def parts_of(records: Iterable[Record]) -> list[Part]:
    """Of all records of whole runs: a speed-up needs the baseline of its run."""
    records, untested = list(records), dict[str, str]()
    nights: dict[str, dict[Load, Night]] = {}
    for key, own in nights_of(records, untested).items():
        load: Load = key[MACHINE + 1 :]
        for record_id, one in own.items():
            nights.setdefault(record_id, {})[load] = one
    return [
        Part(
            each.record_id,
            each.run_id,
            order(each),
            cell_of(each),
            tuple(nights.get(each.record_id, {}).items()),
            untested.get(each.record_id, ""),
        )
        for each in records
    ]


class Nights:
    """The histories of all cells. record: gives a record by its id."""

    def __init__(self, parts: Iterable[Part], record: Callable[[str], Record], limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._record = record
        self._by_cell: dict[Key, list[Part]] = {}
        found: dict[Key, dict[str, Night]] = {}
        runs: list[list[Part]] = []
        in_order = sorted(parts, key=lambda part: (part.run_id, part.at))
        for _, run in groupby(in_order, key=lambda part: part.run_id):
            newest = {part.cell: part for part in run}
            runs.append(list(newest.values()))
            for cell, part in newest.items():
                self._by_cell.setdefault(cell, []).append(part)
                for load, one in part.nights:
                    found.setdefault((*cell, *load), {})[part.record_id] = one
        self._nights = dict(sorted(found.items(), key=lambda item: str(item[0])))
        self._verdicts = self._judge(runs)
        self._between: dict[str, Spread] = {}

    @classmethod
    def of(cls, records: Sequence[Record], limits: Limits | None = None) -> Nights:
        return cls(parts_of(records), {record.record_id: record for record in records}.__getitem__, limits)

    def between(self, machine: str) -> Spread:
        """How the speed-ups of one cell differ between runs on a machine, from all cells that were measured more than once."""
        if machine not in self._between:
            own = (nights for key, nights in self._nights.items() if key[MACHINE] == machine)
            self._between[machine] = pooled(contribution(list(nights.values())[-NIGHTS:]) for nights in own)
        return self._between[machine]

    def count(self, record: Record) -> int:
        """How many nights its cell has."""
        return len(self._by_cell.get(cell_of(record), ()))

    def judged(self, record: Record) -> list[Judged]:
        """All nights of the record's cell under the load that tables compare, the oldest first."""
        turns = compared_turns(record)
        load = (turns.load, turns.batch_size, turns.sequence_length) if turns else None
        found = []
        for part in self._by_cell.get(cell_of(record), ()):
            night = dict(part.nights).get(load) if load else None
            verdict = self._verdicts.get((part.record_id, load), _Verdict())
            why = part.why if night is None else ""
            found.append(
                Judged(self._record(part.record_id), night, why, verdict.against, verdict.slower, verdict.below)
            )
        return found

    def ids(self, cell: Key) -> list[str]:
        """Of the records of a cell, the oldest night first."""
        return [part.record_id for part in self._by_cell.get(cell, ())]

    def told(self, cell: Key) -> list[object]:
        """All that the history of a cell is made of, except what its records say."""
        return [
            [
                part.record_id,
                part.why,
                *((load, one, self._verdicts[part.record_id, load]) for load, one in part.nights),
            ]
            for part in self._by_cell.get(cell, ())
        ]

    def _judge(self, runs: Sequence[Sequence[Part]]) -> dict[tuple[str, Load | None], _Verdict]:
        """By record id and load. Runs, the oldest first."""
        before: dict[Key, dict[str, Night]] = {}
        spreads = _Spreads()
        verdicts: dict[tuple[str, Load | None], _Verdict] = {}
        for run in runs:
            cells: list[tuple[Key, Part, Load, Night]] = [
                ((*part.cell, *load), part, load, one) for part in run for load, one in part.nights
            ]
            cells.sort(key=lambda cell: str(cell[0]))
            between = {machine: spreads.of(machine) for machine in {cell[MACHINE] for cell, *_ in cells}}
            tests = [
                ((part.record_id, load), test)
                for cell, part, load, one in cells
                for _, test in slow_downs(list(before.get(cell, {}).values()), [one], between[cell[MACHINE]])
            ]
            for cell, part, load, one in cells:
                old = list(before.get(cell, {}).values())
                limits = between[cell[MACHINE]], self._limits.max_slowdown, len(tests)
                below = fails_below(one, old, *limits) if old else ()
                verdicts[part.record_id, load] = _Verdict(below=below)
            for (place, test), p in zip(tests, holm([test.p for _, test in tests]), strict=True):
                slower = is_slower(test, p, self._limits.max_slowdown)
                if verdicts[place].against is None or slower:
                    verdicts[place] = replace(verdicts[place], against=test, slower=slower or verdicts[place].slower)
            for cell, part, _, one in cells:
                kept = before.setdefault(cell, {})
                kept[part.record_id] = one
                if len(kept) > NIGHTS:
                    del kept[next(iter(kept))]
                spreads.put(cell, kept)
        return verdicts


class _Spreads:
    """How nights differ on each machine, as nights are added; what a cell contributes is worked out once for each of its nights."""

    def __init__(self) -> None:
        self._nights: dict[str, dict[Key, list[Night]]] = {}
        self._known: dict[str, dict[Key, tuple[float, int]]] = {}

    def put(self, cell: Key, nights: Mapping[str, Night]) -> None:
        machine = cell[MACHINE]
        self._nights.setdefault(machine, {})[cell] = list(nights.values())
        self._known.setdefault(machine, {}).pop(cell, None)

    def of(self, machine: str) -> Spread:
        known = self._known.setdefault(machine, {})
        nights = self._nights.get(machine, {})
        return pooled(known.get(cell) or known.setdefault(cell, contribution(own)) for cell, own in nights.items())
