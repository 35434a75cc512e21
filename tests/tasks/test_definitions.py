"""A task that is only a definition: all that the harness needs follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks import TaskFacts, open_task, short_name, task_facts, task_names
from tasks.base import DataRef, Shape, TaskError
from tasks.definitions import DEFINITIONS, Definition, OfficialSplit, RawFiles
from tasks.sources import detect, open_rows, write_saved
from tests.tasks.wordpiece import small_tokenizer

TONE = Definition(
    name="reviews/tone",
    kind="classification",
    metrics=("accuracy", "f1"),
    primary_metric="f1",
    texts=("message", "reply"),
    classes={"calm": (), "angry": ("mad",)},
    splits={"train": OfficialSplit(3), "test": OfficialSplit(2)},
    raw=RawFiles(
        folder="reviews/Tone-1",
        names={"train": "train.tsv", "test": "test.tsv"},
        headers={"message": "text", "label": "tone"},
        ignored_labels=("?",),
    ),
    hub=("someone/reviews", "tone"),
    short="tone",
    benchmark="Reviews",
    typical_tokens=20,
)
STARS = Definition(
    name="stars",
    kind="regression",
    metrics=("pearson",),
    primary_metric="pearson",
    texts=("text",),
    score_range=(1.0, 10.0),
    splits={"train": OfficialSplit(2), "validation": OfficialSplit(2)},
    raw=RawFiles(folder="stars", names={"validation": "stars.tsv"}, positions={"label": 0, "text": 2}, width=3),
    hub=("someone/stars", None),
)


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    for task in (TONE, STARS):
        monkeypatch.setitem(DEFINITIONS, task.name, task)


def write_tone(root: Path) -> Path:
    folder = root / "reviews" / "tone_1"
    folder.mkdir(parents=True)
    lines = ["tone\ttext\treply", "angry\tThe king was here\twho", "calm\tthe city\twhat", "?\tthe sea\twhere"]
    for split in ("train", "test"):
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return root


def test_facts_follow_from_the_definition() -> None:
    assert task_names()[-2:] == ["reviews/tone", "stars"]
    assert task_facts("reviews/tone") == TaskFacts(
        "classification", ("accuracy", "f1"), "Reviews", "tone", 20, eval_splits=("test",)
    )
    assert (short_name("reviews/tone"), short_name("stars")) == ("tone", "stars")
    assert TONE.columns == ("message", "reply", "label")
    assert (TONE.labels, STARS.labels) == (("calm", "angry"), ("score",))


def test_a_classification_goes_from_its_files_to_its_metrics(tmp_path: Path) -> None:
    task = open_task("reviews/tone", detect("reviews/tone", write_tone(tmp_path)))
    rows = task.examples("test")
    assert rows == [
        {"message": "The king was here", "reply": "who", "label": 1, "idx": 0},
        {"message": "the city", "reply": "what", "label": 0, "idx": 1},
    ]
    assert (task.eval_splits, task.primary_metric, task.kind) == (("test",), "f1", "classification")
    assert {name: part.label for name, part in task.identity.splits.items()} == {
        "train": "substitute",
        "test": "official (by row count)",
    }
    features = task.features(rows, small_tokenizer(), Shape(20), training=True)
    assert features.labels["labels"].tolist() == [1, 0]
    assert features.token_type_ids.any()
    predictions = task.decode(rows, features, np.array([[2, 1], [2, 1]], np.float32), ("MAD", "calm"))
    assert predictions == ["angry", "angry"]
    assert task.score(rows, predictions).metrics == {"accuracy": 50.0, "f1": pytest.approx(200 / 3)}
    assert task.predictions_from_json(rows, '["Mad", 0]', "p.json") == ["angry", "calm"]


def test_a_regression_has_its_own_range_and_its_own_columns(tmp_path: Path) -> None:
    (tmp_path / "stars").mkdir()
    path = tmp_path / "stars" / "stars.tsv"
    path.write_text("9.5\tx\tthe king\n2\ty\tthe sea\n")
    task = open_task("stars", detect("stars", tmp_path))
    rows = task.examples("validation")
    assert [(row["text"], row["label"]) for row in rows] == [("the king", 9.5), ("the sea", 2.0)]
    scores = task.score(rows, [8.0, None])
    assert scores.per_example["predicted"].tolist() == [8.0, 10.0]  # the end of the range that is farther from 2
    with pytest.raises(TaskError, match=r"row 2: Infinity is not a score; give a number from 1 to 10, or null"):
        task.predictions_from_json(rows, "[3, 1e999]", "p.json")
    path.write_text("0.5\tx\tthe king\n")
    with pytest.raises(TaskError, match=r"stars\.tsv: line 1: the score must be a number from 1 to 10, not 0\.5"):
        open_rows("stars", detect("stars", tmp_path)).rows("validation")


def test_saved_folders_and_missing_data_follow_too(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (written,) = write_saved(["reviews/tone"], detect("reviews/tone", write_tone(tmp_path / "raw")), tmp_path / "out")
    assert written == tmp_path / "out" / "reviews" / "tone"
    with pytest.raises(TaskError, match=r"looked for reviews/Tone-1/\{train.tsv,test.tsv\} and a folder of"):
        detect("reviews/tone", tmp_path)
    with pytest.raises(TaskError, match="reviews/tone: the sample has no rows for it; give the data with --data DIR"):
        open_task("reviews/tone", DataRef("sample")).examples("train")
