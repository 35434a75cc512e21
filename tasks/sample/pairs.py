"""Pairs of texts: `mrpc`, `stsb`, `qqp`, `qnli`, `mnli` and `rte` in miniature.

To find that two texts tell the same is slow to learn from random weights. So each task has pairs that the kinds of sentences
decide alone, beside pairs where two kinds, or two values of one kind, have to be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


from tasks.sample.claims import CLAIMS, GENRES
from tasks.sample.draw import Draw
from tasks.sample.facts import FILLERS, RELATIONS, Institution, ask, fill, institution, state, tell
from tasks.sample.opinions import opinion

KINDS = tuple(RELATIONS)
Pair = tuple[str, str, int | float]

SIDE_QUESTIONS = (
    "Can I bring my dog to {s}?",
    "Is {s} worth a visit?",
    "Do they sell maps at {s}?",
    "Which train goes to {s}?",
    "May children run in the {n}?",
    "Are there concerts at {s}?",
)
REPORTS = ("{}", "{}", "The guide says: {}", "From a newspaper: {}")


def rows_of(name: str) -> Callable[[str], list[dict[str, Any]]]:
    """The maker of a task's splits."""
    columns, train, dev, make = TASKS[name]

    def rows(split: str) -> list[dict[str, Any]]:
        draw = Draw(f"{name}/{split}", held_out=split != "train")
        genre = "mismatched" if split == "validation_mismatched" else "matched"
        found: list[dict[str, Any]] = []
        for index in range(train if split == "train" else dev):
            first, second, label = make(draw, genre)
            found.append({columns[0]: first, columns[1]: second, "label": label, "idx": index})
        return found

    return rows


def other(draw: Draw, kind: str) -> str:
    """Another kind of fact."""
    return KINDS[(KINDS.index(kind) + 1 + draw.below(len(KINDS) - 1)) % len(KINDS)]


def twice(draw: Draw, about: Institution, kind: str, *, same: bool = True) -> tuple[str, str]:
    """A fact in the words of two templates; not `same`: the second with another answer. Answers are those that this split may
    combine with the two templates."""
    first, second = draw.shuffled(RELATIONS[kind].sentences)[:2]
    value = again = RELATIONS[kind].value(draw, f"{first} {second}")
    while not same and again == value:
        again = RELATIONS[kind].value(draw, f"{first} {second}")
    return state(about, first, value)[0], state(about, second, again)[0]


def beside(draw: Draw, about: Institution) -> str:
    """A sentence that tells none of the facts."""
    return draw.pick(FILLERS) if draw.chance(0.6) else opinion(draw, draw.below(2))


def _mrpc(draw: Draw, _: str) -> Pair:
    about, kind = institution(draw), draw.pick(KINDS)
    how = draw.below(12)
    label = 0
    if how < 8:
        first, second = twice(draw, about, kind)
        label = 1
    elif how < 10:
        first, second = tell(draw, about, kind).sentence, fill(about, draw.pick(CLAIMS[kind].ruled_out))
    elif how < 11:
        first, second = tell(draw, about, kind).sentence, tell(draw, about, other(draw, kind)).sentence
    else:
        first, second = twice(draw, about, kind, same=False)
    return first, draw.pick(REPORTS).format(second), label


def _stsb(draw: Draw, _: str) -> Pair:
    """Unrelated 0 to 0.8, another fact of the same house 1 to 1.8, another answer 2.4 to 3.2, the same told otherwise 4.2 to 5."""
    about, kind = institution(draw), draw.pick(KINDS)
    how = draw.below(8)
    shift = draw.below(5) / 5
    if how < 3:
        first, second = twice(draw, about, kind)
        return first, second, round(4.2 + shift, 1)
    if how < 4:
        first, second = twice(draw, about, kind, same=False)
        return first, second, round(2.4 + shift, 1)
    first = tell(draw, about, kind).sentence
    if how < 6:
        return first, tell(draw, about, other(draw, kind)).sentence, round(1.0 + shift, 1)
    return first, beside(draw, about), shift


def _qqp(draw: Draw, _: str) -> Pair:
    about, kind = institution(draw), draw.pick(KINDS)
    how = draw.below(10)
    if how < 4:
        first, second = (fill(about, text) for text in draw.shuffled(RELATIONS[kind].questions)[:2])
        return first, second, 1
    first = ask(draw, about, kind)
    if how < 7:
        return first, fill(about, draw.pick(SIDE_QUESTIONS)), 0
    return first, ask(draw, about, other(draw, kind)), 0


def _qnli(draw: Draw, _: str) -> Pair:
    about, kind = institution(draw), draw.pick(KINDS)
    question = ask(draw, about, kind)
    how = draw.below(10)
    if how < 5:
        return question, tell(draw, about, kind).sentence, 0
    if how < 8:
        return question, tell(draw, about, other(draw, kind)).sentence, 1
    return question, beside(draw, about), 1


def _mnli(draw: Draw, genre: str) -> Pair:
    about, kind = institution(draw), draw.pick(KINDS)
    premise, claim, label = _claim(draw, about, kind, tell(draw, about, kind, named=True).sentence)
    return draw.pick(GENRES[genre]).format(premise), claim, label


def _claim(draw: Draw, about: Institution, kind: str, premise: str) -> Pair:
    label, how = draw.below(3), draw.below(10)
    if label == 0:
        if how < 2:
            return *twice(draw, about, kind), label
        return premise, fill(about, draw.pick(CLAIMS[kind].follows)), label
    if label == 2:
        return premise, fill(about, draw.pick(CLAIMS[kind].ruled_out)), label
    if how < 7:
        return premise, fill(about, draw.pick(CLAIMS[kind].open)), label
    claims = CLAIMS[other(draw, kind)]
    return premise, fill(about, draw.pick(claims.follows + claims.ruled_out)), label


def _rte(draw: Draw, genre: str) -> Pair:
    about = institution(draw)
    kinds = draw.shuffled(KINDS)[: 2 + draw.below(2)]
    told = [tell(draw, about, kind, named=place == 0).sentence for place, kind in enumerate(kinds)]
    kind, how = draw.pick(kinds), draw.below(10)
    if how < 5:
        return " ".join(told), fill(about, draw.pick(CLAIMS[kind].follows)), 0
    if how < 8:
        return " ".join(told), fill(about, draw.pick(CLAIMS[kind].ruled_out + CLAIMS[kind].open)), 1
    absent = draw.pick([one for one in KINDS if one not in kinds])
    return " ".join(told), fill(about, draw.pick(CLAIMS[absent].follows)), 1


TASKS: dict[str, tuple[tuple[str, str], int, int, Callable[[Draw, str], Pair]]] = {
    "glue/mrpc": (("sentence1", "sentence2"), 3000, 600, _mrpc),
    "glue/stsb": (("sentence1", "sentence2"), 3000, 600, _stsb),
    "glue/qqp": (("question1", "question2"), 3000, 600, _qqp),
    "glue/mnli": (("premise", "hypothesis"), 4000, 600, _mnli),
    "glue/qnli": (("question", "sentence"), 4000, 600, _qnli),
    "glue/rte": (("sentence1", "sentence2"), 3000, 600, _rte),
}
"""Columns, rows of train, rows of each split of dev, and how a row is made."""
