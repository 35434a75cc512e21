"""What BERT does with a SQuAD question, in slow and simple code that handles one token and one pair at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from tasks.base import Shape


@dataclass
class Window:
    input_ids: list[int]
    token_type_ids: list[int]
    context_at: dict[int, int]
    """Position in the window -> token of the context."""
    best_positions: set[int]
    """Positions whose context is best in this window."""
    start: int
    end: int


def windows_of(row: Mapping[str, Any], tokenizer: Tokenizer, shape: Shape) -> list[Window]:
    words, word_of = _words(row["context"])
    tokens: list[str] = []
    first_token = []
    for word in words:
        first_token.append(len(tokens))
        tokens += _tokens(tokenizer, word)
    first_token.append(len(tokens))
    query = _tokens(tokenizer, row["question"])[: shape.max_query_length]
    answer_first, answer_last = _answer(row, tokenizer, tokens, first_token, word_of)

    room = shape.max_length - len(query) - 3
    spans: list[range] = []
    at = 0
    while at < len(tokens):
        spans.append(range(at, min(at + room, len(tokens))))
        if spans[-1].stop == len(tokens):
            break
        at += min(len(spans[-1]), shape.doc_stride)

    vocabulary = tokenizer.get_vocab()
    windows = []
    for span in spans:
        shift = len(query) + 2 - span.start
        inside = answer_first in span and answer_last in span
        text = ["[CLS]", *query, "[SEP]", *(tokens[token] for token in span), "[SEP]"]
        windows.append(
            Window(
                input_ids=[vocabulary[token] for token in text],
                token_type_ids=[0] * (len(query) + 2) + [1] * (len(span) + 1),
                context_at={token + shift: token for token in span},
                best_positions={token + shift for token in span if best_span(spans, token) is span},
                start=answer_first + shift if inside else 0,
                end=answer_last + shift if inside else 0,
            )
        )
    return windows


def best_pair(windows: Sequence[Window], logits: Sequence[Sequence[tuple[float, float]]]) -> tuple[int, int] | None:
    """First and last token of the context that win, or None; logits: (start, end) of each position of each window."""
    scored = []
    for window, pairs in zip(windows, logits, strict=True):
        positions = range(len(window.input_ids))
        starts = sorted(positions, key=lambda position: pairs[position][0], reverse=True)[:20]
        ends = sorted(positions, key=lambda position: pairs[position][1], reverse=True)[:20]
        for start in starts:
            for end in ends:
                if start not in window.context_at or end not in window.context_at or start not in window.best_positions:
                    continue
                if start <= end < start + 30:
                    span = window.context_at[start], window.context_at[end]
                    scored.append((pairs[start][0] + pairs[end][1], span))
    return max(scored, key=lambda pair: pair[0])[1] if scored else None  # max keeps the first of equals


def best_span(spans: Sequence[range], token: int) -> range:
    holding = [span for span in spans if token in span]
    return max(holding, key=lambda span: min(token - span[0], span[-1] - token) + 0.01 * len(span))


def _words(text: str) -> tuple[list[str], list[int]]:
    words: list[str] = []
    word_of = []
    between = True
    for character in text:
        if character in " \t\r\n\u202f":
            between = True
        elif between:
            words.append(character)
            between = False
        else:
            words[-1] += character
        word_of.append(len(words) - 1)
    return words, word_of


def _tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return list(tokenizer.encode(text, add_special_tokens=False).tokens)


def _answer(
    row: Mapping[str, Any], tokenizer: Tokenizer, tokens: list[str], first_token: list[int], word_of: list[int]
) -> tuple[int, int]:
    text, at = row["answers"]["text"][0], row["answers"]["answer_start"][0]
    low, high = first_token[word_of[at]], first_token[word_of[at + len(text) - 1] + 1] - 1
    wanted = _tokens(tokenizer, text)
    for first in range(low, high + 1):
        for last in range(high, first - 1, -1):
            if tokens[first : last + 1] == wanted:
                return first, last
    return low, high
