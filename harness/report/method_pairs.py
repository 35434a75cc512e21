"""Every two methods of a leaderboard compared, by the tests that the product uses everywhere: what the page Compare shows of
the two to four that a reader chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from harness.measure.paired import PairedTest, all_pairs, differences
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report.comparability import has_valid_accuracy, training_caveat
from harness.report.compare import accuracy_of, same_examples
from harness.report.leaderboards import Leaderboard
from harness.report.methods import compared_turns
from harness.report.speed_ratios import interleaved_ratio
from tasks import Scores

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class MethodPair:
    """Two methods by their places on the leaderboard, mine the first of them.

    points: the primary metric of mine less that of theirs. speed: samples a second, mine over theirs, from rounds in which both
    ran the same batches; None where they share none. same: the number of examples to which both gave the same answer; None where
    answers are scores or not stored. caveat: what the difference may include besides what distinguishes the methods.
    """

    mine: int
    theirs: int
    points: PairedTest
    speed: PairedTest | None
    same: int | None
    caveat: str


@dataclass(frozen=True)
class Pairs:
    """examples: how many both answered. right: on how many examples exactly these methods are right, by a word with a letter a
    method, `1` right, `0` wrong, `-` not stored; empty where answers are not right or wrong."""

    pairs: tuple[MethodPair, ...]
    examples: int
    right: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Side:
    """A method's record: of several seeds the one that was timed. answers: their numbers, an example each; None where they are scores
    or not stored."""

    record: Record
    scores: Scores | None
    answers: Array | None


@dataclass(frozen=True)
class _Answers:
    """What scores say of all pairs of methods: of each in the order of `all_pairs` the difference and the number of equal answers; and
    `right` of Pairs."""

    points: tuple[PairedTest, ...]
    same: tuple[int | None, ...]
    right: dict[str, int]


@cache
def _form() -> TypeAdapter[_Answers]:
    return TypeAdapter(_Answers)


def method_pairs(board: Leaderboard, stored: ScoreStore) -> Pairs:
    split, records = board.subject.split, [entry.record for entry in board.entries]
    answers = stored.once("pairs", records, split, lambda: _answers(records, split, stored), _form())
    found = [
        MethodPair(a, b, points, _speed(records[a], records[b]), same, training_caveat(records[a], records[b]))
        for (a, b), points, same in zip(all_pairs(len(records)), answers.points, answers.same, strict=True)
    ]
    examples = max((part.examples for record in records if (part := accuracy_of(record, split))), default=0)
    return Pairs(tuple(found), examples, answers.right)


def _answers(records: Sequence[Record], split: str, stored: ScoreStore) -> _Answers:
    numbers = _Numbers()
    sides = [_side(record, split, stored, numbers) for record in records]
    places, tests = all_pairs(len(sides)), _differences(sides, split)
    points = (tests.get((a, b)) or _untested(sides[a], sides[b], split) for a, b in places)
    same = (_same(sides[a], sides[b]) for a, b in places)
    return _Answers(tuple(points), tuple(same), _right(sides))


class _Numbers:
    """Numbers for answers. Two methods that gave an example equal numbers gave it equal answers. Nearly all answers are those of
    the first method, so that only the others are looked at one by one."""

    def __init__(self) -> None:
        self._first: Array | None = None
        self._known: dict[object, int] = {}

    def of(self, given: Array) -> Array:
        if self._first is None:
            self._first = given
            return np.zeros(len(given), np.int64)
        others = np.ones(len(given), np.bool_)
        if given.shape == self._first.shape and _kind(given) == _kind(self._first):
            others = given != self._first
        numbers = np.zeros(len(given), np.int64)
        numbers[others] = [self._known.setdefault(answer, 1 + len(self._known)) for answer in given[others].tolist()]
        return numbers


def _kind(values: Array) -> str:
    """Of values that NumPy compares: text, bytes or whole numbers."""
    return "number" if values.dtype.kind in "biu" else values.dtype.kind


def _side(record: Record, split: str, stored: ScoreStore, numbers: _Numbers) -> _Side:
    scores = stored.scores(record, split)
    given = stored.predictions(record, split) if scores else None
    answers = None if given is None or given.dtype.kind == "f" else numbers.of(given)
    return _Side(record, scores, answers)


def _differences(sides: Sequence[_Side], split: str) -> dict[tuple[int, int], PairedTest]:
    """Of all pairs that have scores of the same examples as the first that has any."""
    scored = [(place, side.scores) for place, side in enumerate(sides) if side.scores]
    scored = [(place, scores) for place, scores in scored if same_examples(scored[0][1], scores)]
    primary = _primary(sides, split)
    scored = [(place, scores) for place, scores in scored if primary in scores.statistics]
    pairs = all_pairs(len(scored))
    tests = differences([scores for _, scores in scored], primary, pairs)
    return {(scored[a][0], scored[b][0]): test for (a, b), test in zip(pairs, tests, strict=True)}


def _primary(sides: Sequence[_Side], split: str) -> str:
    return next((part.primary for side in sides if (part := accuracy_of(side.record, split))), "")


def _untested(mine: _Side, theirs: _Side, split: str) -> PairedTest:
    values = [part.metrics[part.primary].value for side in (mine, theirs) if (part := accuracy_of(side.record, split))]
    return PairedTest(values[0] - values[1], method="not tested: per-example scores are not stored for both")


def _same(mine: _Side, theirs: _Side) -> int | None:
    if mine.answers is None or theirs.answers is None or mine.answers.shape != theirs.answers.shape:
        return None
    return int((mine.answers == theirs.answers).sum())


def _speed(mine: Record, theirs: Record) -> PairedTest | None:
    turns = compared_turns(mine)
    if turns is None or not (has_valid_accuracy(mine) and has_valid_accuracy(theirs)):
        return None
    return interleaved_ratio((mine, turns), theirs)


def _right(sides: Sequence[_Side]) -> dict[str, int]:
    first = next((side.scores for side in sides if side.scores), None)
    columns = [
        _right_column(side.scores) if first and side.scores and same_examples(first, side.scores) else None
        for side in sides
    ]
    stored = [column for column in columns if column is not None]
    if len(stored) < 2 or any(column.shape != stored[0].shape for column in stored):
        return {}
    letters = [np.full(len(stored[0]), "-") if column is None else np.where(column > 0, "1", "0") for column in columns]
    words, counts = np.unique(np.array(letters).T.copy(), axis=0, return_counts=True)
    return {"".join(word): int(count) for word, count in zip(words.tolist(), counts, strict=True)}


def _right_column(scores: Scores) -> Array | None:
    """The first metric whose value an example is 0 or 1: `correct`, `exact_match`."""
    for statistic in scores.statistics.values():
        if statistic.kind == "mean" and len(statistic.columns) == 1:
            column = np.asarray(scores.per_example[statistic.columns[0]])
            if bool(np.isin(column, (0, 1)).all()):
                return column
    return None
