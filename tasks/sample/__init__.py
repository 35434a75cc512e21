"""The sample: miniatures of the nine tasks and a text corpus, generated, the same on every machine.

Where the real data is out of reach, suites run on this. A two-layer model learns each task from random weights within a
minute or two; dev holds only combinations of templates and entities that train never shows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from tasks.base import TaskError
from tasks.sample.draw import SAMPLE_SEED
from tasks.sample.grammar import cola_rows
from tasks.sample.opinions import sst2_rows
from tasks.sample.pairs import PAIRS
from tasks.sample.squad import corpus_documents, squad_rows
from tasks.sample.vocabulary import tokenizer, vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "SAMPLE_SEED", "SAMPLE_SPLITS", "SAMPLE_VERSION",
    "sample_corpus", "sample_rows", "sample_tokenizer", "sample_vocabulary",
]  # fmt: skip

SAMPLE_VERSION = 2
"""Raised on purpose whenever a generated row or a piece of the vocabulary changes."""

_MAKERS: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "squad_v1": squad_rows,
    "glue/cola": cola_rows,
    "glue/sst2": sst2_rows,
    **{name: partial(maker.rows, name) for name, maker in PAIRS.items()},
}

SAMPLE_SPLITS: dict[str, tuple[str, ...]] = {
    name: ("train", "validation_matched", "validation_mismatched") if name == "glue/mnli" else ("train", "validation")
    for name in _MAKERS
}
"""The splits of each task that the sample has."""


def sample_rows(name: str, split: str) -> list[dict[str, Any]]:
    """The rows of a split in the flat form of the Hugging Face data set; the caller's own copy.

    Raises TaskError for a task or a split that the sample does not have.
    """
    if split not in SAMPLE_SPLITS.get(name, ()):
        raise TaskError(f"the sample has no split '{split}' of task '{name}'; give the task's data with --data DIR")
    return copy.deepcopy(_rows(name, split))


def sample_corpus() -> list[list[str]]:
    """Plain text for general distillation: documents, each a list of sentences."""
    return [list(document) for document in _corpus()]


def sample_vocabulary() -> list[str]:
    """The word pieces of the sample; a piece's place is its id."""
    return list(_vocabulary())


def sample_tokenizer() -> Tokenizer:
    """A new fast tokenizer (uncased BERT) over `sample_vocabulary`."""
    return tokenizer(sample_vocabulary())


@cache
def _rows(name: str, split: str) -> list[dict[str, Any]]:
    return _MAKERS[name](split)


@cache
def _corpus() -> list[list[str]]:
    return corpus_documents()


@cache
def _vocabulary() -> list[str]:
    """From train's texts and the corpus alone: dev's words are no more known than those of real data would be."""
    texts = [" ".join(document) for document in _corpus()]
    for name in SAMPLE_SPLITS:
        for row in _rows(name, "train"):
            texts.extend(value for column, value in row.items() if isinstance(value, str) and column != "id")
    return vocabulary(dict.fromkeys(texts))
