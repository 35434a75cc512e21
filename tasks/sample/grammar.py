"""Sentences in and out of order: `cola` in miniature.

Only changes that leave no English sentence, whichever of `facts.RELATIONS` they are made in. So "the" is never dropped ("visitors
find Halford Mill"), nor "was" before "closed", and no verb takes a form in which the sentence merely says something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks.sample.draw import Draw
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
"""Verbs, and a form that cannot stand where they stand."""
DROPPED = ("of", "by", "was", "is", "to")
DOUBLED = ("the", "of", "by", "was", "is", "to", "its", "a", "has", "for")
_ACCEPTABLE_SHARE = 0.6


def cola_rows(split: str) -> list[dict[str, Any]]:
    draw = Draw(f"glue/cola/{split}", held_out=split != "train")
    found: dict[str, int] = {}
    while len(found) < (3000 if split == "train" else 600):
        sentence = tell(draw, institution(draw), draw.pick(tuple(RELATIONS))).sentence
        acceptable = draw.chance(_ACCEPTABLE_SHARE)
        text = sentence if acceptable else None
        while text is None:
            text = spoiled(draw, sentence)
        found.setdefault(text, int(acceptable))
    return [{"sentence": text, "label": label, "idx": index} for index, (text, label) in enumerate(found.items())]


def spoiled(draw: Draw, sentence: str) -> str | None:
    """The sentence with one fault: a verb that does not agree, a wrong form, a small word lost, doubled or behind the word
    that it belongs to. None where it has no place for the fault drawn."""
    words = sentence.removesuffix(".").split()
    fault = draw.below(5)
    if fault < 2:
        forms = (NUMBER, FORM)[fault]
        return _changed(draw, words, lambda at: words[at] in forms, lambda word: [forms[word]])
    if fault == 2:
        return _changed(
            draw, words, lambda at: words[at] in DROPPED and words[at : at + 2] != ["was", "closed"], lambda _: []
        )
    if fault == 3:
        return _changed(draw, words, lambda at: words[at] in DOUBLED, lambda word: [word, word])
    places = [at for at, word in enumerate(words[:-1]) if word in DOUBLED and words[at + 1].isalpha()]
    if not places:
        return None
    at = draw.pick(places)
    words[at], words[at + 1] = words[at + 1], words[at]
    return _joined(words)


def _changed(
    draw: Draw, words: list[str], fits: Callable[[int], bool], change: Callable[[str], list[str]]
) -> str | None:
    places = [at for at in range(len(words)) if fits(at)]
    if not places:
        return None
    at = draw.pick(places)
    return _joined([*words[:at], *change(words[at]), *words[at + 1 :]])


def _joined(words: list[str]) -> str:
    text = " ".join(words) + "."
    return text[0].upper() + text[1:]
