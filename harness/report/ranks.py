"""Ranks of the cells of a board, by accuracy and by speed, from tests of all pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter

from harness.measure.paired import all_pairs, differences, rank_ranges, ratio, significant_pairs
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.records.speed_schema import Turns
from harness.report.comparability import is_speed_invalid, speed_conditions
from harness.report.shown_speed import throughput_of
from harness.report.speed_ratios import interleaved_ratio, looks_of, round_values, rounds_alternate

Array = np.ndarray[Any, Any]
Item = TypeVar("Item")
RankRange = tuple[int, int]
"""The best and the worst rank that a cell may hold."""


def accuracy_ranks(
    records: Sequence[Record], split: str, primary: str, stored: ScoreStore
) -> dict[str, tuple[int, RankRange]]:
    """(how many were ranked, rank range) of the largest set of cells that have scores of the same examples."""

    def make() -> list[tuple[int, RankRange] | None]:
        ranks = _accuracy_ranks(records, split, primary, stored)
        return [ranks.get(record.record_id) for record in records]

    found = stored.once(f"ranks {primary}", records, split, make, _by_place())
    return {record.record_id: rank for record, rank in zip(records, found, strict=True) if rank}


@cache
def _by_place() -> TypeAdapter[list[tuple[int, RankRange] | None]]:
    return TypeAdapter(list[tuple[int, RankRange] | None])


def _accuracy_ranks(
    records: Sequence[Record], split: str, primary: str, stored: ScoreStore
) -> dict[str, tuple[int, RankRange]]:
    scored = [(record, scores) for record in records if (scores := stored.scores(record, split))]
    scored = [(record, scores) for record, scores in scored if primary in scores.statistics]
    ids = _first_equal([scores.per_example["id"] for _, scores in scored])
    labels = _first_equal([scores.per_example.get("label") for _, scores in scored])

    def fit(mine: int, theirs: int) -> bool:  # as `same_examples`, which takes a thousand times as long
        return ids[mine] == ids[theirs] and (labels[mine] == labels[theirs] or None in (labels[mine], labels[theirs]))

    ranked = [scored[place] for place in _largest_set(range(len(scored)), fit)]
    pairs = all_pairs(len(ranked))
    tests = differences([scores for _, scores in ranked], primary, pairs)
    return _by_record_id([record for record, _ in ranked], significant_pairs(pairs, tests, tie=0.0))


def _first_equal(columns: Sequence[Array | None]) -> list[int | None]:
    """Of each column the place of the first that equals it; None where there is no column."""
    found: list[int | None] = []
    for place, column in enumerate(columns):
        firsts = (first for first in dict.fromkeys(found) if first is not None)
        equal = (first for first in firsts if columns[first] is column or np.array_equal(columns[first], column))  # type: ignore[arg-type]
        found.append(None if column is None else next(equal, place))
    return found


def interleaved_ranks(records: Sequence[Record]) -> dict[str, tuple[int, RankRange]]:
    """Ranks by samples a second in interleaved rounds, at the load and batch size that the table shows, of the largest set
    of cells that can all be tested against one another. Whether a cell's own speed differs between rounds does not matter here."""
    timed = [(record, part) for record in records if (part := throughput_of(record))]
    interleaved = [
        (record, turns)
        for record, part in timed
        for turns in record.turns
        if (turns.load, turns.batch_size) == (part.load, part.batch_size)
    ]
    ranked = _largest_set(interleaved, lambda mine, theirs: _is_tested(theirs, mine[0]))
    pairs = all_pairs(len(ranked))
    tests = [interleaved_ratio(ranked[mine], ranked[theirs][0]) for mine, theirs in pairs]
    beats = significant_pairs(pairs, [test for test in tests if test], tie=1.0)
    return _by_record_id([record for record, _ in ranked], beats)


def _is_tested(mine: tuple[Record, Turns], other: Record) -> bool:
    test = interleaved_ratio(mine, other)
    return test is not None and test.p is not None


def speed_ranks(records: Sequence[Record]) -> dict[str, tuple[int, RankRange]]:
    """Ranks by samples a second, offline at real lengths, largest batch, of the largest set of cells whose rounds alternated
    under the same conditions. No rule may fail for that figure."""
    timed = [(record, part) for record in records if (part := throughput_of(record))]
    timed = [(record, part) for record, part in timed if not is_speed_invalid(record, part)]
    ranked = _largest_set(
        timed,
        lambda mine, theirs: speed_conditions(*mine) == speed_conditions(*theirs) and rounds_alternate(mine, theirs),
    )
    pairs = all_pairs(len(ranked))
    values = [round_values(part, "qps") for _, part in ranked]
    looks = looks_of(*(record for record, _ in ranked)) if ranked else 1
    tests = [ratio(values[mine], values[theirs], interleaved=True, looks=looks) for mine, theirs in pairs]
    return _by_record_id([record for record, _ in ranked], significant_pairs(pairs, tests, tie=1.0))


def _largest_set(items: Sequence[Item], fit: Callable[[Item, Item], bool]) -> list[Item]:
    """A set of items that all fit one another, the largest found; each item joins the first set that it fits."""
    sets: list[list[Item]] = []
    for item in items:
        fitting = next((members for members in sets if all(fit(member, item) for member in members)), None)
        if fitting is None:
            sets.append([item])
        else:
            fitting.append(item)
    return max(sets, key=len, default=[])


def _by_record_id(records: Sequence[Record], beats: Sequence[tuple[int, int]]) -> dict[str, tuple[int, RankRange]]:
    """Empty where there are fewer than two cells to rank."""
    if len(records) < 2:
        return {}
    ranges = rank_ranges(len(records), beats)
    return {record.record_id: (len(records), rank) for record, rank in zip(records, ranges, strict=True)}
