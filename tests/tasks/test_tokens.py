"""Special tokens, token types and offsets of other tokenizers than BERT's, against transformers' own tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tasks.base import Shape, TaskError
from tasks.definitions import definition_of
from tasks.question_answering import QuestionAnswering
from tasks.sequence_classification import SequenceClassification
from tasks.tokens import mask_id, special_tokens
from tests.tasks.rows import MemoryRows
from tests.tasks.tokenizers import TEXT, byte_level, make_tokenizer
from tests.tasks.wordpiece import WORDS

KINDS = ["bert", "roberta", "xlm-roberta", "camembert", "mpnet", "modernbert", "deberta-v2"]


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return make_tokenizer(request.param, tmp_path)


def texts(count: int, longest: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest))) for _ in range(count)]


@pytest.mark.parametrize("name", ["rte", "cola"])
@pytest.mark.parametrize("max_length", [9, 16, 64])
def test_sequences_are_those_of_transformers(tokenizer: Any, name: str, max_length: int) -> None:
    definition = definition_of(f"glue/{name}")
    columns = [texts(40, 12, seed) for seed, _ in enumerate(definition.texts)]
    rows = [dict(zip(definition.texts, row, strict=True)) | {"label": 0} for row in zip(*columns, strict=True)]
    task = SequenceClassification(definition, MemoryRows({"train": [], "validation": []}))
    features = task.features(rows, tokenizer.backend_tokenizer, Shape(max_length))
    own = tokenizer(
        *columns, truncation="longest_first", max_length=max_length, padding=True, return_token_type_ids=True,
        return_tensors="np",
    )  # fmt: skip
    for ours, theirs in (
        (features.input_ids, own["input_ids"]),
        (features.token_type_ids, own["token_type_ids"]),
        (np.arange(features.input_ids.shape[1]) < features.lengths[:, None], own["attention_mask"]),
    ):
        assert np.array_equal(ours, theirs)


def test_answers_are_read_from_their_place(tokenizer: Any) -> None:
    """Every word of a context, as an answer, is found again from its targets, without the white space around it."""
    words = [word for word in WORDS if word.isalpha()][:12]
    context, rows = " ".join(words), []
    for number, word in enumerate(words):
        answers = {"text": [word], "answer_start": [len(" ".join(words[:number])) + (number > 0)]}
        row = {"id": str(number), "title": "a", "context": context, "question": words[0], "answers": answers}
        rows.append(row)
    task = QuestionAnswering(definition_of("squad_v1"), MemoryRows({"train": [], "validation": rows}))
    features = task.features(rows, tokenizer.backend_tokenizer, Shape(200, doc_stride=64), training=True)
    own = tokenizer(words[0], context)["input_ids"]
    assert features.input_ids[0].tolist() == own
    logits = np.zeros((*features.input_ids.shape, 2), np.float32)
    every = np.arange(len(rows))
    for place, name in enumerate(("start_positions", "end_positions")):
        logits[every, features.labels[name], place] = 9
    assert task.decode(rows, features, logits) == words


def test_special_tokens_are_those_of_transformers(tokenizer: Any) -> None:
    special = special_tokens(tokenizer.backend_tokenizer)
    assert special.ids == {tokenizer.cls_token_id, tokenizer.sep_token_id}
    assert special.pad == tokenizer.pad_token_id
    assert special.count(1) == tokenizer.num_special_tokens_to_add(pair=False)
    assert special.count(2) == tokenizer.num_special_tokens_to_add(pair=True)
    assert mask_id(tokenizer.backend_tokenizer) == tokenizer.mask_token_id


def test_padding_has_its_own_id_whatever_the_token_is_called() -> None:
    plain = Tokenizer(WordLevel({"[CLS]": 0, "[SEP]": 1, "void": 2, "a": 3}, unk_token="a"))
    with pytest.raises(TaskError, match=r"^the tokenizer's vocabulary has no \[PAD\]; save the tokenizer with"):
        special_tokens(plain)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="void")  # type: ignore[no-untyped-call]
    tokenizer.backend_tokenizer.enable_padding(pad_id=2, pad_token="void")
    assert special_tokens(tokenizer.backend_tokenizer).pad == 2


def test_a_tokenizer_that_adds_nothing_and_has_no_cls_is_one_line() -> None:
    with pytest.raises(TaskError, match=r"^the tokenizer's vocabulary has no \[CLS\]; save the tokenizer with"):
        special_tokens(Tokenizer(WordLevel({"<pad>": 0, "a": 1}, unk_token="a")))


def test_features_know_what_they_are_padded_with(tmp_path: Path) -> None:
    task = SequenceClassification(definition_of("glue/sst2"), MemoryRows({"train": [], "validation": []}))
    rows = [{"sentence": text, "label": 0} for text in (WORDS[0], TEXT)]
    assert task.features(rows, byte_level(tmp_path).backend_tokenizer, Shape(64)).pad_id == 1
