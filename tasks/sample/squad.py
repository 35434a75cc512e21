"""`squad_v1` in miniature, and the text corpus: articles about institutions, told in contexts of several facts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from tasks.sample.draw import Draw
from tasks.sample.facts import FILLERS, RELATIONS, Fact, Institution, institution, tell

ARTICLES = {"train": 400, "validation": 48}
CORPUS_DOCUMENTS = 600
_FACTS_A_CONTEXT = 3
_LONG_SHARE = 0.05
_RIVAL_SHARE = 0.1
"""Share of contexts with a fact of an asked kind about another institution: there the question's name has to be read."""


def squad_rows(split: str) -> list[dict[str, Any]]:
    """Questions in file order, article by article. Each article has every kind of fact once, spread over its contexts."""
    draw = Draw(f"squad_v1/{split}", held_out=split != "train")
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    while len(seen) < ARTICLES[split]:
        about = institution(draw)
        if about.name in seen:
            continue
        seen.add(about.name)
        for context, facts in _contexts(draw, about):
            for fact, start in facts:
                rows.append(_row(about.name, context, fact, start, alternatives=split != "train"))
    return rows


def corpus_documents() -> list[list[str]]:
    """Articles as lists of sentences, without questions; told with train's combinations."""
    draw = Draw("corpus", held_out=False)
    documents: list[list[str]] = []
    for _ in range(CORPUS_DOCUMENTS):
        about = institution(draw)
        kinds = draw.shuffled(tuple(RELATIONS))[: 6 + draw.below(7)]
        sentences = [tell(draw, about, kind, named=place == 0).sentence for place, kind in enumerate(kinds)]
        sentences.insert(1 + draw.below(len(sentences)), draw.pick(FILLERS))
        documents.append(sentences)
    return documents


def _contexts(draw: Draw, about: Institution) -> list[tuple[str, list[tuple[Fact, int]]]]:
    """An article's contexts, each with its facts and where their answers start in it."""
    kinds = draw.shuffled(tuple(RELATIONS))
    size = len(kinds) if draw.chance(_LONG_SHARE) else _FACTS_A_CONTEXT
    return [_context(draw, about, kinds[first : first + size]) for first in range(0, len(kinds), size)]


def _context(draw: Draw, about: Institution, kinds: Sequence[str]) -> tuple[str, list[tuple[Fact, int]]]:
    facts = [tell(draw, about, kind, named=place == 0) for place, kind in enumerate(kinds)]
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
    """A row in the Hugging Face form. With `alternatives` three answers, as SQuAD's dev set has them, the second a shorter reading."""
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
