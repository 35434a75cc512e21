"""What is guessed of a labelled file: a table of cases, and the messages where nothing can be."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import QuantboardError
from harness.suite.guess import Columns, Head, guess, head_of
from tasks.declared import KINDS

FIVE = ("returns", "delivery", "payment due", "Account", "other")
NUMBERED = tuple(f"LABEL_{number}" for number in range(3))
LONG = "a text that is longer than the others of its row"


def config(architecture: str, names: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {"architectures": [architecture], **({"id2label": dict(enumerate(names))} if names else {}), **more}


@pytest.mark.parametrize(
    ("content", "head"),
    [
        (config("BertForSequenceClassification", FIVE), Head("classification", FIVE)),
        (config("DistilBertForSequenceClassification"), Head("classification", ("LABEL_0", "LABEL_1"))),
        (config("BertForSequenceClassification", ("LABEL_0",)), Head("regression")),
        (
            config("BertForSequenceClassification", FIVE, problem_type="multi_label_classification"),
            Head("multi_label", FIVE),
        ),
        (config("BertForTokenClassification", ("O", "B-PER")), Head("token_classification", ("O", "B-PER"))),
        (config("RobertaForQuestionAnswering"), Head("question_answering")),
        (config("BertModel"), Head(None)),
        ({}, Head(None)),
    ],
)
def test_the_head_is_read_from_the_configuration(content: dict[str, Any], head: Head) -> None:
    assert head_of(content) == head


def rows(**columns: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


MANY = list(FIVE) * 2
TEN = [LONG] * 10

CASES = [
    # what the columns hold decides: the model's classes
    (rows(id=list("0123456789"), note=TEN, team=MANY), Head("classification", FIVE), Columns("classification", "note", None, "team", FIVE)),
    # classes are spelt as in the file, in the model's order, also those that the file lacks
    (
        rows(text=TEN, label=["PAYMENT_DUE", "account"] * 5),
        Head("classification", FIVE),
        Columns("classification", "text", None, "label", ("returns", "delivery", "PAYMENT_DUE", "account", "other")),
    ),
    # a name decides between two columns that hold classes
    (rows(text=TEN, guess=MANY, topic=MANY), Head("classification", FIVE), Columns("classification", "text", None, "topic", FIVE)),
    # numbers are places, also as floats
    (rows(text=TEN, label=[0, 1] * 5), Head("classification", ("bad", "good")), Columns("classification", "text", None, "label", ("bad", "good"))),
    (rows(text=TEN, label=[0.0, 1.0] * 5), Head("classification", ("bad", "good")), Columns("classification", "text", None, "label", ("bad", "good"))),
    (rows(text=TEN, label=["2", "0"] * 5), Head("classification", NUMBERED), Columns("classification", "text", None, "label", NUMBERED)),
    # the longest text where no name says it
    (rows(subject=["s"] * 10, words=TEN, label=MANY), Head("classification", FIVE), Columns("classification", "words", None, "label", FIVE)),
    # names of two texts make a pair
    (rows(premise=TEN, hypothesis=TEN, label=[0, 2] * 5), Head("classification", NUMBERED), Columns("pair", "premise", "hypothesis", "label", NUMBERED)),
    (rows(index=[1] * 10, Sentence_1=TEN, Sentence_2=TEN, score=[1.5, 3] * 5), Head("regression"), Columns("regression", "Sentence_1", "Sentence_2", "score")),
    # a score: by name, else the only numbers that are no row numbers
    (rows(text=TEN, idx=list(range(10)), stars=["1", "2.5"] * 5), Head("regression"), Columns("regression", "text", None, "stars")),
    (rows(text=TEN, idx=list(range(10)), price=["1", "2.5"] * 5), Head("regression"), Columns("regression", "text", None, "price")),
    # several labels: a column for each
    (rows(text=TEN, bad=[0, 1] * 5, good=[1, 0] * 5), Head("multi_label", ("bad", "good")), Columns("multi_label", "text", None, None, ("bad", "good"))),
    # an encoder without a head is compared with scores of pairs
    (rows(sentence1=TEN, sentence2=TEN, score=[1.5, 3] * 5), Head(None), Columns("similarity", "sentence1", "sentence2", "score")),
    # words and tags
    (rows(id=list(range(10)), tokens=[["a", "b"]] * 10, ner_tags=[[0, 1]] * 10), Head("token_classification", ("O", "B-X")), Columns("token_classification", "tokens", None, "ner_tags", ("O", "B-X"))),
    (rows(text=TEN, team=[["bad", "good"], []] * 5), Head("multi_label", ("bad", "good")), Columns("multi_label", "text", None, "team", ("bad", "good"))),
    (rows(text=TEN, team=["bad;good", "bad"] * 5), Head("multi_label", ("bad", "good")), Columns("multi_label", "text", None, "team", ("bad", "good"))),
    (rows(text=TEN, labels=["bad|good", "bad"] * 5), Head("multi_label", ("bad", "good")), Columns("multi_label", "text", None, "labels", ("bad", "good"))),
]  # fmt: skip


@pytest.mark.parametrize(("table", "head", "expected"), CASES)
def test_columns_and_classes(table: list[dict[str, Any]], head: Head, expected: Columns) -> None:
    assert guess(table, head, Columns(), "a.csv", list(KINDS)) == expected


def test_what_is_given_is_taken() -> None:
    table = rows(text=TEN, other=TEN, label=MANY, team=["x", "y"] * 5)
    given = Columns(kind="pair", text="other", text_pair="text", label="team", labels=("x", "y"))
    assert guess(table, Head("classification", ("bad", "good")), given, "a.csv", list(KINDS)) == given


@pytest.mark.parametrize(
    ("table", "head", "given", "message"),
    [
        (
            rows(id=[1] * 10, body=TEN, team=["x", "y"] * 5),
            Head("classification", FIVE),
            Columns(),
            "a.csv has no column of labels that can be told. Its columns are id, body, team. Name one: {command} --label team",
        ),
        (
            rows(text=TEN, label=MANY),
            Head("classification", FIVE),
            Columns(text="body"),
            "--text: a.csv has no column 'body'",
        ),
        (
            rows(text=TEN, label=MANY),
            Head(None),
            Columns(),
            "names no head; say what it answers: {command} --task-kind",
        ),
        (
            rows(text=TEN, label=["b", "a", "c", "a", "b"] * 2),
            Head("classification", NUMBERED),
            Columns(),
            "give the file's names in the order of the model's: {command} --labels a,b,c",
        ),
        (
            rows(text=TEN, label=["returns", "lost"] * 5),
            Head("classification", FIVE),
            Columns(),
            "column 'label' holds 'lost', and the model's classes are returns, delivery",
        ),
        (rows(n=[1, 2] * 5, label=MANY), Head("classification", FIVE), Columns(), "has no column of texts"),
        (
            rows(text=TEN, label=MANY),
            Head("classification", FIVE),
            Columns(kind="pair"),
            "{command} --text-pair COLUMN",
        ),
        (
            rows(text=TEN, label=MANY),
            Head("classification", FIVE),
            Columns(kind="clasification"),
            "--task-kind: unknown kind 'clasification'; did you mean 'classification'?",
        ),
        (
            rows(id=list(range(10)), text=TEN),
            Head("regression"),
            Columns(),
            "a.csv has no column of numbers, and the model",
        ),
        (
            rows(text=TEN, team=["x", "y"] * 5),
            Head("regression"),
            Columns(label="team"),
            "column 'team' of a.csv holds no numbers",
        ),
        (
            rows(id=list(range(10)), text=TEN, team=["x", "y"] * 5, price=list(range(10)), weight=[1, 2] * 5),
            Head("regression"),
            Columns(),
            "Name one: {command} --label weight",
        ),
        (
            rows(text=TEN, mark=[*range(9), "n/a"]),
            Head("regression"),
            Columns(),
            "Name one: {command} --label mark",
        ),
        (
            rows(text=TEN, team=["x", "y"] * 5),
            Head("token_classification", ("O", "B-PER")),
            Columns(),
            "a.csv has no column of tags, and the model gives each word one (O, B-PER)",
        ),
    ],
)
def test_what_cannot_be_guessed_is_one_line_with_a_fix(
    table: list[dict[str, Any]], head: Head, given: Columns, message: str
) -> None:
    with pytest.raises(QuantboardError) as fault:
        guess(table, head, given, "a.csv", list(KINDS))
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_column_that_holds_the_tags_of_the_model_is_found() -> None:
    table = rows(words=["a b", "c d e"] * 5, gold_tags=["O O", "O B-PER O"] * 5)
    found = guess(table, Head("token_classification", ("O", "B-PER")), Columns(), "a.csv", list(KINDS))
    assert (found.text, found.label) == ("words", "gold_tags")
