"""A bar of parts that make a whole, with their numbers in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LETTER, EDGE = 1.8, 2.6
"""Percent of the bar that a letter takes on a phone, and that stays free."""


@dataclass(frozen=True)
class Part:
    """x, width, middle: in percent of the bar. kind: `same`, `wrong`, `changed`, `up`, `down`, or a method's. text: stands in it; empty where it
    has no room."""

    x: float
    width: float
    middle: float
    kind: str
    text: str
    title: str


def parts(counts: Sequence[tuple[float, str, str]]) -> tuple[Part, ...]:
    """counts: (how much, kind, text that begins with the number). A part with less room has the number alone, or nothing."""
    total, x, found = sum(count for count, _, _ in counts), 0.0, []
    for count, kind, text in counts:
        if not count:
            continue
        width = round(100 * count / total, 2)
        brief = text.partition(" ")[0]
        fitting = (words for words in (text, brief) if width > EDGE + LETTER * len(words))
        found.append(Part(round(x, 2), width, round(x + width / 2, 2), kind, next(fitting, ""), text))
        x += 100 * count / total
    return tuple(found)
