"""From text to padded rows of token ids: what all tasks share.

Sequences are assembled here, with the special tokens and token types of the tokenizer's own post-processor, but not by its
truncation or padding. Those come with a checkpoint (some checkpoints say "cut to 128, pad to 128") and would silently change
what a suite's shape means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from tasks.base import TaskError

_BATCH = 1000  # texts tokenized at a time: bounds the memory that Encoding objects take

Ints = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class Piece:
    """A special token's id, or the place of a text (None); and the token type of what stands there."""

    token: int | None
    type: int


Template = tuple[Piece, ...]
"""How a sequence is put together, such as [CLS] a [SEP] b [SEP]. Texts are in order."""


@dataclass(frozen=True)
class Special:
    """What a tokenizer puts around one text and around a pair, and the id that it pads with."""

    single: Template
    pair: Template
    pad: int

    def template(self, texts: int) -> Template:
        """texts: 1 or 2."""
        return self.pair if texts == 2 else self.single

    def count(self, texts: int) -> int:
        """How many special tokens are around one text or two."""
        return sum(piece.token is not None for piece in self.template(texts))

    def before(self, text: int, texts: int) -> int:
        """How many special tokens come before the text with the number `text`, counted from 0."""
        places = [place for place, piece in enumerate(self.template(texts)) if piece.token is None]
        return places[text] - text

    @property
    def ids(self) -> frozenset[int]:
        """All special tokens around texts."""
        return frozenset(piece.token for piece in (*self.single, *self.pair) if piece.token is not None)


PADDING = ("[PAD]", "<pad>")
MASKS = ("[MASK]", "<mask>")
"""What vocabularies call the token for padding, and the token in the place of a masked one."""


def special_tokens(tokenizer: Tokenizer) -> Special:
    """The templates of the tokenizer's own post-processor; BERT's for a tokenizer that adds nothing but has [CLS] and [SEP].

    Raises TaskError for a tokenizer that adds nothing and lacks these, or has no token for padding.
    """
    plain = bare(tokenizer)
    text = next(iter(plain.get_vocab())) if not plain.encode("a", add_special_tokens=False).ids else "a"
    single, pair = _template(plain.encode(text)), _template(plain.encode(text, text))
    if all(piece.token is None for piece in (*single, *pair)):
        cls, sep = (Piece(_id_of(plain, token), 0) for token in ("[CLS]", "[SEP]"))
        single = (cls, Piece(None, 0), sep)
        pair = (*single, Piece(None, 1), replace(sep, type=1))
    named = [number for token in PADDING if (number := plain.token_to_id(token)) is not None]
    padding = [tokenizer.padding["pad_id"]] if tokenizer.padding else []
    return Special(single, pair, (named or padding or [_id_of(plain, PADDING[0])])[0])


def _template(encoding: Encoding) -> Template:
    """The template by which a tokenizer made this sequence of one text or two."""
    pieces: list[Piece] = []
    last = None
    for number, kind, text in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
        if text is None or text != last:
            pieces.append(Piece(number if text is None else None, kind))
        last = text
    return tuple(pieces)


def _id_of(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise TaskError(
            f"the tokenizer's vocabulary has no {token}; save the tokenizer with the post-processor and the padding token of"
            " its model"
        )
    return int(number)


def mask_id(tokenizer: Tokenizer) -> int:
    """The id of the token that stands in the place of a masked one. Raises TaskError where the vocabulary has none."""
    for token in MASKS:
        if (number := tokenizer.token_to_id(token)) is not None:
            return int(number)
    raise TaskError(
        f"the tokenizer's vocabulary has no {MASKS[0]}; name a masked language model with its own tokenizer"
    )


def bare(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that neither truncates nor pads, and that reads a literal "[SEP]" in a text as plain characters, as BERT's own
    tokenizer does."""
    copy: Tokenizer = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = True
    return copy


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ints]:
    """The token ids of each text, without special tokens. `tokenizer` as `bare` returns it."""
    return [
        np.array(encoding.ids, np.int32)
        for first in range(0, len(texts), _BATCH)
        for encoding in tokenizer.encode_batch_fast(list(texts[first : first + _BATCH]), add_special_tokens=False)
    ]


def token_ids_and_offsets(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[Ints, Ints]]:
    """For each text its token ids (tokens,), and the characters [start, end) of each token (tokens, 2), without the white space
    before a word, which is part of the word's first token in byte-level and unigram vocabularies."""

    def arrays(text: str, encoding: Encoding) -> tuple[Ints, Ints]:
        offsets = [
            (end - len(text[start:end].lstrip()) if text[start:end][:1].isspace() else start, end)
            for start, end in encoding.offsets
        ]
        return np.array(encoding.ids, np.int32), np.array(offsets, np.int32).reshape(-1, 2)

    return [
        arrays(text, encoding)
        for first in range(0, len(texts), _BATCH)
        for text, encoding in zip(
            texts[first : first + _BATCH],
            tokenizer.encode_batch(list(texts[first : first + _BATCH]), add_special_tokens=False),
            strict=True,
        )
    ]


def sequences(
    first: Sequence[Ints], second: Sequence[Ints] | None, special: Special
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Texts, or pairs of them, with their special tokens, padded to the longest: input_ids and token_type_ids (n, longest) int32,
    lengths (n,) int64."""
    texts = [first] if second is None else [first, second]
    sizes = [np.array([len(part) for part in parts], np.int64) for parts in texts]
    lengths = np.sum(sizes, 0) + special.count(len(texts))
    longest = int(lengths.max(initial=0))
    input_ids = np.full((len(first), longest), special.pad, np.int32)
    token_type_ids = np.zeros((len(first), longest), np.int32)
    rows, position = np.arange(len(first)), np.arange(longest)
    start, number = np.zeros(len(first), np.int64), 0
    for piece in special.template(len(texts)):
        if piece.token is None:
            end = start + sizes[number]
            for row, at, part in zip(input_ids, start, texts[number], strict=True):
                row[at : at + len(part)] = part
            number += 1
        else:
            end = start + 1
            input_ids[rows, start] = piece.token
        if piece.type:
            token_type_ids[(position >= start[:, None]) & (position < end[:, None])] = piece.type
        start = end
    return input_ids, token_type_ids, lengths


def load_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokenizer of a checkpoint folder, without transformers. Raises TaskError."""
    path = folder / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more exact
        raise TaskError(
            f"{path}: not a tokenizer ({' '.join(str(error).split())[:200]}); copy the model's own again"
        ) from None
