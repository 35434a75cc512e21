"""Pairs of texts: `mrpc`, `stsb`, `qqp`, `qnli`, `mnli` and `rte` in miniature.

To find that two texts tell the same is slow to learn from random weights. So each task has pairs that the kinds of sentences
decide alone, beside pairs where two kinds, or two values of one kind, have to be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    "May children run in {s}?",
    "Are there concerts at {s}?",
)
REPORTS = ("{}", "{}", "The guide says: {}", "From a newspaper: {}")


@dataclass(frozen=True)
class Maker:
    """How a task's rows are made. columns: of the two texts. train, dev: rows of train and of each other split. make: a row of a
    genre, `matched` or `mismatched`, which mnli alone looks at."""

    columns: tuple[str, str]
    train: int
    dev: int
    make: Callable[[Draw, str], Pair]

    def rows(self, name: str, split: str) -> list[dict[str, Any]]:
        """No two rows have the same two texts, in whichever order: so none contradicts another."""
        draw = Draw(f"{name}/{split}", held_out=split != "train")
        genre = "mismatched" if split == "validation_mismatched" else "matched"
        found: dict[frozenset[str], dict[str, Any]] = {}
        while len(found) < (self.train if split == "train" else self.dev):
            first, second, label = self.make(draw, genre)
            row = {self.columns[0]: first, self.columns[1]: second, "label": label, "idx": len(found)}
            found.setdefault(frozenset((first, second)), row)
        return list(found.values())


def other(draw: Draw, kind: str) -> str:
    """Another kind of fact."""
    return KINDS[(KINDS.index(kind) + 1 + draw.below(len(KINDS) - 1)) % len(KINDS)]


def twice(draw: Draw, about: Institution, kind: str, *, same: bool = True) -> tuple[str, str]:
    """A fact in the words of two templates that tell nothing beside it; not `same`: the second with another answer. Answers are
    those that this split may combine with the two templates."""
    first, second = draw.shuffled(CLAIMS[kind].same)[:2]
    value = again = RELATIONS[kind].value(draw, f"{first} {second}")
    while not same and again.short == value.short:
        again = RELATIONS[kind].value(draw, f"{first} {second}")
    return state(about, first, value)[0], state(about, second, again)[0]


def beside(draw: Draw) -> str:
    """A sentence that tells none of the facts."""
    return draw.pick(FILLERS) if draw.chance(0.6) else opinion(draw, draw.below(2))


def follows(draw: Draw, about: Institution, kind: str) -> str:
    return fill(about, draw.pick(CLAIMS[kind].follows))


def ruled_out(draw: Draw, about: Institution, kind: str) -> str:
    return fill(about, draw.pick(CLAIMS[kind].ruled_out))


def left_open(draw: Draw, about: Institution, kind: str) -> str:
    return fill(about, draw.pick(CLAIMS[kind].open))


def _mrpc(draw: Draw, _: str) -> Pair:
    about, kind = institution(draw), draw.pick(KINDS)
    how = draw.below(12)
    label = 0
    if how < 7:
        first, second = twice(draw, about, kind)
        label = 1
    elif how < 10:
        first, second = tell(draw, about, kind).sentence, ruled_out(draw, about, kind)
    elif how < 11:
        first, second = tell(draw, about, kind).sentence, tell(draw, about, other(draw, kind)).sentence
    else:
        first, second = twice(draw, about, kind, same=False)
    return first, draw.pick(REPORTS).format(second), label


def _stsb(draw: Draw, _: str) -> Pair:
    """0 and more: neither is about the other; 1: another fact of the same house; 2.4: another answer; 4.2: the same. More by up
    to 0.8, the more of their words they share."""
    about, kind = institution(draw), draw.pick(KINDS)
    how = draw.below(8)
    if how < 3:
        first, second = twice(draw, about, kind)
        base = 4.2
    elif how < 4:
        first, second = twice(draw, about, kind, same=False)
        base = 2.4
    else:
        first = tell(draw, about, kind).sentence
        second, base = (tell(draw, about, other(draw, kind)).sentence, 1.0) if how < 6 else (beside(draw), 0.0)
    one, two = set(first.lower().rstrip(".").split()), set(second.lower().rstrip(".").split())
    return first, second, round(base + 0.8 * len(one & two) / len(one | two), 1)


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
        return question, beside(draw), 1
    return question, tell(draw, about, other(draw, kind)).sentence, 1


def _mnli(draw: Draw, genre: str) -> Pair:
    about, kind = institution(draw), draw.pick(KINDS)
    premise, claim, label = _claim(draw, about, kind)
    return draw.pick(GENRES[genre]).format(premise), claim, label


def _claim(draw: Draw, about: Institution, kind: str) -> Pair:
    label, how = draw.below(3), draw.below(10)
    if label == 0 and how < 2:
        return *twice(draw, about, kind), label
    premise = tell(draw, about, kind, named=True).sentence
    if label == 0:
        return premise, follows(draw, about, kind), label
    if label == 2:
        return premise, ruled_out(draw, about, kind), label
    if how < 7:
        return premise, left_open(draw, about, kind), label
    return premise, draw.pick((follows, ruled_out))(draw, about, other(draw, kind)), label


def _rte(draw: Draw, _: str) -> Pair:
    about = institution(draw)
    kinds = draw.shuffled(KINDS)[: 2 + draw.below(2)]
    told = " ".join(tell(draw, about, kind, named=place == 0).sentence for place, kind in enumerate(kinds))
    kind, how = draw.pick(kinds), draw.below(10)
    if how < 5:
        return told, follows(draw, about, kind), 0
    if how < 8:
        return told, draw.pick((ruled_out, left_open))(draw, about, kind), 1
    absent = draw.pick([one for one in KINDS if one not in kinds])
    return told, follows(draw, about, absent), 1


PAIRS = {
    "glue/mrpc": Maker(("sentence1", "sentence2"), 3000, 600, _mrpc),
    "glue/stsb": Maker(("sentence1", "sentence2"), 3000, 600, _stsb),
    "glue/qqp": Maker(("question1", "question2"), 3000, 600, _qqp),
    "glue/mnli": Maker(("premise", "hypothesis"), 4000, 600, _mnli),
    "glue/qnli": Maker(("question", "sentence"), 4000, 600, _qnli),
    "glue/rte": Maker(("sentence1", "sentence2"), 3000, 600, _rte),
}
