"""Questions answered by a span of a paragraph, such as SQuAD v1.1, as BERT's `run_squad.py` (google-research/bert) does it.

A paragraph that does not fit is cut into overlapping windows. Windows, their targets and the choice of a token's best
window are BERT's. Two things use character offsets where BERT joins words again:

- Targets are the tokens that overlap the annotated characters. BERT goes from whitespace words to tokens and back
  (`_improve_answer_span`). The tokens are the same unless an answer begins or ends inside a word piece; there BERT takes
  the whole whitespace word ("(2007)," for "2007", annotated "7").
- The answer is the part of the original paragraph between the first token's first and the last token's last character.
  BERT's `get_final_text` aligns the tokens' text with the original words heuristically. Where that fails it returns those
  words with their punctuation. Offsets never fail.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.base import Features, Scores, Shape, Statistic, TaskError
from tasks.defined import DefinedTask, Row
from tasks.metrics.answers import exact_match_and_f1
from tasks.predictions import read_predictions, shown
from tasks.tokens import Ints, Special, bare, sequences, special_tokens, token_ids, token_ids_and_offsets

if TYPE_CHECKING:
    from tokenizers import Tokenizer


N_BEST = 20
MAX_ANSWER_LENGTH = 30
NO_ANSWER = "empty"
"""What BERT answers when no pair of a start and an end among the n best is a valid span."""
BROKEN = -2
"""Marks a question with a window that has a logit which is not finite."""
_LONGEST_KEPT = 1000
_CHUNK = 1024


class QuestionAnswering(DefinedTask):
    """A task of kind `question_answering`. Rows as Hugging Face's `squad`: id, title, context, question, answers {text,
    answer_start}."""

    def features(
        self, examples: Sequence[Row], tokenizer: Tokenizer, shape: Shape, *, training: bool = False
    ) -> Features:
        """[CLS] question [SEP] window of the context [SEP], with the special tokens of the tokenizer: one sequence for each
        window; the windows of a question are adjacent.

        extra: `char_start`, `char_end` (n, longest) int32, the characters of the context that each token came from, -1
        outside the window; `max_context` (n, longest) bool, whether this window gives the token its best context.
        labels (training): `start_positions`, `end_positions` (n,) int64, inclusive; 0, [CLS], where the answer is not
        wholly inside the window. A context without any token gives no window. Raises TaskError when the shape leaves
        no room for context.
        """
        special = special_tokens(tokenizer)
        plain = bare(tokenizer)
        questions = [ids[: shape.max_query_length] for ids in token_ids(plain, [row["question"] for row in examples])]
        # a paragraph has several questions: tokenize it once
        texts = list(dict.fromkeys(row["context"] for row in examples))
        contexts = dict(zip(texts, token_ids_and_offsets(plain, texts), strict=True))
        _check_room(shape, special, max(map(len, questions), default=0))
        around, before = special.count(2), special.before(1, 2)

        first: list[Ints] = []
        second: list[Ints] = []
        offsets: list[Ints] = []
        best: list[np.ndarray[Any, Any]] = []
        index: list[int] = []
        targets: list[tuple[int, int]] = []
        for example, (row, question) in enumerate(zip(examples, questions, strict=True)):
            ids, chars = contexts[row["context"]]
            windows = window_spans(len(ids), shape.max_length - len(question) - around, shape.doc_stride)
            answer = _answer_tokens(row, chars) if training else None
            for (start, length), is_best in zip(windows, best_windows(windows, len(ids)), strict=True):
                first.append(question)
                second.append(ids[start : start + length])
                offsets.append(chars[start : start + length])
                best.append(is_best)
                index.append(example)
                inside = answer is not None and start <= answer[0] <= answer[1] < start + length
                shift = len(question) + before - start
                targets.append((answer[0] + shift, answer[1] + shift) if answer and inside else (0, 0))

        input_ids, token_type_ids, lengths = sequences(first, second, special)
        char_start = np.full(input_ids.shape, -1, np.int32)
        char_end = np.full(input_ids.shape, -1, np.int32)
        max_context = np.zeros(input_ids.shape, bool)
        for window, (question, chars, is_best) in enumerate(zip(first, offsets, best, strict=True)):
            context = slice(len(question) + before, len(question) + before + len(chars))
            char_start[window, context] = chars[:, 0]
            char_end[window, context] = chars[:, 1]
            max_context[window, context] = is_best
        positions = np.array(targets, np.int64).reshape(-1, 2)
        return Features(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            lengths=lengths,
            example_index=np.array(index, np.int64),
            extra={"char_start": char_start, "char_end": char_end, "max_context": max_context},
            labels={"start_positions": positions[:, 0], "end_positions": positions[:, 1]} if training else {},
        )

    def decode(
        self,
        examples: Sequence[Row],
        features: Features,
        outputs: np.ndarray[Any, Any],
        label_names: Sequence[str] = (),
    ) -> list[str | None]:
        """The answer of each example, from start and end logits (n, longest, 2) of each window.

        BERT's n-best rule: take the 20 best starts and the 20 best ends of each window. Valid pairs are those whose start
        lies in the context and has its best context in this window, whose end lies in the context and not before the
        start, and which span at most 30 tokens. The valid pair with the largest sum of logits wins. Ties go to the earlier
        window, then to the better start, then to the better end, then to the earlier position. Positions past a window's
        length never win. A question gets None when one of its windows has a logit that is not finite.
        """
        return [
            None if span is None else NO_ANSWER if span[1] == -np.inf else span[0]
            for span in self._spans(examples, features, outputs)
        ]

    def _spans(
        self, examples: Sequence[Row], features: Features, outputs: np.ndarray[Any, Any]
    ) -> list[tuple[str, float] | None]:
        """The best span's text and its sum of logits for each example; an empty text and -inf where there is none, None where a
        logit is not finite."""
        if outputs.shape != (*features.input_ids.shape, 2):
            raise ValueError(f"outputs have shape {outputs.shape}, the features need {(*features.input_ids.shape, 2)}")
        score, start, end = _best_spans(features, outputs)
        winner = np.full(len(examples), -1)
        for window, example in enumerate(features.example_index):
            if np.isfinite(score[window]) and (winner[example] < 0 or score[window] > score[winner[example]]):
                winner[example] = window
        inside = np.arange(outputs.shape[1]) < features.lengths[:, None]
        broken = (~np.isfinite(outputs).all(-1) & inside).any(1)
        winner[features.example_index[broken]] = BROKEN
        spans: list[tuple[str, float] | None] = []
        for row, window in zip(examples, winner, strict=True):
            if window < 0:
                spans.append(None if window == BROKEN else ("", -np.inf))
                continue
            first = features.extra["char_start"][window, start[window]]
            last = features.extra["char_end"][window, end[window]]
            text = row["context"][first : _with_accents(row["context"], last)]
            spans.append((text, float(score[window])))
        return spans

    def score(self, examples: Sequence[Row], predictions: Sequence[str | None]) -> Scores:
        """Exact match and F1 of the official `evaluate-v1.1.py`, to the last bit; None counts as wrong.

        per_example: `id`, `prediction` (cut to 1,000 characters), `exact_match` and `f1` (0 to 1). groups: the article.
        """
        pairs = [
            (0.0, 0.0) if prediction is None else exact_match_and_f1(prediction, row["answers"]["text"])
            for row, prediction in zip(examples, predictions, strict=True)
        ]
        columns = np.array(pairs, np.float64).reshape(-1, 2)
        # summed in order, as the official script does: NumPy's pairwise sum can differ in the last bits
        metrics = {
            "exact_match": 100.0 * sum(pair[0] for pair in pairs) / max(len(pairs), 1),
            "f1": 100.0 * sum(pair[1] for pair in pairs) / max(len(pairs), 1),
        }
        return Scores(
            metrics={name: metrics[name] for name in self._definition.metrics},
            per_example={
                "id": np.array([row["id"] for row in examples], np.str_),
                "prediction": np.array([(prediction or "")[:_LONGEST_KEPT] for prediction in predictions], np.str_),
                "exact_match": columns[:, 0],
                "f1": columns[:, 1],
            },
            statistics={name: Statistic("mean", (name,)) for name in self._definition.metrics},
            groups=groups_of(examples),
            missing=sum(prediction is None for prediction in predictions),
        )

    def predictions_from_json(self, examples: Sequence[Row], content: str | bytes, file: str) -> list[str | None]:
        """The predictions of a file in the official form, a JSON object {question id: answer}, or as `evaluate` takes them,
        in the order of `examples`; None for an id that the file lacks. Ids that are not in `examples` are left out, as the
        official script does. Raises TaskError, naming `file`, if no id is known, for an id that occurs twice and for answers
        that are not strings."""
        answers = read_predictions(content, file)
        if not isinstance(answers, dict):
            raise TaskError(f"{file}: expected a JSON object {{question id: answer}}, not {shown(answers)}")
        if answers and not any(row["id"] in answers for row in examples):
            raise TaskError(
                f"{file}: none of its {len(answers):,} question ids is among those evaluated, such as"
                f" {examples[0]['id']!r}; give the predictions of this split"
            )
        for id_, answer in answers.items():
            if not isinstance(answer, str):
                raise TaskError(
                    f"{file}: the answer to {id_!r} is {shown(answer)}, not a string;"
                    " leave out questions that have no answer"
                )
        return [answers.get(row["id"]) for row in examples]


def groups_of(examples: Sequence[Row]) -> np.ndarray[Any, Any]:
    """The article of each question, (n,) int64, counted in the order in which they first come."""
    articles: dict[str, int] = {}
    return np.array([articles.setdefault(row["title"], len(articles)) for row in examples], np.int64)


def window_spans(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """(start, length) of each window over a context of `tokens` tokens. One window holds `room` tokens."""
    spans = []
    start = 0
    while start < tokens:
        length = min(tokens - start, room)
        spans.append((start, length))
        if start + length == tokens:
            break
        start += min(length, stride)
    return spans


def best_windows(spans: Sequence[tuple[int, int]], tokens: int) -> list[np.ndarray[Any, Any]]:
    """For each window a (length,) bool: the tokens that have their best context in this window.

    BERT's `_check_is_max_context`: of the windows that hold a token, the first with the largest
    min(left context, right context) + 0.01 x the window's length.
    """
    if len(spans) == 1:
        return [np.ones(spans[0][1], bool)]
    position = np.arange(tokens)
    best = np.full(tokens, -1.0)
    owner = np.full(tokens, -1)
    for window, (start, length) in enumerate(spans):
        context = np.minimum(position - start, start + length - 1 - position)
        score = np.where(context >= 0, context + 0.01 * length, -1.0)
        better = score > best
        best[better] = score[better]
        owner[better] = window
    return [owner[start : start + length] == window for window, (start, length) in enumerate(spans)]


def _check_room(shape: Shape, special: Special, longest_question: int) -> None:
    if shape.max_length - longest_question - special.count(2) < 1:
        raise TaskError(
            f"max_length {shape.max_length} leaves no room for context beside a question of {longest_question} tokens"
            f" and {special.count(2)} special tokens; raise max_length or lower max_query_length (now {shape.max_query_length})"
        )
    if shape.doc_stride < 1:
        raise TaskError(f"doc_stride {shape.doc_stride} would never reach the end of a context; set it to at least 1")


def _answer_tokens(row: Row, chars: Ints) -> tuple[int, int] | None:
    """First and last token of the context that overlap the first annotated answer; None where there is no answer. chars: (tokens, 2), the characters of each
    token. The last comes before the first where the tokenizer dropped the whole answer."""
    if not row["answers"]["text"]:
        return None
    begin = row["answers"]["answer_start"][0]
    end = begin + len(row["answers"]["text"][0])
    first = np.searchsorted(chars[:, 1], begin, side="right")
    last = np.searchsorted(chars[:, 0], end, side="left") - 1
    return int(first), int(last)


def _best_spans(features: Features, outputs: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    """For each window the sum of logits, start and end (inclusive) of its best span; -inf where it has none."""
    windows, longest = features.input_ids.shape
    score = np.full(windows, -np.inf)
    start = np.zeros(windows, np.int64)
    end = np.zeros(windows, np.int64)
    for chunk in range(0, windows, _CHUNK):
        part = slice(chunk, chunk + _CHUNK)
        inside = np.arange(longest) < features.lengths[part, None]
        in_context = features.extra["char_start"][part] >= 0
        starts, start_logits = _n_best(outputs[part, :, 0], inside)
        ends, end_logits = _n_best(outputs[part, :, 1], inside)
        may_start = np.take_along_axis(in_context & features.extra["max_context"][part], starts, 1)
        may_end = np.take_along_axis(in_context, ends, 1)
        span = ends[:, None, :] - starts[:, :, None] + 1
        sums = start_logits[:, :, None] + end_logits[:, None, :]
        valid = (
            may_start[:, :, None] & may_end[:, None, :] & (span >= 1) & (span <= MAX_ANSWER_LENGTH) & np.isfinite(sums)
        )
        flat = np.where(valid, sums, -np.inf).reshape(len(sums), -1)
        best = flat.argmax(1)
        rows = np.arange(len(sums))
        score[part] = flat[rows, best]
        start[part] = starts[rows, best // ends.shape[1]]
        end[part] = ends[rows, best % ends.shape[1]]
    return score, start, end


def _n_best(
    logits: np.ndarray[Any, Any], inside: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Positions of each row's largest logits, the largest first (of equals the earliest first), and these logits as float64."""
    usable = np.where(inside & ~np.isnan(logits), logits, -np.inf)
    order = np.argsort(-usable, axis=1, kind="stable")[:, :N_BEST]
    return order, np.take_along_axis(usable, order, 1).astype(np.float64)


def _with_accents(text: str, end: int) -> int:
    """`end`, moved past the combining marks of the character before it, which tokenizers that strip accents leave out of
    their offsets."""
    while 0 < end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return end
