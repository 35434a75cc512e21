"""Sentences in and out of order: `cola` in miniature."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from tasks.sample.draw import Draw
from tasks.sample.facts import RELATIONS, institution, tell

NUMBER = {
    "was": "were", "were": "was", "is": "are", "are": "is", "has": "have", "stands": "stand", "lies": "lie",
    "employs": "employ", "gives": "give", "measures": "measure", "shows": "show",
}  # fmt: skip
"""Verbs, and the form that does not agree with their subject."""
TENSE = {
    "founded": "found", "designed": "design", "opened": "opening", "destroyed": "destroying", "painted": "painting",
    "built": "build", "made": "make", "paid": "paying", "closed": "closing", "cost": "costed", "lost": "losing",
    "burned": "burning", "employed": "employ", "used": "use", "find": "finds", "known": "knew",
}  # fmt: skip
SMALL = ("the", "of", "by", "was", "is", "to", "its", "a", "has", "for")
_ACCEPTABLE_SHARE = 0.6


def cola_rows(split: str) -> list[dict[str, Any]]:
    draw = Draw(f"glue/cola/{split}", held_out=split != "train")
    rows: list[dict[str, Any]] = []
    for index in range(3000 if split == "train" else 600):
        sentence = tell(draw, institution(draw), draw.pick(tuple(RELATIONS))).sentence
        acceptable = draw.chance(_ACCEPTABLE_SHARE)
        text = sentence if acceptable else None
        while text is None:
            text = spoiled(draw, sentence)
        rows.append({"sentence": text, "label": int(acceptable), "idx": index})
    return rows


def spoiled(draw: Draw, sentence: str) -> str | None:
    """The sentence with one fault: a verb that does not agree, a wrong form, a small word lost, doubled or behind its noun.
    None where it has no place for the fault drawn."""
    words = sentence.removesuffix(".").split()
    fault = draw.below(5)
    if fault < 2:
        forms = (NUMBER, TENSE)[fault]
        return _changed(draw, words, forms, lambda word: [forms[word]])
    if fault == 2:
        return _changed(draw, words, SMALL[:6], lambda _: [])
    if fault == 3:
        return _changed(draw, words, SMALL, lambda word: [word, word])
    places = [at for at, word in enumerate(words[:-1]) if word in SMALL and words[at + 1].isalpha()]
    if not places:
        return None
    at = draw.pick(places)
    words[at], words[at + 1] = words[at + 1], words[at]
    return _joined(words)


def _changed(
    draw: Draw, words: list[str], which: Container[str], change: Callable[[str], list[str]]
) -> str | None:
    places = [at for at, word in enumerate(words) if word in which]
    if not places:
        return None
    at = draw.pick(places)
    return _joined([*words[:at], *change(words[at]), *words[at + 1 :]])


def _joined(words: list[str]) -> str:
    text = " ".join(words) + "."
    return text[0].upper() + text[1:]
