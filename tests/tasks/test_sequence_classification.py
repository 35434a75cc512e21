"""Sequences against the tokenizer's own pairs and truncation, labels by name, and prediction files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.processors import BertProcessing

from tasks import TaskFacts, open_task, short_name, task_facts, task_names
from tasks.base import Shape, TaskError
from tasks.definitions import definition_of
from tasks.sequence_classification import SequenceClassification, longest_first
from tasks.sources import detect
from tests.tasks.raw_files import write_glue
from tests.tasks.rows import MemoryRows
from tests.tasks.wordpiece import WORDS, small_tokenizer

TOKENIZER = small_tokenizer()
NAMES = [name for name in task_names() if name.startswith("glue/")]


def glue(name: str) -> SequenceClassification:
    splits = ("validation_matched", "validation_mismatched") if name == "mnli" else ("validation",)
    return SequenceClassification(
        definition_of(f"glue/{name}"), MemoryRows({split: [] for split in ("train", *splits)})
    )


def pairs(lengths: list[tuple[int, int]], labels: list[Any] | None = None) -> list[dict[str, Any]]:
    words = [word for word in WORDS if word in TOKENIZER.get_vocab()]
    rng = np.random.default_rng(1)
    texts = (
        {"sentence1": " ".join(rng.choice(words, a)), "sentence2": " ".join(rng.choice(words, b))} for a, b in lengths
    )
    return [row | {"label": label} for row, label in zip(texts, labels or [0] * len(lengths), strict=True)]


def test_glue_has_eight_tasks() -> None:
    assert len(NAMES) == 8
    kinds = {name: glue(name.removeprefix("glue/")).kind for name in NAMES}
    assert kinds == {name: "regression" if name == "glue/stsb" else "classification" for name in NAMES}


@pytest.mark.parametrize("max_length", [5, 6, 13, 14, 40])
def test_pairs_are_cut_as_the_tokenizers_own_longest_first_does(max_length: int) -> None:
    rows = pairs([(a, b) for a in range(9) for b in range(9)])
    features = glue("rte").features(rows, TOKENIZER, Shape(max_length), training=True)
    own = small_tokenizer()
    ids_of = own.get_vocab()
    own.post_processor = BertProcessing(("[SEP]", ids_of["[SEP]"]), ("[CLS]", ids_of["[CLS]"]))
    own.enable_truncation(max_length, strategy="longest_first")
    for row, ids, types, length in zip(
        rows, features.input_ids, features.token_type_ids, features.lengths, strict=True
    ):
        expected = own.encode(row["sentence1"], row["sentence2"])
        assert ids[:length].tolist() == expected.ids
        assert types[:length].tolist() == expected.type_ids
        assert not types[length:].any()
        assert set(ids[length:].tolist()) <= {ids_of["[PAD]"]}
    assert features.input_ids.shape[1] == features.lengths.max() <= max_length
    assert features.example_index.tolist() == list(range(len(rows)))


def test_longest_first_takes_from_the_longer_text() -> None:
    assert longest_first(3, 4, 10) == (3, 4)
    assert longest_first(2, 20, 10) == (2, 8)
    assert longest_first(20, 2, 10) == (8, 2)
    assert longest_first(20, 20, 11) == (5, 6)
    assert longest_first(21, 20, 11) == (6, 5)


def test_single_sentences_have_one_type() -> None:
    rows = [{"sentence": "the king of the city", "label": 1, "idx": 0}, {"sentence": "[SEP]", "label": 0, "idx": 1}]
    features = glue("cola").features(rows, TOKENIZER, Shape(5), training=True)
    tokens = [[TOKENIZER.id_to_token(int(number)) for number in ids] for ids in features.input_ids]
    assert tokens == [["[CLS]", "the", "king", "of", "[SEP]"], ["[CLS]", "[", "s", "##e", "[SEP]"]]
    assert not features.token_type_ids.any()
    assert features.labels["labels"].tolist() == [1, 0]
    assert features.labels["labels"].dtype == np.int64
    assert glue("cola").features(rows, TOKENIZER, Shape(5)).labels == {}


def test_regression_targets_are_float32() -> None:
    features = glue("stsb").features(pairs([(2, 2)], [4.75]), TOKENIZER, Shape(20), training=True)
    assert features.labels["labels"].dtype == np.float32
    assert features.labels["labels"].tolist() == [4.75]


def test_a_shape_without_room_is_one_line() -> None:
    with pytest.raises(TaskError, match="max_length 4 leaves no room for text beside 3 special tokens"):
        glue("rte").features(pairs([(2, 2)]), TOKENIZER, Shape(4))


def decode(name: str, logits: list[list[float]], names: tuple[str, ...] = ()) -> list[Any]:
    task = glue(name)
    texts = {"sentence": "x", "premise": "x", "hypothesis": "y", "sentence1": "x", "sentence2": "y", "question": "z"}
    rows = [texts | {"label": 0} for _ in logits]
    features = task.features(rows, TOKENIZER, Shape(20))
    return task.decode(rows, features, np.array(logits, np.float32), names)


def test_columns_are_matched_by_name_not_by_place() -> None:
    logits = [[3.0, 2.0, 1.0], [0.0, 0.0, 1.0]]
    assert decode("mnli", logits) == ["entailment", "contradiction"]
    assert decode("mnli", logits, ("CONTRADICTION", "Neutral", "entailment")) == ["contradiction", "entailment"]
    assert decode("rte", [[0.0, 1.0]], ("not entailment", "ENTAILMENT")) == ["entailment"]
    assert decode("rte", [[0.0, 1.0]], ("entailment", "non-entailment")) == ["not_entailment"]
    assert decode("sst2", [[0.0, 1.0]], ("POS", "NEG")) == ["negative"]
    assert decode("mrpc", [[0.0, 1.0]], ("not_equivalent", "equivalent")) == ["equivalent"]
    assert decode("cola", [[0.0, 1.0]], ("0", "1")) == ["acceptable"]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("rte", ("LABEL_0", "LABEL_1")),
        ("sst2", ("positive", "positive")),
        ("rte", ("0", "1")),  # its files name the classes, so a number says nothing
        ("qnli", ("entailment", "contradiction")),
        ("rte", ("entailment",)),
    ],
)
def test_names_that_do_not_match_are_an_error(name: str, names: tuple[str, ...]) -> None:
    with pytest.raises(TaskError, match=f"glue/{name}: the model calls its classes {', '.join(names)}, .*id2label"):
        decode(name, [[0.0, 1.0]], names)


def test_a_model_with_another_number_of_outputs_is_an_error() -> None:
    with pytest.raises(TaskError, match="glue/rte: the model has 3 outputs, the task 2"):
        decode("rte", [[0.0, 1.0, 2.0]], ("entailment", "neutral", "contradiction"))
    with pytest.raises(TaskError, match="glue/stsb: the model has 2 outputs, the task 1"):
        decode("stsb", [[0.0, 1.0]])


def test_regression_needs_no_name_and_broken_logits_answer_nothing() -> None:
    assert decode("stsb", [[2.5], [math.inf]], ("LABEL_0",)) == [2.5, math.inf]
    assert decode("rte", [[0.0, math.nan], [0.0, 1.0]]) == [None, "not_entailment"]


def test_mnli_evaluates_the_splits_that_are_present() -> None:
    assert glue("mnli").eval_splits == ("validation_matched", "validation_mismatched")
    mnli = definition_of("glue/mnli")
    for splits in (("train", "validation_matched"), ("validation_mismatched",)):
        task = SequenceClassification(mnli, MemoryRows({split: [] for split in splits}))
        assert task.eval_splits == splits[-1:]
    assert glue("rte").eval_splits == ("validation",)


@pytest.mark.parametrize(("name", "split"), [("glue/mnli", "validation_matched"), ("glue/rte", "validation")])
def test_without_anything_to_evaluate_the_first_split_is_asked_for(name: str, split: str, tmp_path: Path) -> None:
    write_glue(tmp_path, name, files=("train",))
    task = open_task(name, detect(name, tmp_path))
    with pytest.raises(TaskError, match=f"{name}: no split '{split}' in .*; found: train"):
        task.examples(task.eval_splits[0])


def test_predictions_of_a_file() -> None:
    rows = pairs([(1, 1)] * 4)
    assert glue("rte").predictions_from_json(rows, '["entailment", 1, null, "Not-Entailment"]', "p.json") == [
        "entailment", "not_entailment", None, "not_entailment",
    ]  # fmt: skip
    assert glue("stsb").predictions_from_json(rows, "[1, 2.5, null, 0]", "p.json") == [1.0, 2.5, None, 0.0]


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        # run_glue.py writes names of classes, and scores with three decimals
        ("rte", "index\tprediction\n0\tnot_entailment\n1\tentailment\n", ["not_entailment", "entailment"]),
        ("rte", "index\tprediction\r\n1\t0\r\n0\t1.0\r\n", ["not_entailment", "entailment"]),
        ("stsb", "\ufeffindex\tprediction\n0\t3.142\n1\t-0.5\n", [3.142, -0.5]),
        ("rte", '[{"label": "LABEL_1", "score": 0.9}, {"label": "ENTAILMENT", "score": 0.4}]', ["not_entailment", "entailment"]),
        (
            "rte",  # a pipeline with top_k=None
            '[[{"label": "entailment", "score": 0.2}, {"label": "not_entailment", "score": 0.8}], 0.0]',
            ["not_entailment", "entailment"],
        ),
    ],
)  # fmt: skip
def test_predictions_as_other_tools_write_them(name: str, content: str, wanted: list[object]) -> None:
    assert glue(name).predictions_from_json(pairs([(1, 1)] * 2), content, "p.txt") == wanted


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rte", "index\tprediction\n0\t1\n2\t1\n", "index 1 is missing; give each row from 0 on"),
        ("rte", "index\tprediction\n0\t1\n0\t1\n", 'line 3: expected a new index, a tab and a prediction, not "0\\t1"'),
        ("rte", "index\tprediction\n0\tneutral\n1\t1\n", 'row 1: "neutral" is not a class'),
        ("rte", '[{"label": "LABEL_2", "score": 1}, 0]', 'row 1: "LABEL_2" is not a class'),
        ("rte", "[0, 0.5]", "row 2: 0.5 is not a class"),
        ("stsb", '[{"label": "LABEL_0", "score": 0.9}, 0]', 'row 1: "LABEL_0" is not a score'),
        ("rte", "{}", "expected a JSON list with one prediction for each row, not an object"),
        ("rte", "[0]", "1 predictions for 2 rows; give one, or null, for each row"),
        ("rte", "[0, 2]", "row 2: 2 is not a class of glue/rte; its classes are 0 (entailment), 1 (not_entailment)"),
        ("rte", "[0, -1]", "row 2: -1 is not a class"),
        ("rte", "[true, 0]", "row 1: true is not a class"),
        ("rte", '["neutral", 0]', 'row 1: "neutral" is not a class'),
        ("rte", "[[0], 0]", "row 1: a list is not a class"),
        ("stsb", '["five", 0]', 'row 1: "five" is not a score; give a number from 0 to 5, or null'),
        ("stsb", "[NaN, 0]", "row 1: NaN is not a score"),
        ("stsb", "[0, 1e999]", "row 2: Infinity is not a score"),
        ("stsb", "[0, " + "9" * 400 + "]", "row 2: " + "9" * 80 + " is not a score"),
        ("stsb", "[0, false]", "row 2: false is not a score"),
    ],
)
def test_a_broken_prediction_file_is_one_line(name: str, content: str, message: str) -> None:
    with pytest.raises(TaskError) as error:
        glue(name).predictions_from_json(pairs([(1, 1)] * 2), content, "p.json")
    assert str(error.value).startswith(f"p.json: {message}")


def test_facts_name_the_benchmark_the_short_name_the_typical_length_and_the_splits() -> None:
    facts = {name: task_facts(name) for name in task_names()}
    assert {name for name, fact in facts.items() if fact and fact.benchmark == "GLUE"} == {
        f"glue/{name}" for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
    }
    assert {name: short_name(name) for name in ("squad_v1", "glue/sst2", "package/task")} == {
        "squad_v1": "squad_v1",
        "glue/sst2": "sst2",
        "package/task": "package/task",
    }
    mnli = facts["glue/mnli"]
    assert mnli and mnli.typical_tokens == 39 and mnli.eval_splits == ("validation_matched", "validation_mismatched")
    own = TaskFacts("classification", ("accuracy",))  # what an installed package writes
    assert (own.benchmark, own.short, own.typical_tokens, own.eval_splits) == (None, "", 0, ("validation",))
