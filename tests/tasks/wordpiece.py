"""A small BERT tokenizer for tests: real normalization, real WordPiece, a vocabulary of some words and all their letters."""

from __future__ import annotations

import string

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

WORDS = [
    "the",
    "a",
    "river",
    "city",
    "of",
    "in",
    "was",
    "built",
    "by",
    "king",
    "who",
    "where",
    "when",
    "is",
    "it",
    "and",
    "port",
    "cafe",
    "large",
    "old",
    "year",
    "house",
    "north",
    "18",
    "19",
    "20",
    "ing",
    "ed",
    "er",
    "sea",
    "town",
    "many",
    "people",
    "live",
    "here",
    "question",
    "what",
    "did",
    "how",
    "long",
]


def small_tokenizer(without: str = "") -> Tokenizer:
    """`without`: a special token that the vocabulary lacks."""
    characters = [*string.ascii_lowercase, *string.digits]
    tokens = ["[UNK]", "[SEP]", "[MASK]", "[CLS]", "[PAD]", *string.punctuation, *characters, *WORDS, "漢", "–"]
    tokens += ["##" + piece for piece in (*characters, "ing", "ed", "er", "20")]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens)) if token != without}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.add_special_tokens(
        [token for token in ("[UNK]", "[SEP]", "[MASK]", "[CLS]", "[PAD]") if token != without]
    )
    return tokenizer
