"""New training examples in which words are replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from harness.checkpoints.make import check_inputs_unchanged, ensure
from harness.checkpoints.training import augment
from harness.checkpoints.training.augment import Replaceable, Vocabulary, augmented, replace_words
from harness.errors import CheckpointError
from harness.machine.digests import file_hash
from harness.plan.spec import CORPUS, CheckpointSpec
from tasks import DataRef, Features, Shape
from tests.checkpoints.texts import MASKED_LM, TOKENIZER, corpus_spec, token_id, token_names
from tests.run.small import encoder, sample_spec, train

__all__ = ["encoder"]  # a fixture

TEXTS = ["the museum was opened in spring .", "verymadeupword was founded by a rich merchant ."]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the masked language model."""
    folder = tmp_path_factory.mktemp("cache")
    ensure(MASKED_LM, folder)
    return folder


def features() -> Features:
    rows = [TOKENIZER.encode(text).ids for text in TEXTS]
    ids = np.zeros((2, max(map(len, rows))), np.int32)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    lengths = np.array([len(row) for row in rows])
    return Features(ids, np.zeros_like(ids), lengths, np.arange(2), labels={"labels": np.array([7, 8])})


def student(**changes: Any) -> CheckpointSpec:
    settings = {"copies": 5, "probability": 0.5, "candidates": 3, **changes.pop("augment", {})}
    return sample_spec(
        recipe="distill",
        masked_lm=MASKED_LM,
        distill={"stage": "prediction", "augment": settings},
        shape=Shape(32),
        **changes,
    )


def test_words_of_one_token_and_of_several() -> None:
    ids = np.array(TOKENIZER.encode("the museum of verymadeupword opened in 1999 .").ids)
    vocabulary = Vocabulary(TOKENIZER)
    single = [token_names(ids[[position]])[0] for position in vocabulary.single_token_words(ids)]
    assert single == ["the", "museum", "of", "opened", "in"]
    ((start, end, word),) = vocabulary.split_words(ids)
    assert word == "verymadeupword"
    assert token_names(ids[start:end])[0] in word


def test_a_word_is_replaced_with_the_given_probability() -> None:
    ids, types = np.arange(10, 18), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    words = [Replaceable(1, 2, np.array([90, 91])), Replaceable(4, 6, [np.array([95, 96, 97])])]
    draw = np.random.default_rng(0)
    copies = [replace_words(ids, types, words, 0.4, draw) for _ in range(2000)]
    first_replaced = np.mean([copy[1] in (90, 91) for copy, _ in copies])
    assert 0.36 < first_replaced < 0.44
    assert 0.4 < np.mean([copy[1] == 90 for copy, _ in copies if copy[1] != 11]) < 0.6
    second_replaced = [(copy, copy_types) for copy, copy_types in copies if len(copy) == 9]
    assert 0.36 < len(second_replaced) / 2000 < 0.44
    copy, copy_types = second_replaced[0]
    assert copy.tolist() == [10, copy[1], 12, 13, 95, 96, 97, 16, 17]
    assert copy_types.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert next(copy.tolist() for copy, _ in copies if len(copy) == 8 and copy[1] == 11) == ids.tolist()
    assert replace_words(ids, types, words, 1.0, draw)[0].tolist()[4:7] == [95, 96, 97]


def test_new_examples_are_different_and_have_their_originals_labels(cache: Path) -> None:
    made = augmented(features(), student(), TOKENIZER, cache, "cpu")
    assert made.example_index.tolist() == sorted(made.example_index.tolist())
    assert 6 <= len(made) <= 12
    assert made.labels["labels"].tolist() == [7 + index for index in made.example_index]
    rows = [tuple(ids[:length]) for ids, length in zip(made.input_ids, made.lengths, strict=True)]
    assert len(set(rows)) == len(rows)
    originals, vocabulary = features(), Vocabulary(TOKENIZER)
    for number in (0, 1):
        original = originals.input_ids[number, : originals.lengths[number]]
        first, *copies = [np.array(row) for row, index in zip(rows, made.example_index, strict=True) if index == number]
        assert np.array_equal(first, original)
        positions = set(vocabulary.single_token_words(original))
        for copy in copies:
            changed = np.flatnonzero(copy != original)
            assert set(changed) <= positions
            assert vocabulary.is_word[copy[changed]].all()


def test_candidates_are_the_likeliest_words(cache: Path) -> None:
    """Compared with what transformers predicts for one masked word."""
    folder = ensure(MASKED_LM, cache)
    vocabulary, originals = Vocabulary(TOKENIZER), features()
    word = next(augment.candidates(originals, folder, vocabulary, 3, cache / "kept", "cpu"))[1]
    model: Any = BertForMaskedLM.from_pretrained(folder).train(False)
    ids = torch.from_numpy(originals.input_ids[0, : originals.lengths[0]].astype(np.int64))[None]
    ids[0, word.start] = token_id("[MASK]")
    logits = model(input_ids=ids).logits[0, word.start]
    likeliest = [number for number in logits.argsort(descending=True).tolist() if vocabulary.is_word[number]]
    assert set(np.asarray(word.candidates).tolist()) <= set(likeliest[:6])  # bf16 changes the order of near ties


def test_new_examples_follow_from_the_seed_and_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = augmented(features(), student(), TOKENIZER, cache, "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(augment, "load_masked_lm", None)  # candidates are kept for every seed
        again = augmented(features(), student(), TOKENIZER, cache, "cpu")
        other_seed = augmented(features(), student(seed=4), TOKENIZER, cache, "cpu")
    assert np.array_equal(first.input_ids, again.input_ids)
    assert not np.array_equal(first.input_ids, other_seed.input_ids)


def test_words_of_several_tokens_are_replaced_by_neighbours(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "glove.txt"
    file.write_text("verymadeupword 1 0\nmuseum 1 0.1\ntheatre 1 0.2\n")
    spec = student(augment={"glove": str(file), "probability": 1.0}, identity={"glove": file_hash(file)})
    made = augmented(features(), spec, TOKENIZER, cache, "cpu")
    second = [
        token_names(ids[1:2])[0] for ids, index in zip(made.input_ids, made.example_index, strict=True) if index == 1
    ]
    assert set(second[1:]) <= {"museum", "theatre"}
    assert len(second) > 1


def test_word_vectors_that_changed_since_the_plan_are_not_used(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "glove.txt"
    file.write_text("verymadeupword 1 0\nmuseum 1 0.1\ntheatre 1 0.2\n")
    spec = student(augment={"glove": str(file), "probability": 1.0}, identity={"glove": file_hash(file)})
    file.write_text("verymadeupword 1 0\nmuseum 1 0.1\n")
    for identity in (spec.identity, {"glove": "another"}):
        with pytest.raises(CheckpointError, match="glove: the content has changed"):
            check_inputs_unchanged(replace(spec, identity=identity))
    with pytest.raises(CheckpointError, match="tiny: glove: changed while it was read"):
        augmented(features(), replace(spec, identity={"glove": "another"}), TOKENIZER, cache, "cpu")
    file.unlink()
    with pytest.raises(CheckpointError, match="glove: the content has changed"):
        check_inputs_unchanged(spec)


def test_a_model_without_the_head_is_one_line(encoder: Path, cache: Path) -> None:
    pretrained = CheckpointSpec("words", CORPUS, "pretrained", str(encoder), 0, Shape(0), DataRef("sample"))
    ensure(pretrained, cache)
    settings = {"copies": 1, "probability": 0.5, "candidates": 3}
    spec = sample_spec(masked_lm=pretrained, distill={"stage": "prediction", "augment": settings})
    with pytest.raises(CheckpointError) as caught:
        augmented(features(), spec, TOKENIZER, cache, "cpu")
    assert str(caught.value) == (
        "augment.masked_lm: it has no head that predicts masked tokens; name a masked language model, or give augment.train"
    )
    changes: dict[str, Any] = {"source": str(encoder), "architecture": None, "train": train(max_steps=1)}
    trained = ensure(corpus_spec(model="words", recipe="masked_lm", **changes), cache)
    assert (trained / "origin.json").is_file()
