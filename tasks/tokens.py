"""From text to padded rows of token ids: what all tasks share.

Sequences are assembled here, not by the tokenizer's own post-processor, truncation or padding. Those come with a checkpoint
(some checkpoints say "cut to 128, pad to 128") and would silently change what a suite's shape means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from tasks.base import TaskError

_BATCH = 1000  # texts tokenized at a time: bounds the memory that Encoding objects take

Ints = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class Special:
    """Ids of the three special tokens in BERT's sequences."""

    cls: int
    sep: int
    pad: int


def special_ids(tokenizer: Tokenizer) -> Special:
    """Raises TaskError when the vocabulary lacks one of [CLS], [SEP], [PAD]."""
    ids = {token: tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[PAD]")}
    known = {token: number for token, number in ids.items() if number is not None}
    if len(known) < len(ids):
        missing = ", ".join(token for token in ids if token not in known)
        raise TaskError(f"the tokenizer's vocabulary has no {missing}; use the tokenizer of a BERT-family checkpoint")
    return Special(known["[CLS]"], known["[SEP]"], known["[PAD]"])


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
    """For each text its token ids (tokens,), and the characters [start, end) of each token (tokens, 2)."""

    def arrays(encoding: Encoding) -> tuple[Ints, Ints]:
        return np.array(encoding.ids, np.int32), np.array(encoding.offsets, np.int32).reshape(-1, 2)

    return [
        arrays(encoding)
        for first in range(0, len(texts), _BATCH)
        for encoding in tokenizer.encode_batch(list(texts[first : first + _BATCH]), add_special_tokens=False)
    ]


def sequences(
    first: Sequence[Ints], second: Sequence[Ints] | None, special: Special
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """[CLS] first [SEP] (second [SEP]), padded to the longest: input_ids and token_type_ids (n, longest) int32, lengths
    (n,) int64. The second text and its [SEP] have type 1."""
    head = np.array([len(part) + 2 for part in first], np.int64)
    lengths = head if second is None else head + np.array([len(part) + 1 for part in second], np.int64)
    longest = int(lengths.max(initial=0))
    input_ids = np.full((len(first), longest), special.pad, np.int32)
    input_ids[:, :1] = special.cls
    for row, part in zip(input_ids, first, strict=True):
        row[1 : len(part) + 1] = part
        row[len(part) + 1] = special.sep
    position = np.arange(longest)
    if second is not None:
        for row, start, part in zip(input_ids, head, second, strict=True):
            row[start : start + len(part)] = part
            row[start + len(part)] = special.sep
    token_type_ids = (position >= head[:, None]) & (position < lengths[:, None])
    return input_ids, token_type_ids.astype(np.int32), lengths


def load_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokenizer of a checkpoint folder, without transformers."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
