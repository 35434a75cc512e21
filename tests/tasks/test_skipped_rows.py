"""Rows that cannot be used: named, or left out and counted; and files of a CSV writer where GLUE's files are expected."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix

from tasks import data_identity
from tasks.base import BadRow, DataRef, TaskError
from tasks.metrics.labels import class_counts
from tasks.saved import write_split_folders
from tasks.sources import detect, open_rows
from tests.tasks.raw_files import SQUAD_ROWS, squad_json, write_squad


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))


def sst2(folder: Path, text: str) -> DataRef:
    (folder / "glue" / "SST-2").mkdir(parents=True, exist_ok=True)
    (folder / "glue" / "SST-2" / "dev.tsv").write_text(text, encoding="utf-8")
    return detect("glue/sst2", folder)


def test_a_bad_line_of_glue_is_named_or_left_out_and_counted(tmp_path: Path) -> None:
    data = sst2(tmp_path, "sentence\tlabel\na good film\t1\na bad one\tno\nshort\na dull one\t0\n")
    with pytest.raises(
        BadRow, match=r"dev\.tsv: line 3: unknown label 'no'; .*, or leave such rows out with --skip-bad-rows"
    ):
        open_rows("glue/sst2", data).rows("validation")
    skipping = replace(data, skip_bad_rows=True)
    rows = open_rows("glue/sst2", skipping).rows("validation")
    assert [(row["sentence"], row["label"], row["idx"]) for row in rows] == [
        ("a good film", 1, 0),
        ("a dull one", 0, 1),
    ]
    for _ in range(2):  # the second time from the cache
        assert data_identity("glue/sst2", skipping).splits["validation"].label == "substitute without 2 unusable rows"
    with pytest.raises(TaskError):
        data_identity("glue/sst2", data)
    none = replace(sst2(tmp_path, "sentence\tlabel\na bad one\tno\n"), skip_bad_rows=True)
    with pytest.raises(TaskError, match="none of its 1 rows can be used; leave --skip-bad-rows out to see why"):
        open_rows("glue/sst2", none).rows("validation")


def test_where_every_row_can_be_used_skipping_changes_nothing(tmp_path: Path) -> None:
    write_squad(tmp_path)
    data = detect("squad_v1", tmp_path)
    assert data_identity("squad_v1", replace(data, skip_bad_rows=True)) == data_identity("squad_v1", data)


def test_a_question_without_an_answer_is_named_or_left_out_and_counted(tmp_path: Path) -> None:
    write_squad(tmp_path)
    content: dict[str, Any] = squad_json(SQUAD_ROWS)
    content["data"][0]["paragraphs"][0]["qas"][0]["answers"] = []
    (tmp_path / "squad" / "dev-v1.1.json").write_text(json.dumps(content))
    data = detect("squad_v1", tmp_path)
    with pytest.raises(BadRow, match=r"data\[0\]\.paragraphs\[0\]\.qas\[0\] .*--skip-bad-rows"):
        open_rows("squad_v1", data).rows("validation")
    skipping = open_rows("squad_v1", replace(data, skip_bad_rows=True))
    assert len(skipping.rows("validation")) == len(SQUAD_ROWS) - 1
    assert skipping.identity.splits["validation"].label.endswith("without 1 unusable row")


def test_a_bad_row_of_a_saved_folder_is_named_or_left_out(tmp_path: Path) -> None:
    from tasks.definitions import definition_of

    rows: list[dict[str, Any]] = [{**row} for row in SQUAD_ROWS]
    rows[1]["answers"] = {"text": ["not there"], "answer_start": [0]}
    write_split_folders(definition_of("squad_v1"), {"validation": rows}, {}, tmp_path / "squad_v1")
    data = detect("squad_v1", tmp_path)
    with pytest.raises(BadRow, match=r"row 1: .*--skip-bad-rows"):
        open_rows("squad_v1", data).rows("validation")
    kept = open_rows("squad_v1", replace(data, skip_bad_rows=True)).rows("validation")
    assert [row["id"] for row in kept] == [row["id"] for row in SQUAD_ROWS if row["id"] != SQUAD_ROWS[1]["id"]]


def test_texts_that_a_csv_writer_quoted_are_told(tmp_path: Path) -> None:
    rows = [("plain text", 0), ('he said "never" twice', 1), ('a "small" boat', 0)]
    path = tmp_path / "glue" / "SST-2" / "dev.tsv"
    sst2(tmp_path, "")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([("sentence", "label"), *rows])
    identity = data_identity("glue/sst2", detect("glue/sst2", tmp_path))
    (note,) = identity.notes
    assert note.startswith("glue/sst2: 2 texts of validation look quoted") and "task of your own" in note
    published = 'sentence\tlabel\n"quoted whole"\t0\nhe said "never"\t1\n"" twice\t0\n'
    assert not data_identity("glue/sst2", sst2(tmp_path, published)).notes


def test_counts_of_classes_are_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    label, predicted = draw.integers(0, 4, 200), draw.integers(0, 4, 200)
    counts = class_counts(predicted, label, "abcd")
    matrix = confusion_matrix(label, predicted)
    for number, name in enumerate("abcd"):
        found = counts[name]
        assert (found.examples, found.predicted) == (matrix[number].sum(), matrix[:, number].sum())
        assert found.right == matrix[number, number]
    label, predicted = draw.integers(0, 2, (100, 3)), draw.integers(0, 2, (100, 3))
    for found, ((_, false), (missed, right)) in zip(
        class_counts(predicted, label, "xyz").values(), multilabel_confusion_matrix(label, predicted), strict=True
    ):
        assert (found.right, found.predicted, found.examples) == (right, right + false, right + missed)


def test_a_file_of_pandas_is_read_where_it_is_declared_and_told_where_it_is_not(tmp_path: Path) -> None:
    """`to_csv(sep="\\t")`: texts with quotes or line breaks are quoted, quotes doubled."""
    import pandas

    from tasks.declared import Declaration, DeclaredRows

    texts = ['he said "never" twice', "plain", "two\nlines", "a, b"]
    frame = pandas.DataFrame({"sentence": texts, "label": [0, 1, 0, 1]})
    (tmp_path / "glue" / "SST-2").mkdir(parents=True)
    path = tmp_path / "glue" / "SST-2" / "dev.tsv"
    frame.to_csv(path, sep="\t", index=False)
    own = Declaration("mine", "classification", {"validation": str(path)}, text="sentence", label="label")
    assert [row["text"] for row in DeclaredRows(own).rows("validation")] == texts
    with pytest.raises(
        BadRow, match=r"dev\.tsv: line 4: 1 columns, expected 2; is the file cut off or written with quotes\?"
    ):
        open_rows("glue/sst2", detect("glue/sst2", tmp_path)).rows("validation")
