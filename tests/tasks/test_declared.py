"""Tasks of a user's own: files in the forms in which people have them, and metrics against scikit-learn and SciPy."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import DataRef, Task, TaskError, data_identity, open_task
from tasks.declared import Declaration, DeclaredRows
from tasks.tables import read_table

ROWS = [
    ('My card, again, was "declined"', "card"),
    ("Two lines\nof text", "account"),
    ("plain", "card"),
    ("Ünïcode ✓", "other topic"),
]


def written(path: Path, rows: list[tuple[str, str]] = ROWS) -> Path:
    """The rows in the form that the file's name says, with the columns `message` and `topic`."""
    records = [{"message": text, "topic": label} for text, label in rows]
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            table.writerows([("message", "topic"), *rows])
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as parquet

        parquet.write_table(pa.Table.from_pylist(records), path)
    else:
        import datasets

        datasets.Dataset.from_list(records).save_to_disk(path)
    return path


def declared(path: Path, **changes: Any) -> Declaration:
    values = {
        "name": "tickets", "kind": "classification", "data": {"validation": str(path)}, "text": "message", "label": "topic"
    }  # fmt: skip
    return Declaration(**values | changes)


def opened(declaration: Declaration) -> Task:
    return open_task(declaration.name, DataRef("declared", declaration.to_json()))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "saved"])
def test_every_form_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    task = opened(declared(written(tmp_path / name)))
    assert task.labels == ("account", "card", "other topic")
    assert [(row["text"], task.labels[row["label"]]) for row in task.examples("validation")] == ROWS
    here = data_identity("tickets", DataRef("declared", declared(tmp_path / name).to_json()))
    assert here == task.identity and here.splits["validation"].rows == 4


def test_equal_rows_elsewhere_are_equal_data_and_a_changed_row_or_class_is_not(tmp_path: Path) -> None:
    def sha(name: str, rows: list[tuple[str, str]] = ROWS, **changes: Any) -> str:
        return opened(declared(written(tmp_path / name, rows), **changes)).identity.splits["validation"].sha256

    first = sha("a.csv")
    assert sha("b.jsonl") == first
    assert sha("c.csv", [*ROWS[:3], ("Ünïcode ✓", "card")]) != first
    assert sha("a.csv", labels=("card", "account", "other topic")) != first


def test_the_separator_is_found_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('message;topic\n"a; b, c, d";card\n', encoding="utf-8-sig")
    assert read_table(path) == [("line 2", {"message": "a; b, c, d", "topic": "card"})]


def test_numbers_are_the_places_of_named_classes(tmp_path: Path) -> None:
    rows = [("a", "1"), ("b", "0"), ("c", "1")]
    named = opened(declared(written(tmp_path / "a.csv", rows), labels=("negative", "positive")))
    assert [row["label"] for row in named.examples("validation")] == [1, 0, 1]
    assert named.labels == ("negative", "positive")
    assert opened(declared(tmp_path / "a.csv")).labels == ("0", "1")
    many = [(str(label), str(label)) for label in (10, 9, 2)]
    assert opened(declared(written(tmp_path / "b.csv", many))).labels == ("2", "9", "10")


def test_a_models_own_spelling_of_a_class_is_matched(tmp_path: Path) -> None:
    task = opened(declared(written(tmp_path / "a.csv")))
    outputs = np.eye(3, dtype=np.float32)
    decoded = task.decode(["", "", ""], None, outputs, ["Other-Topic", "CARD", "account"])  # type: ignore[arg-type]
    assert decoded == ["other topic", "card", "account"]
    with pytest.raises(TaskError, match="the model calls its classes LABEL_0"):
        task.decode(["", "", ""], None, outputs, ["LABEL_0", "LABEL_1", "LABEL_2"])  # type: ignore[arg-type]


def test_scores_equal_scikit_learns_and_scipys(tmp_path: Path) -> None:
    from scipy import stats
    from sklearn import metrics

    draw = np.random.default_rng(7)
    label, guess = draw.integers(0, 4, 200), draw.integers(0, 3, 200)
    guess[:90] = label[:90]
    task = opened(declared(written(tmp_path / "a.csv", [(f"text {n}", f"c{value}") for n, value in enumerate(label)])))
    scores = task.score(task.examples("validation"), [f"c{value}" for value in guess])
    assert scores.metrics == pytest.approx(
        {
            "accuracy": 100 * metrics.accuracy_score(label, guess),
            "macro_f1": 100 * metrics.f1_score(label, guess, average="macro"),
            "matthews_correlation": 100 * metrics.matthews_corrcoef(label, guess),
        }
    )
    numbers, guesses = draw.normal(size=50), draw.normal(size=50)
    rows = [(f"text {n}", repr(float(value))) for n, value in enumerate(numbers)]
    task = opened(declared(written(tmp_path / "b.csv", rows), kind="regression"))
    scores = task.score(task.examples("validation"), guesses.tolist())
    expected = {"pearson": stats.pearsonr(numbers, guesses)[0], "spearman": stats.spearmanr(numbers, guesses)[0]}
    assert scores.metrics == pytest.approx({name: 100 * value for name, value in expected.items()})


def test_a_pair_has_two_texts(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"a": "one", "b": "two", "same": true}\n{"a": "three", "b": "four", "same": false}\n')
    task = opened(declared(path, kind="pair", text="a", text_pair="b", label="same"))
    assert task.labels == ("False", "True")
    assert task.examples("validation")[0] == {"text": "one", "text_pair": "two", "label": 1, "idx": 0}


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("message,topic\na,b\nc\n", {}, "a.csv: line 3: 1 columns, the header has 2 (separated by commas)"),
        ("message,topic\na,b\nc,\n", {"labels": ("b", "d")}, "a.csv: line 3: unknown label missing"),
        ("message,team\na,b\n", {}, "has no column 'topic' (label); its columns are message, team"),
        ("message,topic\n", {}, "a.csv: holds no rows"),
        ("message,topic\na,x\n", {"kind": "regression"}, "line 2: 'topic' is 'x', not a number"),
        ("message,topic\na,b\n", {}, "has 1 different labels"),
        ("message,message\na,b\n", {}, "two columns are called 'message'"),
        ('message,topic\n"a\n', {}, "a.csv: line 2"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, content: str, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(TaskError) as fault:
        DeclaredRows(declared(path, **changes)).rows("validation")
    assert message in str(fault.value) and "\n" not in str(fault.value)


def test_bad_rows_are_left_out_and_counted_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("message,topic\na,1.5\nb,x\nc,2\n")
    with pytest.raises(TaskError, match="--skip-bad-rows"):
        DeclaredRows(declared(path, kind="regression")).rows("validation")
    rows = DeclaredRows(declared(path, kind="regression", skip_bad_rows=True))
    assert [(row["text"], row["label"], row["idx"]) for row in rows.rows("validation")] == [
        ("a", 1.5, 0),
        ("c", 2.0, 1),
    ]
    assert rows.identity.splits["validation"].label == "own data, 1 rows left out"
