"""A small version of `squad_v1`, and the text corpus: articles about institutions, in contexts that state several facts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from tasks.definitions import TRAIN, Definition
from tasks.sample.draw import Draw
from tasks.sample.facts import FILLERS, RELATIONS, Fact, Institution, institution, tell

TRAIN_ARTICLES, EVALUATION_ARTICLES = 400, 48
CORPUS_DOCUMENTS = 600
_FACTS_A_CONTEXT = 3
_LONG_SHARE = 0.05
_RIVAL_SHARE = 0.1
"""Share of contexts that also state a fact of the same kind about another institution, so that the question's name must be read."""


def squad_rows(definition: Definition, split: str) -> list[dict[str, Any]]:
    """The questions of a split, article by article. Each article has every kind of fact once, spread over its contexts."""
    train = split == TRAIN
    draw = Draw(f"{definition.name}/{split}", held_out=not train)
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    while len(seen) < (TRAIN_ARTICLES if train else EVALUATION_ARTICLES):
        subject = institution(draw)
        if subject.name in seen:
            continue
        seen.add(subject.name)
        for context, facts in _contexts(draw, subject):
            for fact, start in facts:
                rows.append(_row(subject.name, context, fact, start, alternatives=not train))
    return rows


def corpus_documents() -> list[list[str]]:
    """Articles as lists of sentences, without questions, in the combinations of the training splits."""
    draw = Draw("corpus", held_out=False)
    documents: list[list[str]] = []
    for _ in range(CORPUS_DOCUMENTS):
        subject = institution(draw)
        kinds = draw.shuffled(tuple(RELATIONS))[: 6 + draw.below(7)]
        sentences = [tell(draw, subject, kind, named=place == 0).sentence for place, kind in enumerate(kinds)]
        sentences.insert(1 + draw.below(len(sentences)), draw.pick(FILLERS))
        documents.append(sentences)
    return documents


def _contexts(draw: Draw, subject: Institution) -> list[tuple[str, list[tuple[Fact, int]]]]:
    """An article's contexts, each with its facts and where their answers start in it."""
    kinds = draw.shuffled(tuple(RELATIONS))
    size = len(kinds) if draw.chance(_LONG_SHARE) else _FACTS_A_CONTEXT
    return [_context(draw, subject, kinds[first : first + size]) for first in range(0, len(kinds), size)]


def _context(draw: Draw, subject: Institution, kinds: Sequence[str]) -> tuple[str, list[tuple[Fact, int]]]:
    facts = [tell(draw, subject, kind, named=place == 0) for place, kind in enumerate(kinds)]
    parts: list[Fact | str] = list(facts)
    if draw.chance(_RIVAL_SHARE):
        rival = tell(draw, institution(draw), draw.pick(kinds), named=True)
        parts.insert(1 + draw.below(len(parts)), rival.sentence)
    if draw.chance(0.4):
        parts.insert(1 + draw.below(len(parts)), draw.pick(FILLERS))
    placed: list[tuple[Fact, int]] = []
    context = ""
    for part in parts:
        context += " " if context else ""
        if isinstance(part, Fact):
            placed.append((part, len(context) + part.start))
            context += part.sentence
        else:
            context += part
    return context, placed


def _row(title: str, context: str, fact: Fact, start: int, *, alternatives: bool) -> dict[str, Any]:
    """A row in Hugging Face's flat form. With `alternatives` it has three answers, as in SQuAD's development set; the second
    is shorter."""
    text, short = fact.value.text, fact.value.short
    readings = [(text, 0), (short, text.index(short)), (text, 0)] if alternatives else [(text, 0)]
    return {
        "id": hashlib.sha256(f"{title}/{context}/{fact.question}".encode()).hexdigest()[:24],
        "title": title.replace(" ", "_"),
        "context": context,
        "question": fact.question,
        "answers": {
            "text": [reading for reading, _ in readings],
            "answer_start": [start + shift for _, shift in readings],
        },
    }
