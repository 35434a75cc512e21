"""Windows, targets and decoding against a slow copy of BERT's rules, and against values computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import Features, Shape, TaskError
from tasks.definitions import definition_of
from tasks.question_answering import QuestionAnswering, best_windows, window_spans
from tests.tasks import bert_reference
from tests.tasks.rows import MemoryRows, question
from tests.tasks.wordpiece import WORDS, small_tokenizer

TASK = QuestionAnswering(definition_of("squad_v1"), MemoryRows())
TOKENIZER = small_tokenizer()
PLAIN = small_tokenizer()
PLAIN.encode_special_tokens = True
ODD = [
    "caf\u00e9",
    "cafe\u0301",
    "漢字",
    "😀",
    "(18–19).",
    "north\u200bing",
    "U.S.",
    "king's",
    "ﬁ",
    "[SEP]",
    "18,19",
    "\u0301er",
]
GAPS = [" ", "  ", "\u00a0", "\n", "\t ", "\u202f", "-"]


@st.composite
def contexts(draw: st.DrawFn) -> str:
    words = draw(st.lists(st.sampled_from([*WORDS, *ODD]), min_size=1, max_size=60))
    gaps = draw(st.lists(st.sampled_from(GAPS), min_size=len(words), max_size=len(words)))
    return "".join(word + gap for word, gap in zip(words, gaps, strict=True))


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    """A row whose answer begins and ends between whole words of its context."""
    context = draw(contexts())
    encoding = PLAIN.encode(context, add_special_tokens=False)
    heads = [place for place, token in enumerate(encoding.tokens) if not token.startswith("##")]
    if not heads:
        return question("the king", answer="king")
    first = draw(st.integers(0, len(heads) - 1))
    last = draw(st.integers(first, min(first + 5, len(heads) - 1)))
    end = heads[last + 1] - 1 if last + 1 < len(heads) else len(encoding.tokens) - 1
    begin, stop = encoding.offsets[heads[first]][0], encoding.offsets[end][1]
    query = " ".join(draw(st.lists(st.sampled_from([*WORDS, *ODD]), max_size=12)))
    return question(context, query, context[begin:stop], start=begin)


shapes = st.builds(
    Shape, max_length=st.integers(16, 48), doc_stride=st.integers(1, 50), max_query_length=st.integers(0, 8)
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(questions(), min_size=1, max_size=3), shapes)
def test_windows_are_berts(rows: list[dict[str, Any]], shape: Shape) -> None:
    features = TASK.features(rows, TOKENIZER, shape, training=True)
    expected = [(at, window) for at, row in enumerate(rows) for window in bert_reference.windows_of(row, PLAIN, shape)]
    assert features.example_index.tolist() == [at for at, _ in expected]
    for at, (_, window) in enumerate(expected):
        length = len(window.input_ids)
        assert features.lengths[at] == length <= shape.max_length
        assert features.input_ids[at, :length].tolist() == window.input_ids
        assert features.token_type_ids[at, :length].tolist() == window.token_type_ids
        assert set(features.input_ids[at, length:]) <= {TOKENIZER.token_to_id("[PAD]")}
        assert not features.token_type_ids[at, length:].any()
        assert np.flatnonzero(features.extra["max_context"][at]).tolist() == sorted(window.best_positions)
        assert np.flatnonzero(features.extra["char_start"][at] >= 0).tolist() == sorted(window.context_at)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(questions(), shapes)
def test_targets_are_berts_where_answers_are_whole_words(row: dict[str, Any], shape: Shape) -> None:
    features = TASK.features([row], TOKENIZER, shape, training=True)
    for at, window in enumerate(bert_reference.windows_of(row, PLAIN, shape)):
        start, end = (int(features.labels[name][at]) for name in ("start_positions", "end_positions"))
        # within the answer's words BERT takes the first tokens that equal the answer's. These need not be the annotated
        # ones, since one unknown character looks like any other
        if _runs(row) == 1:
            assert (start, end) == (window.start, window.end)
        if start:
            chars = features.extra["char_start"][at, start], features.extra["char_end"][at, end]
            begin = row["answers"]["answer_start"][0]
            assert chars == (begin, begin + len(row["answers"]["text"][0]))


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(questions(), min_size=1, max_size=3), shapes, st.integers(0, 2**32), st.sampled_from([0.5, 1e-6]))
def test_answers_are_berts(rows: list[dict[str, Any]], shape: Shape, seed: int, grid: float) -> None:
    features = TASK.features(rows, TOKENIZER, shape)
    logits = np.random.default_rng(seed).normal(size=(*features.input_ids.shape, 2))
    outputs = (np.round(logits / grid) * grid).astype(np.float32)  # a coarse grid makes ties
    outputs[np.arange(outputs.shape[1]) >= features.lengths[:, None]] = 1e6  # padding never wins
    answers = TASK.decode(rows, features, outputs)
    at = 0
    for row, answer in zip(rows, answers, strict=True):
        windows = bert_reference.windows_of(row, PLAIN, shape)
        pairs = [outputs[at + number].astype(float).tolist() for number in range(len(windows))]
        at += len(windows)
        best = bert_reference.best_pair(windows, pairs)
        offsets = PLAIN.encode(row["context"], add_special_tokens=False).offsets
        expected = "empty" if best is None else row["context"][offsets[best[0]][0] : offsets[best[1]][1]]
        assert answer is not None
        assert answer.replace("\u0301", "") == expected.replace("\u0301", "")  # a mark at the end goes with its letter


def test_best_window_of_a_worked_example() -> None:
    # BERT's own comment: the man went to the | to the store and bought | and bought a gallon of
    spans = window_spans(13, room=5, stride=3)
    assert spans == [(0, 5), (3, 5), (6, 5), (9, 4)]
    owner = [next(at for at, (start, length) in enumerate(spans) if start <= token < start + length
                  and best_windows(spans, 13)[at][token - start]) for token in range(13)]  # fmt: skip
    assert owner == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert sum(wins.sum() for wins in best_windows(spans, 13)) == 13


@pytest.mark.parametrize("room", [5, 120, 370])
@pytest.mark.parametrize("stride", [1, 64, 128])
def test_best_windows_are_berts_at_real_sizes(room: int, stride: int) -> None:
    # where the last window is a hundred tokens shorter, BERT's bonus for long windows decides
    for tokens in (*range(1, 12), *range(room - 2, min(room + 4 * stride, 900), 13)):
        spans = window_spans(tokens, room, stride)
        ranges = [range(start, start + length) for start, length in spans]
        best = [bert_reference.best_span(ranges, token) for token in range(tokens)]
        for span, wins in zip(ranges, best_windows(spans, tokens), strict=True):
            assert wins.tolist() == [best[token] == span for token in span]


def test_strides_longer_than_a_window_leave_no_gap() -> None:
    assert window_spans(10, room=4, stride=100) == [(0, 4), (4, 4), (8, 2)]
    assert window_spans(4, room=4, stride=1) == [(0, 4)]
    assert window_spans(0, room=4, stride=1) == []


@pytest.mark.parametrize(
    ("context", "answer", "expected"),
    [
        ("It was built (18-19).", "18", "18"),
        ("a northern port", "orth", "north"),  # inside a word: the pieces of north ##er ##n that overlap
        ("a northern port", "thern", "northern"),
        ("the cafe\u0301 is old", "cafe\u0301", "cafe\u0301"),
        ("old cafe\u0301", "cafe\u0301", "cafe\u0301"),
        ("the caf\u00e9s", "caf\u00e9s", "caf\u00e9s"),
        ("the\u00a0king\u00a0was", "king\u00a0was", "king\u00a0was"),
        ("in 漢字 city", "漢字", "漢字"),
        ("😀😀 king 😀", "king", "king"),
        ("\u200bking is", "\u200bking", "king"),  # characters that the tokenizer drops cost nothing but themselves
        ("İstanbul is a city", "İstanbul", "İstanbul"),
        ("한국 is", "한국", "한국"),
        ("the [SEP] king", "[SEP]", "[SEP]"),
    ],
)
def test_target_decodes_to_the_answer(context: str, answer: str, expected: str) -> None:
    row = question(context, answer=answer)
    features = TASK.features([row], TOKENIZER, Shape(40), training=True)
    assert TASK.decode([row], features, _pointing_at_targets(features)) == [expected]


def test_an_answer_cut_by_a_window_points_at_cls() -> None:
    row = question("the king of the old city was here", "who", "old city")
    features = TASK.features([row], TOKENIZER, Shape(9, doc_stride=3), training=True)
    # room for 5 tokens: the king of the old | the old city was here
    assert features.labels["start_positions"].tolist() == [0, 4]
    assert features.labels["end_positions"].tolist() == [0, 5]
    assert features.labels["start_positions"].dtype == np.int64
    assert features.input_ids.dtype == features.token_type_ids.dtype == np.int32
    assert TASK.features([row], TOKENIZER, Shape(9, doc_stride=3)).labels == {}


def test_spans_over_thirty_tokens_or_backwards_never_win() -> None:
    context = " ".join(["king"] * 20 + ["the"] * 20)
    row = question(context, "who")
    features = TASK.features([row], TOKENIZER, Shape(60))
    outputs = np.zeros((1, features.input_ids.shape[1], 2), np.float32)
    outputs[0, 3, 0] = outputs[0, 33, 1] = 9  # 31 tokens
    outputs[0, 10, 1] = 5  # so this end wins
    outputs[0, 1, 0] = outputs[0, 0, 1] = 50  # question and [CLS]
    assert TASK.decode([row], features, outputs) == [" ".join(["king"] * 8)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_question_with_a_logit_that_is_not_finite_has_no_answer(value: float) -> None:
    """Even if another window would give an answer. Padding may hold any value."""
    rows = [question("king of the old city", "who", id_="a"), question("the king", "who", answer="king", id_="b")]
    features = TASK.features(rows, TOKENIZER, Shape(7, doc_stride=2))
    assert features.example_index.tolist() == [0, 0, 1]
    outputs = np.zeros((*features.input_ids.shape, 2), np.float32)
    outputs[:, 4] = 5
    before = TASK.decode(rows, features, outputs)
    assert None not in before
    length = int(features.lengths[2])
    assert length < outputs.shape[1]
    outputs[2, length:] = value
    assert TASK.decode(rows, features, outputs) == before
    outputs[1, 2, 1] = value
    answers = TASK.decode(rows, features, outputs)
    assert answers == [None, before[1]]
    assert TASK.score(rows, answers).missing == 1


def test_only_the_twenty_best_starts_count() -> None:
    row = question(" ".join(["king"] * 5 + ["city"] * 55), "who")
    features = TASK.features([row], TOKENIZER, Shape(70))
    outputs = np.zeros((1, features.input_ids.shape[1], 2), np.float32)
    outputs[0, 8, 0] = 1
    outputs[0, 10, 1] = 9
    outputs[0, 40:59, 0] = 5  # nineteen starts behind all of the twenty best ends
    assert TASK.decode([row], features, outputs) == ["city city city"]
    outputs[0, 59, 0] = 5
    assert TASK.decode([row], features, outputs) == ["empty"]


def test_the_earlier_of_two_equal_windows_wins() -> None:
    row = question("king of the old city", "who")
    features = TASK.features([row], TOKENIZER, Shape(7, doc_stride=2))
    assert len(features) == 2  # king of the | the old city
    outputs = np.zeros((*features.input_ids.shape, 2), np.float32)
    outputs[:, 4] = 5
    assert TASK.decode([row], features, outputs) == ["of"]
    outputs[1, 4] += 0.001
    assert TASK.decode([row], features, outputs) == ["old"]


def test_a_context_without_tokens_has_no_window_and_the_answer_empty() -> None:
    rows = [question("\u200b \u200b", id_="a"), question("the king", answer="king", id_="b")]
    features = TASK.features(rows, TOKENIZER, Shape(20), training=True)
    assert features.example_index.tolist() == [1]
    assert TASK.decode(rows, features, _pointing_at_targets(features)) == ["empty", "king"]
    none = TASK.features([], TOKENIZER, Shape(20), training=True)
    assert len(none) == 0
    assert TASK.decode([], none, np.zeros((0, 0, 2), np.float32)) == []


def test_the_tokenizers_own_truncation_and_padding_are_not_used() -> None:
    row = question("the king of the old city was here", "who", "old city")
    plain = TASK.features([row], TOKENIZER, Shape(30))
    tuned = small_tokenizer()
    tuned.enable_truncation(4)
    tuned.enable_padding(length=25)
    assert np.array_equal(TASK.features([row], tuned, Shape(30)).input_ids, plain.input_ids)
    assert tuned.truncation is not None  # the caller's tokenizer stays as it was
    assert tuned.padding is not None


@pytest.mark.parametrize("token", ["[CLS]", "[SEP]", "[PAD]"])
def test_a_vocabulary_without_a_special_token_is_one_line(token: str) -> None:
    with pytest.raises(TaskError) as error:
        TASK.features([question("the king")], small_tokenizer(without=token), Shape(30))
    assert str(error.value).startswith(f"the tokenizer's vocabulary has no {token};")


def test_a_shape_without_room_is_one_line() -> None:
    row = question("the king", "what did the king of the city")
    with pytest.raises(TaskError, match=r"max_length 10 leaves no room .* question of 7 tokens .* max_query_length"):
        TASK.features([row], TOKENIZER, Shape(10))
    assert len(TASK.features([row], TOKENIZER, Shape(10, max_query_length=6))) == 2
    with pytest.raises(TaskError, match="doc_stride 0"):
        TASK.features([row], TOKENIZER, Shape(20, doc_stride=0))


def test_outputs_of_another_shape_are_a_bug() -> None:
    row = question("the king")
    features = TASK.features([row], TOKENIZER, Shape(30))
    with pytest.raises(ValueError, match="outputs have shape"):
        TASK.decode([row], features, np.zeros((1, 30, 2), np.float32))


def _runs(row: dict[str, Any]) -> int:
    """How often the answer's tokens stand in the context."""
    tokens, answer = (
        PLAIN.encode(text, add_special_tokens=False).ids for text in (row["context"], row["answers"]["text"][0])
    )
    return sum(tokens[at : at + len(answer)] == answer for at in range(len(tokens)))


def _pointing_at_targets(features: Features) -> np.ndarray[Any, Any]:
    outputs = np.zeros((*features.input_ids.shape, 2), np.float32)
    rows = np.arange(len(features))
    outputs[rows, features.labels["start_positions"], 0] = 9
    outputs[rows, features.labels["end_positions"], 1] = 9
    return outputs
