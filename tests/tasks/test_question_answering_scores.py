"""SQuAD's exact match and F1, and prediction files."""

from __future__ import annotations

import json
import re
import string
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tasks.metrics
from tasks.base import Statistic, TaskError
from tasks.definitions import definition_of
from tasks.metrics.answers import exact_match_and_f1
from tasks.predictions import unknown_ids
from tasks.question_answering import QuestionAnswering
from tests.tasks.rows import MemoryRows

TASK = QuestionAnswering(definition_of("squad_v1"), MemoryRows())
METRICS = Path(tasks.metrics.__file__).parent

texts = st.one_of(
    st.text(max_size=20),
    st.lists(
        st.sampled_from(["the", "The", "a", "an", "AN", "king", "King's", "king", "1,000", "a-b", "the-", "–", "İ", "ß", "é", "e\u0301",
                         ".", "\u00a0", " ", "\u2028", "\u200b", "“the”", "A.", "th.e", "_a_", "a_", "漢字", "$", "€", "ﬁ"]),
        max_size=6,
    ).map(" ".join),
)  # fmt: skip


def official(rows: list[dict[str, Any]], predictions: dict[str, str]) -> dict[str, float]:
    """The rules of the official script in simple code. A question without a prediction adds nothing."""

    def plain(text: str) -> str:
        letters = "".join(character for character in text.lower() if character not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", letters).split())

    def overlap(prediction: str, truth: str) -> float:
        given, wanted = plain(prediction).split(), plain(truth).split()
        shared = sum((Counter(given) & Counter(wanted)).values())
        if not shared:
            return 0
        precision, recall = 1.0 * shared / len(given), 1.0 * shared / len(wanted)
        return (2 * precision * recall) / (precision + recall)

    f1 = exact_match = 0.0
    for row in rows:
        if row["id"] in predictions:
            prediction, truths = predictions[row["id"]], row["answers"]["text"]
            exact_match += max(plain(prediction) == plain(truth) for truth in truths)
            f1 += max(overlap(prediction, truth) for truth in truths)
    return {"exact_match": 100.0 * exact_match / len(rows), "f1": 100.0 * f1 / len(rows)}


def rows_of(answers: list[list[str]], titles: list[str] | None = None) -> list[dict[str, Any]]:
    titles = titles or ["t"] * len(answers)
    return [
        {"id": f"q{at}", "title": title, "context": "", "question": "", "answers": {"text": texts, "answer_start": [0] * len(texts)}}
        for at, (texts, title) in enumerate(zip(answers, titles, strict=True))
    ]  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.lists(texts, min_size=1, max_size=4), st.none() | texts), min_size=1, max_size=12))
@example([(["the"], ""), (["a"], "an"), (["king"], ""), ([""], "the"), (["."], "…")])
def test_metrics_are_the_official_ones(cases: list[tuple[list[str], str | None]]) -> None:
    rows = rows_of([answers for answers, _ in cases])
    predictions = [prediction for _, prediction in cases]
    given_ = {row["id"]: text for row, text in zip(rows, predictions, strict=True) if text is not None}
    scores = TASK.score(rows, predictions)
    assert scores.metrics == official(rows, given_)  # to the last bit
    assert scores.missing == predictions.count(None)


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("The Broncos!", ["Denver Broncos", "broncos"], (1.0, 1.0)),
        ("Denver", ["Denver Broncos"], (0.0, 2 / 3)),
        ("king king", ["king"], (0.0, 2 / 3)),
        ("", ["the"], (1.0, 0.0)),  # both normalize to nothing: a match without any common word
        ("", ["king"], (0.0, 0.0)),
        ("18\u201319", ["18-19"], (0.0, 0.0)),  # a dash is no ASCII punctuation
        ("caf\u00e9", ["cafe"], (0.0, 0.0)),
    ],
)
def test_worked_examples(prediction: str, answers: list[str], expected: tuple[float, float]) -> None:
    assert exact_match_and_f1(prediction, answers) == pytest.approx(expected)


def test_scores_keep_what_intervals_need() -> None:
    rows = rows_of([["king"], ["old city"], ["sea"], ["x"]], titles=["B", "A", "B", "C"])
    scores = TASK.score(rows, ["the king", "city", None, "y" * 5000])
    assert scores.metrics == {"exact_match": 25.0, "f1": pytest.approx(100 * (1 + 2 / 3) / 4)}
    assert scores.groups is not None and scores.groups.tolist() == [0, 1, 0, 2]  # articles
    assert scores.missing == 1
    columns = scores.per_example
    assert columns["id"].tolist() == ["q0", "q1", "q2", "q3"]
    assert columns["prediction"].tolist() == ["the king", "city", "", "y" * 1000]
    assert columns["exact_match"].tolist() == [1, 0, 0, 0]
    assert columns["f1"].tolist() == pytest.approx([1, 2 / 3, 0, 0])
    assert all(column.dtype != object for column in columns.values())
    for name, statistic in scores.statistics.items():
        assert statistic == Statistic("mean", (name,))
        assert scores.metrics[name] == pytest.approx(100 * np.mean(columns[name]))


def test_predictions_of_a_file_come_in_the_order_of_the_examples() -> None:
    rows = rows_of([["king"], ["city"], ["sea"]])
    content = json.dumps({"q2": "sea", "q0": "caf\u00e9"})
    assert TASK.predictions_from_json(rows, content, "p.json") == ["caf\u00e9", None, "sea"]
    assert TASK.predictions_from_json(rows, content.encode("utf-8-sig"), "p.json") == ["caf\u00e9", None, "sea"]
    assert TASK.predictions_from_json(rows, "{}", "p.json") == [None, None, None]


def test_ids_that_are_not_in_the_data_are_left_out_and_named() -> None:
    """As the official script does it: published files have some."""
    content = '{"zz": "b", "q0": "a", "yy": "c"}'
    assert TASK.predictions_from_json(rows_of([["king"]]), content, "p.json") == ["a"]
    assert unknown_ids(content, "p.json", {"q0"}) == ["zz", "yy"]


def test_the_list_that_evaluate_takes_is_read() -> None:
    content = json.dumps([{"id": "q1", "prediction_text": "city"}, {"id": "q0", "prediction_text": "king"}])
    assert TASK.predictions_from_json(rows_of([["king"], ["city"]]), content, "p.json") == ["king", "city"]
    twice = json.dumps([{"id": "q0", "prediction_text": "city"}] * 2)
    with pytest.raises(TaskError, match=r'^p\.json: the id "q0" is not text or occurs twice'):
        TASK.predictions_from_json(rows_of([["king"]]), twice, "p.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"zz": "b", "yy": "c"}',
            "none of its 2 question ids is among those evaluated, such as 'q0'; give the predictions of this split",
        ),
        ('{"q0": "a", "q0": "b"}', "the key 'q0' occurs twice"),
        ('{"q0": 5}', "the answer to 'q0' is 5, not a string"),
        ('{"q0": null}', "the answer to 'q0' is null, not a string"),
        ('{"q0": ["a"]}', "the answer to 'q0' is a list, not a string"),
        ('["a"]', "expected a JSON object {question id: answer}, not a list"),
        ('{"q0": "a"', "line 1: not JSON: "),
        ('{"q0":\n "a\n"}', "line 2: not JSON: "),
        ("", "line 1: not JSON: "),
        (b'{"q0": "\xff\xfe"}', "byte 8: not UTF-8"),
        ("[" * 200_000, "nested too deeply"),
        ('{"q0": ' + "1" * 5000 + "}", "holds a number too long to read"),
    ],
)
def test_a_broken_prediction_file_is_one_line(content: str | bytes, message: str) -> None:
    with pytest.raises(TaskError) as error:
        TASK.predictions_from_json(rows_of([["king"]]), content, "p.json")
    assert str(error.value).startswith(f"p.json: {message}")
    assert "\n" not in str(error.value)


def test_the_evaluate_module_gives_the_same_figures(tmp_path: Path) -> None:
    import evaluate

    rows = rows_of([["king", "the old king"], ["city"], ["sea"]])
    predictions = ["old king", "a city", "lake"]
    metric = evaluate.load(str(METRICS / "squad_v1.py"), cache_dir=str(tmp_path), keep_in_memory=True)
    figures = metric.compute(
        predictions=[{"id": row["id"], "prediction_text": text} for row, text in zip(rows, predictions, strict=True)],
        references=[{"id": row["id"], "answers": row["answers"]} for row in rows],
    )
    assert figures == TASK.score(rows, predictions).metrics


def test_tasks_import_neither_engines_nor_metric_libraries() -> None:
    heavy = ("torch", "transformers", "evaluate", "datasets", "sklearn", "scipy", "pandas")
    code = f"import sys, tasks.question_answering, tasks.sequence_classification; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
