"""The sample's GLUE tasks: the same on every machine, no row contradicts another, labels follow from the texts, and a small
model can learn them."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import open_task
from tasks.base import DataRef, Shape
from tasks.definitions import DEFINITIONS
from tasks.rows import row_digest
from tasks.sample import SAMPLE_VERSION, sample_rows, sample_tokenizer, sample_vocabulary, words
from tasks.sample.claims import CLAIMS, GENRES
from tasks.sample.facts import RELATIONS
from tasks.sample.pairs import REPORTS

ROOT = Path(__file__).resolve().parents[2]
GLUE = [name for name, task in DEFINITIONS.items() if task.benchmark == "GLUE"]
SYMMETRIC = ("glue/mrpc", "glue/stsb", "glue/qqp")
KINDS = list(RELATIONS)
NAME = rf"[Tt]he [A-Z][a-z]+ (?:{'|'.join(words.INSTITUTIONS)})"
PREFIXES = sorted({form.partition("{}")[0] for form in (*REPORTS, *GENRES["matched"], *GENRES["mismatched"])})


def test_rows_are_those_of_this_version() -> None:
    """Whoever changes a row must raise SAMPLE_VERSION. Otherwise checkpoints of the old rows count as checkpoints of the new."""
    state = hashlib.sha256()
    own = [
        task for task in DEFINITIONS.values() if task.sample and task.name != "sts_b"
    ]  # its rows are those of glue/stsb
    for task in own:
        for split in task.splits:
            state.update(row_digest(task, sample_rows(task.name, split)).encode())
    state.update("\n".join(sample_vocabulary()).encode())
    assert (SAMPLE_VERSION, state.hexdigest()[:16]) == (2, "d7641e92957f6c6b")


@pytest.mark.slow
def test_another_process_makes_the_same_rows() -> None:
    code = (
        "import hashlib, json; from tasks.definitions import DEFINITIONS; from tasks.sample import sample_rows\n"
        "rows = [sample_rows(name, split) for name, task in DEFINITIONS.items() if task.sample for split in task.splits]\n"
        "print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def texts(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    pair = tuple(row[column].lower() for column in DEFINITIONS[name].texts)
    return tuple(sorted(pair)) if name in SYMMETRIC else pair


@pytest.mark.parametrize("name", GLUE)
def test_no_row_contradicts_another_or_is_in_two_splits(name: str) -> None:
    where: dict[tuple[str, ...], str] = {}
    for split in DEFINITIONS[name].splits:
        for row in sample_rows(name, split):
            key = texts(name, row)
            assert key not in where, f"{key} is in {where[key]} and {split}"
            assert len(set(key)) == len(key)
            where[key] = split


@pytest.mark.parametrize("name", GLUE)
def test_evaluation_splits_have_new_names_but_no_unknown_words(name: str) -> None:
    def houses(split: str) -> set[str]:
        rows = sample_rows(name, split)
        return {house.lower() for row in rows for text in texts_of(name, row) for house in re.findall(NAME, text)}

    train = houses("train")
    assert len(train) > 300
    tokenizer = sample_tokenizer()
    for split in DEFINITIONS[name].eval_splits:
        assert houses(split)
        assert not houses(split) & train
        encoded = tokenizer.encode_batch([text for row in sample_rows(name, split) for text in texts_of(name, row)])
        assert not any("[UNK]" in encoding.tokens for encoding in encoded)


def texts_of(name: str, row: Mapping[str, Any]) -> list[str]:
    return [row[column] for column in DEFINITIONS[name].texts]


@pytest.mark.parametrize("name", GLUE)
def test_no_class_is_rare(name: str) -> None:
    for split in DEFINITIONS[name].splits:
        labels = [row["label"] for row in sample_rows(name, split)]
        if name == "glue/stsb":
            assert 0 <= min(labels) < 1
            assert 4 < max(labels) <= 5
            assert np.std(labels) > 1.5
        else:
            shares = [count / len(labels) for count in Counter(labels).values()]
            assert len(shares) == len(DEFINITIONS[name].classes)
            assert min(shares) > 0.8 / len(shares) - 0.01


# --- labels, derived again from the texts alone -------------------------------------------------------------------------


def any_of(pool: Iterable[str]) -> str:
    return f"(?:{'|'.join(pool)})"


PERSON = r"[A-Z]\w+(?: [A-Z]\.)? [A-Z][a-z]+"
MONTH, SEASON = any_of(words.MONTHS), any_of(words.SEASONS)
DATE = rf"(?:on \d+ {MONTH} \d{{4}}|in {MONTH} \d{{4}}|in the {SEASON} of \d{{4}}|in \d{{4}})"
COLOUR, MATERIAL = any_of(words.COLOURS), any_of(words.MATERIALS)
VALUES = {
    "founder": PERSON,
    "designer": PERSON,
    "opened": DATE,
    "fire": DATE,
    "place": rf"(?:in the hills|near the border|in the forests|in the north) of {any_of(words.REGIONS)}",
    "staff": rf"(?:{any_of(words.NUMBER_WORDS)}|(?:about )?\d+)",
    "length": r"\d+(?:\.\d)? (?:metres|feet|yards)",
    "cost": rf"(?:£\d+,000|\d+ million {any_of(words.CURRENCIES)}|\d+,500 {any_of(words.CURRENCIES)})",
    "colour": rf"(?:(?:{any_of(words.SHADES)} )?{COLOUR}|{COLOUR} and {COLOUR})",
    "material": rf"{MATERIAL}(?: and {MATERIAL})?",
    "emblem": rf"(?:[Aa] (?!{any_of('aeiou')})|[Aa]n (?={any_of('aeiou')})){COLOUR} {any_of(words.ANIMALS)}",
    "reason": rf"{any_of(words.CAUSES)} {any_of(words.EFFECTS)}",
}


def pattern(kind: str, template: str) -> re.Pattern[str]:
    text = re.escape(template)
    for mark, form in (("S", NAME), ("s", NAME), ("n", "[a-z]+"), ("a", f"({VALUES[kind]})")):
        text = text.replace(rf"\{{{mark}\}}", form)
    return re.compile(text)


@cache
def patterns(what: str) -> list[tuple[str, re.Pattern[str]]]:
    if what in ("sentences", "questions"):
        return [(kind, pattern(kind, text)) for kind in KINDS for text in getattr(RELATIONS[kind], what)]
    return [(kind, pattern(kind, text)) for kind in KINDS for text in getattr(CLAIMS[kind], what)]


def kinds(text: str, *which: str) -> dict[str, str]:
    """The kinds of fact that the whole text states in one of these forms, each with its answer."""
    answers = {}
    for what in which:
        for kind, form in patterns(what):
            if match := form.fullmatch(text):
                value = match[1] if match.groups() else ""
                answers[kind] = re.sub("^(on|in|near) ", "", value)
    return answers


def plain(text: str) -> str:
    """The text without the words that introduce it."""
    prefix = next((prefix for prefix in PREFIXES if prefix and text.startswith(prefix)), "")
    return text.removeprefix(prefix)


def same(a: str, b: str) -> bool:
    return a.lower() == b.lower()


def rows_of(name: str) -> Iterable[dict[str, Any]]:
    for split in DEFINITIONS[name].splits:
        yield from sample_rows(name, split)


def test_acceptable_sentences_are_those_that_state_a_fact() -> None:
    for row in rows_of("glue/cola"):
        assert bool(kinds(row["sentence"], "sentences")) == bool(row["label"]), row


def test_a_paraphrase_tells_the_same_fact_with_the_same_answer() -> None:
    for row in rows_of("glue/mrpc"):
        first = kinds(row["sentence1"], "same", "sentences")
        second = kinds(plain(row["sentence2"]), "same", "sentences")
        assert first, row
        agree = [kind for kind in first if kind in second and same(first[kind], second[kind])]
        assert bool(agree) == bool(row["label"]), row


def test_scores_rise_with_what_is_shared() -> None:
    scores = defaultdict(list)
    for row in rows_of("glue/stsb"):
        first, second = (kinds(row[column], "same", "sentences") for column in ("sentence1", "sentence2"))
        shared = [kind for kind in first if kind in second]
        agree = any(same(first[kind], second[kind]) for kind in shared)
        scores[(bool(second), bool(shared), agree)].append(row["label"])
    unrelated, other, differs, agrees = (
        scores[key] for key in ((False, False, False), (True, False, False), (True, True, False), (True, True, True))
    )
    assert len(scores) == 4
    assert max(unrelated) < min(other) <= max(other) < min(differs) <= max(differs) < min(agrees)


def test_duplicates_ask_for_the_same() -> None:
    for row in rows_of("glue/qqp"):
        first, second = (kinds(row[column], "questions") for column in ("question1", "question2"))
        assert first, row
        assert bool(first.keys() & second.keys()) == bool(row["label"]), row


def test_a_sentence_answers_the_question_or_not() -> None:
    for row in rows_of("glue/qnli"):
        question, sentence = kinds(row["question"], "questions"), kinds(row["sentence"], "sentences")
        assert bool(question.keys() & sentence.keys()) == (row["label"] == 0), row
        if row["label"] == 1 and "colour" in question:
            assert "walls" not in row["sentence"], row


def test_claims_follow_or_are_ruled_out_or_left_open() -> None:
    for row in rows_of("glue/mnli"):
        premise = kinds(plain(row["premise"]), "sentences", "same").keys()
        claim = row["hypothesis"]
        assert premise, row
        follows = premise & (kinds(claim, "follows").keys() | kinds(claim, "same").keys())
        ruled_out = premise & kinds(claim, "ruled_out").keys()
        assert (0 if follows else 2 if ruled_out else 1) == row["label"], row


def test_entailed_claims_are_about_what_the_premise_states() -> None:
    for row in rows_of("glue/rte"):
        sentences = re.split(r"(?<=[^A-Z]\.) ", row["sentence1"])
        stated = {kind for sentence in sentences for kind in kinds(sentence, "sentences")}
        assert len(stated) >= 2, row
        assert bool(stated & kinds(row["sentence2"], "follows").keys()) == (row["label"] == 0), row


# --- a small model can learn them --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "epochs", "wanted"), [("glue/sst2", 1.5, 85.0), ("glue/qqp", 3.0, 72.0)])
def test_a_small_model_learns(name: str, epochs: float, wanted: float, tmp_path: Path) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from harness.checkpoints.training.loop import collate, train
    from harness.suite.train import TrainSettings

    task = open_task(name, DataRef("sample"))
    tokenizer, shape = sample_tokenizer(), Shape(64)
    features = task.features(task.examples("train"), tokenizer, shape, training=True)
    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "num_labels": 2,
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 2,
        "intermediate_size": 256,
    }
    model = BertForSequenceClassification(BertConfig(vocab_size=len(sample_vocabulary()), **sizes))
    settings = TrainSettings(learning_rate=5e-4, epochs=epochs, warmup_ratio=0.1, group_by_length=False)
    train(model, features, settings, seed=1, states=tmp_path, device="cpu", log=lambda _: None)
    examples = task.examples("validation")
    features = task.features(examples, tokenizer, shape)
    with torch.no_grad():
        batch = collate(features, np.arange(len(examples)), "cpu")
        outputs = model(**batch).logits.numpy()
    scores = task.score(examples, task.decode(examples, features, outputs, task.labels))
    labels = [row["label"] for row in examples]
    majority = 100 * max(Counter(labels).values()) / len(labels)
    assert scores.metrics["accuracy"] > max(wanted, majority + 10)
