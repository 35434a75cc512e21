"""Pairs of texts: small versions of `mrpc`, `stsb`, `qqp`, `qnli`, `mnli` and `rte`.

A model that starts from random weights is slow to learn that two texts say the same. So each task has pairs whose label
follows from the kinds of sentence alone, beside pairs where two kinds of fact, or two answers of one kind, must be compared.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tasks.definitions import DEFINITIONS, Definition
from tasks.sample.claims import CLAIMS, GENRES
from tasks.sample.draw import Draw, Example, distinct_rows
from tasks.sample.facts import FILLERS, RELATIONS, Institution, ask, fill, institution, state, tell
from tasks.sample.opinions import opinion

KINDS = tuple(RELATIONS)

SIDE_QUESTIONS = (
    "Can I bring my dog to {s}?",
    "Is {s} worth a visit?",
    "Do they sell maps at {s}?",
    "Which train goes to {s}?",
    "May children run in {s}?",
    "Are there concerts at {s}?",
)
REPORTS = ("{}", "{}", "The guide says: {}", "From a newspaper: {}")


def other_kind(draw: Draw, kind: str) -> str:
    """Another kind of fact."""
    return KINDS[(KINDS.index(kind) + 1 + draw.below(len(KINDS) - 1)) % len(KINDS)]


def two_statements(draw: Draw, subject: Institution, kind: str, *, same: bool = True) -> tuple[str, str]:
    """Two sentences of one kind of fact that state nothing else, with the same answer or (not `same`) with different answers.
    The answers are those that this split may combine with the two templates."""
    first, second = draw.shuffled(CLAIMS[kind].same)[:2]
    value = second_value = RELATIONS[kind].value(draw, f"{first} {second}")
    while not same and second_value.short == value.short:
        second_value = RELATIONS[kind].value(draw, f"{first} {second}")
    return state(subject, first, value)[0], state(subject, second, second_value)[0]


def unrelated(draw: Draw) -> str:
    """A sentence that states none of the facts."""
    return draw.pick(FILLERS) if draw.chance(0.6) else opinion(draw, draw.below(2))


def follows(draw: Draw, subject: Institution, kind: str) -> str:
    return fill(subject, draw.pick(CLAIMS[kind].follows))


def ruled_out(draw: Draw, subject: Institution, kind: str) -> str:
    return fill(subject, draw.pick(CLAIMS[kind].ruled_out))


def left_open(draw: Draw, subject: Institution, kind: str) -> str:
    return fill(subject, draw.pick(CLAIMS[kind].open))


def _mrpc(draw: Draw, _: str) -> Example:
    subject, kind = institution(draw), draw.pick(KINDS)
    case = draw.below(12)
    label = 0
    if case < 7:
        first, second = two_statements(draw, subject, kind)
        label = 1
    elif case < 10:
        first, second = tell(draw, subject, kind).sentence, ruled_out(draw, subject, kind)
    elif case < 11:
        first, second = tell(draw, subject, kind).sentence, tell(draw, subject, other_kind(draw, kind)).sentence
    else:
        first, second = two_statements(draw, subject, kind, same=False)
    return first, draw.pick(REPORTS).format(second), label


def _stsb(draw: Draw, _: str) -> Example:
    """The score is at least 0 for unrelated sentences, 1 for another fact about the same institution, 2.4 for another answer,
    4.2 for the same fact; the share of common words adds up to 0.8."""
    subject, kind = institution(draw), draw.pick(KINDS)
    case = draw.below(8)
    if case < 3:
        first, second = two_statements(draw, subject, kind)
        base = 4.2
    elif case < 4:
        first, second = two_statements(draw, subject, kind, same=False)
        base = 2.4
    else:
        first = tell(draw, subject, kind).sentence
        second, base = (
            (tell(draw, subject, other_kind(draw, kind)).sentence, 1.0) if case < 6 else (unrelated(draw), 0.0)
        )
    first_words, second_words = (set(text.lower().rstrip(".").split()) for text in (first, second))
    return first, second, round(base + 0.8 * len(first_words & second_words) / len(first_words | second_words), 1)


def _qqp(draw: Draw, _: str) -> Example:
    subject, kind = institution(draw), draw.pick(KINDS)
    case = draw.below(10)
    if case < 4:
        first, second = (fill(subject, text) for text in draw.shuffled(RELATIONS[kind].questions)[:2])
        return first, second, 1
    first = ask(draw, subject, kind)
    if case < 7:
        return first, fill(subject, draw.pick(SIDE_QUESTIONS)), 0
    return first, ask(draw, subject, other_kind(draw, kind)), 0


def _qnli(draw: Draw, _: str) -> Example:
    subject, kind = institution(draw), draw.pick(KINDS)
    question = ask(draw, subject, kind)
    case = draw.below(10)
    if case < 5:
        return question, tell(draw, subject, kind).sentence, 0
    if case < 8:
        return question, unrelated(draw), 1
    return question, tell(draw, subject, other_kind(draw, kind)).sentence, 1


def _mnli(draw: Draw, split: str) -> Example:
    subject, kind = institution(draw), draw.pick(KINDS)
    premise, claim, label = _claim(draw, subject, kind)
    genre = "mismatched" if split == "validation_mismatched" else "matched"
    return draw.pick(GENRES[genre]).format(premise), claim, label


def _claim(draw: Draw, subject: Institution, kind: str) -> Example:
    label, case = draw.below(3), draw.below(10)
    if label == 0 and case < 2:
        return *two_statements(draw, subject, kind), label
    premise = tell(draw, subject, kind, named=True).sentence
    if label == 0:
        return premise, follows(draw, subject, kind), label
    if label == 2:
        return premise, ruled_out(draw, subject, kind), label
    if case < 7:
        return premise, left_open(draw, subject, kind), label
    return premise, draw.pick((follows, ruled_out))(draw, subject, other_kind(draw, kind)), label


def _rte(draw: Draw, _: str) -> Example:
    subject = institution(draw)
    kinds = draw.shuffled(KINDS)[: 2 + draw.below(2)]
    premise = " ".join(tell(draw, subject, kind, named=place == 0).sentence for place, kind in enumerate(kinds))
    kind, case = draw.pick(kinds), draw.below(10)
    if case < 5:
        return premise, follows(draw, subject, kind), 0
    if case < 8:
        return premise, draw.pick((ruled_out, left_open))(draw, subject, kind), 1
    absent = draw.pick([kind for kind in KINDS if kind not in kinds])
    return premise, follows(draw, subject, absent), 1


mrpc_rows = partial(distinct_rows, example=_mrpc, train=3000, evaluation=600)
stsb_rows = partial(distinct_rows, example=_stsb, train=3000, evaluation=600)
qqp_rows = partial(distinct_rows, example=_qqp, train=3000, evaluation=600)
mnli_rows = partial(distinct_rows, example=_mnli, train=4000, evaluation=600)
qnli_rows = partial(distinct_rows, example=_qnli, train=4000, evaluation=600)
rte_rows = partial(distinct_rows, example=_rte, train=3000, evaluation=600)


def similarity_rows(_: Definition, split: str) -> list[dict[str, Any]]:
    """The rows of `glue/stsb`, which `sts_b` shares with it."""
    return list(stsb_rows(DEFINITIONS["glue/stsb"], split))
