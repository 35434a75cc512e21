"""Random draws that are the same on every platform and Python version, and the rule that keeps combinations for evaluation.

Only `random.Random.random` is used, since Python promises a stable sequence for no other method of the module.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tasks.definitions import TRAIN, Definition

T = TypeVar("T")

SAMPLE_SEED = 20240517
"""Seed of every split; each split adds its own name to it."""

HOLD_OUT = 4
"""One in so many combinations of a template and an entity occurs in evaluation splits only, the others in train only."""


def is_held_out(template: str, entity: int) -> bool:
    """Whether this template keeps entity number `entity` (its place in its pool, or its value if it is a number) for evaluation."""
    return (zlib.crc32(template.encode()) + entity) % HOLD_OUT == 0


class Draw:
    """A stream of draws for one split. held_out: draw the combinations of the evaluation splits instead of train's."""

    def __init__(self, stream: str, *, held_out: bool) -> None:
        digest = hashlib.sha256(f"{SAMPLE_SEED}/{stream}".encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big"))
        self.held_out = held_out

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        return int(self._random.random() * bound)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            place = self.below(last + 1)
            result[last], result[place] = result[place], result[last]
        return result

    def entity(self, template: str, pool: Sequence[T]) -> T:
        """An entity that this split may combine with this template. The pool needs at least HOLD_OUT entities."""
        return pool[self.number(template, 0, len(pool))]

    def number(self, template: str, low: int, high: int) -> int:
        """A number in [low, high) that this split may combine with this template."""
        while True:
            value = low + self.below(high - low)
            if is_held_out(template, value) == self.held_out:
                return value


Example = tuple[Any, ...]
"""The text or the two texts of a row, then its label."""


def distinct_rows(
    definition: Definition, split: str, *, example: Callable[[Draw, str], Example], train: int, evaluation: int
) -> list[dict[str, Any]]:
    """The rows of a split: `train` rows to train on, `evaluation` rows in every other split.

    No two rows have the same texts, in whichever order, so that no row contradicts another. example: draws one row of a
    split.
    """
    draw = Draw(f"{definition.name}/{split}", held_out=split != TRAIN)
    rows: dict[frozenset[str], dict[str, Any]] = {}
    while len(rows) < (train if split == TRAIN else evaluation):
        *texts, label = example(draw, split)
        row = {**dict(zip(definition.texts, texts, strict=True)), "label": label, "idx": len(rows)}
        rows.setdefault(frozenset(texts), row)
    return list(rows.values())
