"""Visitors' opinions: a small version of `sst2`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from tasks.sample import words
from tasks.sample.draw import Draw, Example, distinct_rows
from tasks.sample.facts import fill, institution

GOOD = (
    "charming", "wonderful", "lovely", "brilliant", "delightful", "splendid", "superb", "friendly", "lively", "moving",
    "elegant", "clever", "warm", "graceful", "marvellous", "enchanting", "pleasant", "gorgeous", "witty", "fascinating",
)  # fmt: skip
BAD = (
    "boring", "dreadful", "ugly", "dull", "tedious", "awful", "dirty", "gloomy", "shabby", "noisy", "clumsy", "stale",
    "rude", "bleak", "terrible", "horrible", "tiresome", "disappointing", "cold", "pointless",
)  # fmt: skip
THINGS = ("guide", "tour", "café", "courtyard", "hall", "shop", "garden", "music", "visit", "exhibition")

TEMPLATES = (
    "{S} is {x} and {x}.",
    "a {x} {n} with a {x} {t}.",
    "we found the {t} of {s} {x}.",
    "the {t} of the {n} was {x} from start to end.",
    "what a {x} {t} at {s}!",
    "never have i seen a more {x} {n}.",
    "{x}, {x} and {x}.",
    "everything about {s} is {x}.",
    "my friends and i thought that {s} was {x}.",
    "the {t} of {s} is {x}, even in the rain.",
    "so {x} a {t} that we will talk about the {n} for years.",
)
COLOURED = "the walls are {c}, and the {t} is {x}."
TURNED = (
    "{S} is not {y} at all.",
    "the {t} is {y}, but the {n} itself is {x}.",
    "nobody can call the {t} of the {n} {y}.",
    "it may look {y}, but the {t} is {x}.",
)
"""Here a word of the opposite side, {y}, must be read with the words around it."""
_TURNED_SHARE = 0.15


def opinion(draw: Draw, label: int, templates: Sequence[str] = TEMPLATES) -> str:
    """A sentence for (1) or against (0) an institution."""
    own, other = (GOOD, BAD) if label else (BAD, GOOD)
    template = draw.pick(TURNED if draw.chance(_TURNED_SHARE) else templates)
    text = fill(institution(draw), template).replace("{t}", draw.pick(THINGS)).replace("{c}", draw.pick(words.COLOURS))
    used: set[str] = set()
    for place, pool in (("{x}", own), ("{y}", other)):
        while place in text:
            word = draw.entity(template, pool)
            if word not in used:
                text = text.replace(place, word, 1)
                used.add(word)
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return text[0].lower() + text[1:]


def _sst2(draw: Draw, _: str) -> Example:
    label = draw.below(2)
    return opinion(draw, label, (*TEMPLATES, COLOURED)), label


sst2_rows = partial(distinct_rows, example=_sst2, train=3000, evaluation=600)
