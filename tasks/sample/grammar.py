"""Sentences with and without a grammatical fault: a small version of `cola`.

A fault must leave no correct English sentence, whichever of `facts.RELATIONS` the sentence states. So "the" is never dropped
("visitors find Halford Mill"), nor "was" before "closed", and no verb takes a form with which the sentence only says something
else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tasks.sample.draw import Draw, Example, distinct_rows
from tasks.sample.facts import RELATIONS, institution, tell

NUMBER = {
    "was": "were", "were": "was", "is": "are", "are": "is", "has": "have", "stands": "stand", "lies": "lie",
    "employs": "employ", "gives": "give", "measures": "measure", "shows": "show", "find": "finds",
}  # fmt: skip
"""Verbs, and the form that does not agree with their subject."""
FORM = {
    "founded": "founding", "designed": "design", "destroyed": "destroying", "built": "build", "made": "make",
    "cost": "costing", "lost": "losing", "burned": "burning", "employed": "employ", "known": "knew",
}  # fmt: skip
"""Verbs, and a form that is wrong in their place."""
DROPPED = ("of", "by", "was", "is", "to")
DOUBLED = ("the", "of", "by", "was", "is", "to", "its", "a", "has", "for")
_ACCEPTABLE_SHARE = 0.6


def _cola(draw: Draw, _: str) -> Example:
    sentence = tell(draw, institution(draw), draw.pick(tuple(RELATIONS))).sentence
    acceptable = draw.chance(_ACCEPTABLE_SHARE)
    text = sentence if acceptable else None
    while text is None:
        text = spoiled(draw, sentence)
    return text, int(acceptable)


cola_rows = partial(distinct_rows, example=_cola, train=3000, evaluation=600)


def spoiled(draw: Draw, sentence: str) -> str | None:
    """The sentence with one fault: a verb that does not agree, a wrong form, or a small word that is lost, doubled or behind
    the word that it belongs to. None where the sentence has no place for the fault that was drawn."""
    words = sentence.removesuffix(".").split()
    fault = draw.below(5)
    if fault < 2:
        forms = (NUMBER, FORM)[fault]
        return _changed(draw, words, lambda place: words[place] in forms, lambda word: [forms[word]])
    if fault == 2:
        return _changed(
            draw,
            words,
            lambda place: words[place] in DROPPED and words[place : place + 2] != ["was", "closed"],
            lambda _: [],
        )
    if fault == 3:
        return _changed(draw, words, lambda place: words[place] in DOUBLED, lambda word: [word, word])
    places = [place for place, word in enumerate(words[:-1]) if word in DOUBLED and words[place + 1].isalpha()]
    if not places:
        return None
    place = draw.pick(places)
    words[place], words[place + 1] = words[place + 1], words[place]
    return _joined(words)


def _changed(
    draw: Draw, words: list[str], fits: Callable[[int], bool], change: Callable[[str], list[str]]
) -> str | None:
    """The words with one of those at a place that `fits` replaced by what `change` makes of it."""
    places = [place for place in range(len(words)) if fits(place)]
    if not places:
        return None
    place = draw.pick(places)
    return _joined([*words[:place], *change(words[place]), *words[place + 1 :]])


def _joined(words: list[str]) -> str:
    text = " ".join(words) + "."
    return text[0].upper() + text[1:]
