"""Random draws that are the same on every platform and Python version, and the rule that keeps combinations for dev.

Only `random.Random.random` is used: of the module's methods it alone is promised never to change its sequence.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

SAMPLE_SEED = 20240517
"""Seed of every split; each split mixes its own name into it."""

HOLD_OUT = 4
"""One in so many combinations of a template and an entity occurs in dev only; the others in train only."""


def is_held_out(template: str, entity: int) -> bool:
    """Whether entity number `entity` (its place in its pool, or its value when it is a number) is kept for dev in this template."""
    return (zlib.crc32(template.encode()) + entity) % HOLD_OUT == 0


class Draw:
    """A stream of draws for one split. `held_out`: draw the combinations of dev instead of train's."""

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
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
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
