"""Every two methods of a leaderboard compared, by the tests that the product uses everywhere: what the page Compare shows of
the two to four that a reader chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.measure.paired import PairedTest, all_pairs, differences
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report.comparability import has_valid_accuracy, training_caveat
from harness.report.compare import accuracy_of, same_examples
from harness.report.leaderboards import Entry, Leaderboard
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


def method_pairs(board: Leaderboard, stored: ScoreStore) -> Pairs:
    split = board.subject.split
    numbers = _Numbers()
    sides = [_side(entry, split, stored, numbers) for entry in board.entries]
    places = all_pairs(len(sides))
    tested = _differences(sides, split)
    found = [_pair(a, b, sides, tested.get((a, b)), split) for a, b in places]
    examples = max((part.examples for side in sides if (part := accuracy_of(side.record, split))), default=0)
    return Pairs(tuple(found), examples, _right(sides))


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


def _side(entry: Entry, split: str, stored: ScoreStore, numbers: _Numbers) -> _Side:
    record = entry.record
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


def _pair(a: int, b: int, sides: Sequence[_Side], points: PairedTest | None, split: str) -> MethodPair:
    mine, theirs = sides[a], sides[b]
    if points is None:
        values = [
            part.metrics[part.primary].value for side in (mine, theirs) if (part := accuracy_of(side.record, split))
        ]
        points = PairedTest(values[0] - values[1], method="not tested: per-example scores are not stored for both")
    same = None
    if mine.answers is not None and theirs.answers is not None and mine.answers.shape == theirs.answers.shape:
        same = int((mine.answers == theirs.answers).sum())
    caveat = training_caveat(mine.record, theirs.record)
    return MethodPair(a, b, points, _speed(mine.record, theirs.record), same, caveat)


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
