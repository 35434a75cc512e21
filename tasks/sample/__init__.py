"""The sample: small generated versions of the nine tasks and a text corpus, the same on every machine.

Suites run on it where the real data is not available. A two-layer model learns each task from random weights within a
minute or two. The evaluation splits hold only combinations of templates and entities that the training split never shows.
"""

from __future__ import annotations

import copy
from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from tasks.base import TaskError
from tasks.definitions import DEFINITIONS, TRAIN
from tasks.sample.draw import SAMPLE_SEED
from tasks.sample.squad import corpus_documents
from tasks.sample.vocabulary import tokenizer, vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "SAMPLE_SEED",
    "SAMPLE_VERSION",
    "TOKENIZER_CONFIG",
    "sample_corpus",
    "sample_rows",
    "sample_tokenizer",
    "sample_vocabulary",
]

SAMPLE_VERSION = 2
"""Raised on purpose whenever a generated row or a piece of the vocabulary changes."""


TOKENIZER_CONFIG = {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True}
"""What transformers' tokenizer_config.json says of `sample_tokenizer`."""


def sample_rows(name: str, split: str) -> list[dict[str, Any]]:
    """The rows of a split in Hugging Face's flat form; the caller may change them.

    Raises TaskError for a task or a split that the sample does not have.
    """
    definition = DEFINITIONS.get(name)
    if definition is None or not definition.sample or split not in definition.splits:
        raise TaskError(f"the sample has no split '{split}' of task '{name}'; give the task's data with --data DIR")
    return copy.deepcopy(_rows(name, split))


def sample_corpus() -> list[list[str]]:
    """Plain text for general distillation: documents, each a list of sentences."""
    return [list(document) for document in _corpus()]


def sample_vocabulary() -> list[str]:
    """The word pieces of the sample, in the order of their ids."""
    return list(_vocabulary())


def sample_tokenizer() -> Tokenizer:
    """A new fast tokenizer (uncased BERT) with `sample_vocabulary`."""
    return tokenizer(sample_vocabulary())


@cache
def _rows(name: str, split: str) -> list[dict[str, Any]]:
    definition = DEFINITIONS[name]
    rows: list[dict[str, Any]] = resolve_name(str(definition.sample))(definition, split)
    return rows


@cache
def _corpus() -> list[list[str]]:
    return corpus_documents()


@cache
def _vocabulary() -> list[str]:
    """From the training texts and the corpus alone, so that evaluation texts hold unknown words as real ones would."""
    texts = [" ".join(document) for document in _corpus()]
    for name, definition in DEFINITIONS.items():
        for row in _rows(name, TRAIN) if definition.sample else ():
            texts.extend(value for column, value in row.items() if isinstance(value, str) and column != "id")
    return vocabulary(dict.fromkeys(texts))
