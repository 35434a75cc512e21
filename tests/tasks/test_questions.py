"""Questions of one's own: forms of files, and questions without an answer as SQuAD's official script scores them."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.measure.intervals import intervals
from harness.measure.paired import differences
from harness.records.scores import statistics_of
from harness.run.rescore import _prediction
from tasks import DataRef, Features, Shape, Task, TaskError, open_task
from tasks.declared import Declaration
from tasks.metrics.answers import normalize_answer
from tasks.questions import read_questions
from tasks.sample import sample_rows, sample_tokenizer
from tasks.tables import read_table
from tasks.unanswerable import Answer
from tests.tasks.raw_files import SQUAD_ROWS, squad_json, write_squad


def opened(path: Path, **changes: Any) -> Task:
    values = {"name": "mine", "kind": "question_answering", "data": {"validation": str(path)}}
    return open_task("mine", DataRef("declared", Declaration(**values | changes).to_json()))


def in_form(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    if name == "nested.json":
        path.write_text(json.dumps(squad_json(rows)))
    elif name == "flat.json":
        path.write_text(json.dumps(rows))
    elif name == "data.json":
        path.write_text(json.dumps({"data": rows}))
    elif name == "answers.json":
        lists = [
            [{"text": text, "answer_start": start} for text, start in zip(*row["answers"].values(), strict=True)]
            for row in rows
        ]
        path.write_text(json.dumps([{**row, "answers": answers} for row, answers in zip(rows, lists, strict=True)]))
    elif name == "rows.parquet":
        import pyarrow as pa
        import pyarrow.parquet as parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:  # lines, whatever the name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


FORMS = ("nested.json", "flat.json", "data.json", "answers.json", "rows.parquet", "lines.jsonl", "lines.json")


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    task = opened(in_form(tmp_path, name, SQUAD_ROWS))
    assert task.examples("validation") == SQUAD_ROWS
    assert task.identity.digest == opened(in_form(tmp_path, "nested.json", SQUAD_ROWS)).identity.digest
    assert task.primary_metric == "f1"


def test_squad_v1_takes_rows_and_lines_in_its_file(tmp_path: Path) -> None:
    from tasks.sources import detect, open_rows

    path = write_squad(tmp_path, files=("dev",))
    for name in ("flat.json", "lines.json"):
        path.write_text(in_form(tmp_path, name, SQUAD_ROWS).read_text())
        assert open_rows("squad_v1", detect("squad_v1", tmp_path)).rows("validation") == SQUAD_ROWS


def test_rows_without_titles_are_grouped_by_their_paragraph_and_numbered(tmp_path: Path) -> None:
    rows = [
        {"context": context, "question": "Who?", "answer": "Ann", "answer_start": 0}
        for context in ("Ann.", "Ann!", "Ann.")
    ]
    examples = opened(in_form(tmp_path, "a.jsonl", rows)).examples("validation")
    assert [row["title"] for row in examples] == ["context 1", "context 2", "context 1"]
    assert [row["id"] for row in examples] == ["0", "1", "2"]
    assert examples[0]["answers"] == {"text": ["Ann"], "answer_start": [0]}


def test_one_unusable_row_is_named_or_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{**SQUAD_ROWS[0], "answers": {"text": [], "answer_start": []}}, *SQUAD_ROWS[1:]]
    path = in_form(tmp_path, "flat.json", rows)
    with pytest.raises(TaskError) as fault:
        opened(path).examples("validation")
    assert str(fault.value) == (
        f"{path}: row 1 (id {SQUAD_ROWS[0]['id']}): no answer; write unanswerable = true where some questions have none, or"
        " leave such rows out with --skip-bad-rows"
    )
    task = opened(path, skip_bad_rows=True)
    assert task.examples("validation") == SQUAD_ROWS[1:]
    assert task.identity.splits["validation"].label == "own data, 1 rows left out"
    assert opened(path, unanswerable=True).examples("validation") == rows


@pytest.mark.parametrize(("encoding", "words"), [("utf-16-le", "UTF-16 units"), ("utf-8", "bytes of UTF-8")])
def test_an_offset_in_other_units_is_recognised(tmp_path: Path, encoding: str, words: str) -> None:
    context = "🙂 The café was built in 1911."
    start = len(context[: context.index("1911")].encode(encoding)) // (2 if encoding == "utf-16-le" else 1)
    row = {"context": context, "question": "When?", "answers": {"text": ["1911"], "answer_start": [start]}}
    with pytest.raises(TaskError) as fault:
        opened(in_form(tmp_path, "a.jsonl", [row])).examples("validation")
    assert f"is not at its offset {start}" in str(fault.value) and f"it counts {words}" in str(fault.value)
    assert "\n" not in str(fault.value)


def v2_rows() -> list[dict[str, Any]]:
    """Questions of the sample, of which every third has no answer."""
    rows = sample_rows("squad_v1", "validation")[:240]
    nothing: dict[str, Any] = {"text": [], "answer_start": []}
    return [{**row, "answers": nothing if number % 3 == 0 else row["answers"]} for number, row in enumerate(rows)]


def official(rows: list[dict[str, Any]], predictions: dict[str, str], na_probs: dict[str, float]) -> dict[str, float]:
    """`evaluate-v2.0.py`: exact and F1 of the predictions, and the best threshold found as it does."""

    def f1_of(gold: str, prediction: str) -> float:
        gold_words, words = normalize_answer(gold).split(), normalize_answer(prediction).split()
        common = sum((collections.Counter(gold_words) & collections.Counter(words)).values())
        if not gold_words or not words:
            return float(gold_words == words)
        if common == 0:
            return 0.0
        precision, recall = common / len(words), common / len(gold_words)
        return 2 * precision * recall / (precision + recall)

    exact, f1, has_answer = {}, {}, {}
    for row in rows:
        golds = [text for text in row["answers"]["text"] if normalize_answer(text)] or [""]
        prediction = predictions[row["id"]]
        exact[row["id"]] = max(float(normalize_answer(gold) == normalize_answer(prediction)) for gold in golds)
        f1[row["id"]] = max(f1_of(gold, prediction) for gold in golds)
        has_answer[row["id"]] = bool(row["answers"]["text"])

    def best(scores: dict[str, float]) -> float:
        current = highest = float(sum(not has for has in has_answer.values()))
        for id_ in sorted(na_probs, key=lambda id_: na_probs[id_]):
            current += scores[id_] if has_answer[id_] else (-1 if predictions[id_] else 0)
            highest = max(highest, current)
        return 100 * highest / len(scores)

    count = len(rows)
    return {
        "exact": 100 * sum(exact.values()) / count, "f1": 100 * sum(f1.values()) / count,
        "best_exact": best(exact), "best_f1": best(f1),
    }  # fmt: skip


def guesses(rows: list[dict[str, Any]], seed: int) -> list[Answer]:
    """Right, half right and wrong spans, with odds that know something of the truth."""
    draw = np.random.default_rng(seed)
    answers = []
    for row in rows:
        true = row["answers"]["text"]
        text = true[0] if true and draw.random() < 0.6 else " ".join(row["context"].split()[:2])
        answers.append(Answer(text, float(draw.normal((-1.0 if true else 0.3) + 0.7, 1.0))))
    return answers


def test_scores_equal_the_official_scripts(tmp_path: Path) -> None:
    rows = v2_rows()
    task: Any = opened(in_form(tmp_path, "flat.json", rows), unanswerable=True)
    answers = guesses(rows, 1)
    scores = task.score(rows, answers)
    odds = {row["id"]: answer.null_odds for row, answer in zip(rows, answers, strict=True)}
    given = {row["id"]: answer.given for row, answer in zip(rows, answers, strict=True)}
    spans = {row["id"]: answer.text for row, answer in zip(rows, answers, strict=True)}
    now, searched = official(rows, given, odds), official(rows, spans, odds)
    expected = {name: (searched if name.startswith("best") else now)[name] for name in now}
    assert scores.metrics == pytest.approx(expected)
    assert expected["best_f1"] > expected["f1"] > 30
    assert statistics_of(scores.metrics, scores.per_example) == scores.statistics
    assert task.stored_predictions(scores.per_example) == answers
    assert task.score(rows, list(given.values())).metrics["f1"] == pytest.approx(now["f1"])
    assert set(task.score(rows, [None] * len(rows)).metrics.values()) == {0.0}
    other = task.score(rows, guesses(rows, 2))
    for name, figure in intervals(scores, 2000).items():
        assert figure.low is not None and figure.high is not None and figure.low < figure.value < figure.high
        (test,) = differences([scores, other], name, [(0, 1)])
        assert test.p is not None
    assert _prediction(task, "") is None


def test_no_answer_scores_as_the_first_token_of_the_window_where_it_is_lowest(tmp_path: Path) -> None:
    rows = v2_rows()[:12]
    task = opened(in_form(tmp_path, "flat.json", rows), unanswerable=True)
    features = task.features(rows, sample_tokenizer(), Shape(40, doc_stride=8), training=True)
    assert isinstance(features, Features) and len(features) > len(rows)
    empty = np.array([not rows[example]["answers"]["text"] for example in features.example_index])
    assert not features.labels["start_positions"][empty].any(), "training points to the first token"
    outputs = np.random.default_rng(4).normal(size=(*features.input_ids.shape, 2)).astype(np.float32)
    answers = task.decode(rows, features, outputs)
    spans: Any = opened(in_form(tmp_path, "b.json", [row for row in rows if row["answers"]["text"]]))
    assert [answer.text for answer in answers] == spans.decode(rows, features, outputs)
    for number, answer in enumerate(answers):
        windows = np.flatnonzero(features.example_index == number)
        null = min(float(outputs[window, 0].astype(np.float64).sum()) for window in windows)
        best = spans._spans(rows, features, outputs)[number][1]
        assert answer.null_odds == pytest.approx(null - best)


def test_a_csv_file_has_an_answer_and_its_start_in_each_row(tmp_path: Path) -> None:
    file = tmp_path / "questions.csv"
    file.write_text("id,context,question,answer,answer_start\n7,a red house,What is red?,house,6\n")
    ((row,), left_out) = read_questions(file, unanswerable=False, skip=False, read_table=read_table)
    assert (row["answers"], left_out) == ({"text": ["house"], "answer_start": [6]}, 0)


@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", "text,label\nx,y\n"), ("a.json", '[{"text": "x", "label": "y"}]')]
)
def test_rows_that_are_no_questions_are_named_by_their_columns(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(
        TaskError, match=r"questions need the columns context, question and answers.*columns are text, label"
    ):
        read_questions(tmp_path / name, unanswerable=False, skip=False, read_table=read_table)
