"""The training at the end of `quantboard search`: when it comes, how long it is, and the suite that it leaves."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import BertForSequenceClassification

from harness.checkpoints.training.finetune import training_features
from harness.cli.main import main
from harness.cli.search import choose_cells, suite_text
from harness.cli.suites import RunOptions, plan_offline
from harness.errors import CheckpointError, QuantboardError
from harness.plan.spec import Cell
from harness.run import search as method
from harness.run import search_training, search_trial
from harness.run.search import Found, Goals, with_changes
from harness.run.search_training import rows_to_choose, steps_within, trained, why_untrained
from tasks import open_task
from tasks.tokens import load_tokenizer
from tests.run.own_tasks import WORDS, save_model, texts, tokenizer_of, write_rows
from tests.run.test_search import LABELS, SUITE, candidate, stand_in


def planned_cell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cell:
    """The row of static INT8 of a small model and task of one's own."""
    stand_in(folder, monkeypatch)
    save_model(folder / "model", BertForSequenceClassification, LABELS)
    for file in ("train.jsonl", "dev.jsonl"):
        write_rows(folder / file, [{"text": text, "label": LABELS[n % 3]} for n, text in enumerate(texts(200))])
    (folder / "own.toml").write_text(SUITE)
    return choose_cells(plan_offline(RunOptions("./own.toml"), ["hub"]), None)[0]


TRAIN = {"learning_rate": 2e-5, "epochs": 3.0, "batch_size": 16, "warmup_ratio": 0.1, "max_steps": 40,
         "max_minutes": 1.5, "hold_out": 168}  # fmt: skip


def test_the_suite_that_is_written_has_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plan names the checkpoint that the search has made, so that a run finds it in the cache."""
    cell = planned_cell(tmp_path, monkeypatch)
    scheme = with_changes("engine_int8", {"activations.estimator": "mse"})
    best = replace(candidate(99.0, 2.0), scheme=scheme, train=TRAIN)
    found = Found("accuracy", 168, 100.0, (), (best,), best)
    (tmp_path / "own-searched.toml").write_text(suite_text(SUITE, cell, found, 0.98))
    planned = plan_offline(RunOptions("./own-searched.toml"), ["hub"]).cells
    (row,) = (one for one in planned if (one.model, one.backend) == ("small-qat", "onnxruntime_int8"))
    assert not row.blocked and row.ancestor == "small"
    assert row.checkpoint.key == trained(cell, scheme, TRAIN).checkpoint.key


def test_the_steps_that_fit() -> None:
    """By hand: 16 s for 8 steps, and 5 s of calibration, once more; of 120 s 94 are left, 47 steps of 2 s."""
    origin = {"train_seconds": 16.0, "calibration_seconds": 3.0, "train_windows": 1600}
    assert steps_within(120, 21.0, origin) == (47, 94.0)
    assert steps_within(7200, 21.0, origin) == (300, 7174.0)  # three epochs
    with pytest.raises(
        QuantboardError, match=r"1 minutes are too few: .* took 21 s, a step takes 2.00 s; give --qat-minutes 2"
    ):
        steps_within(60, 21.0, origin)


def test_it_chooses_by_at_most_half_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 rows calibration has 32."""
    cell = planned_cell(tmp_path, monkeypatch)
    assert rows_to_choose(cell, 512) == 84 and rows_to_choose(cell, 50) == 50


def test_rows_that_choose_are_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = planned_cell(tmp_path, monkeypatch)
    spec = trained(cell, "engine_int8", TRAIN | {"hold_out": 84}).checkpoint
    task = open_task(cell.task, cell.data)
    words = tokenizer_of(tmp_path / "model")
    features, count = training_features(task, load_tokenizer(tmp_path / "model"), spec)
    order = np.random.default_rng(spec.seed).permutation(200)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    expected = [rows[place]["text"] for place in sorted({*range(200)} - {*order[32:116].tolist()})]
    assert count == len(features) == 116
    ids = [row[:length].tolist() for row, length in zip(features.input_ids, features.lengths, strict=True)]
    assert ids == words(expected)["input_ids"]
    with pytest.raises(CheckpointError, match=r"train\.hold_out leaves no example to train on"):
        training_features(
            task, load_tokenizer(tmp_path / "model"), replace(spec, calibration={"samples": 0}, train={"hold_out": 200})
        )


def test_what_cannot_be_trained_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = planned_cell(tmp_path, monkeypatch)
    assert "compares vectors of a model as it is" in why_untrained(cell, "similarity", on_sample=False)
    assert why_untrained(cell, "classification", on_sample=True).startswith("sample data: ")
    file = replace(cell, checkpoint=replace(cell.checkpoint, parent=None, source="onnx:/model.onnx"))
    assert "name the model that it was made from" in why_untrained(file, "classification", on_sample=False)
    assert why_untrained(cell, "classification", on_sample=False) == ""


@pytest.mark.slow
def test_what_calibration_cannot_keep_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More than the float model's accuracy is asked: a random model's, of labels that a word decides. So only training reaches it."""
    stand_in(tmp_path, monkeypatch)
    save_model(tmp_path / "model", BertForSequenceClassification, LABELS)
    rows = [{"text": f"{text} {WORDS[n % 3]}", "label": LABELS[n % 3]} for n, text in enumerate(texts(400))]
    write_rows(tmp_path / "train.jsonl", rows[:300])
    write_rows(tmp_path / "dev.jsonl", rows[300:])
    (tmp_path / "own.toml").write_text(SUITE)
    monkeypatch.setattr(search_trial, "ROUNDS", 2)
    monkeypatch.setattr(method, "STEPS", ())
    monkeypatch.setattr(method, "Goals", lambda *_: Goals(1.5, 0.01))
    monkeypatch.setattr(search_training, "SETTINGS", TRAIN | {"learning_rate": 1e-2, "epochs": 20.0})
    code = main(["search", "./own.toml", "--qat-minutes", "5"])
    told = capsys.readouterr()
    assert code == 0, told
    assert all(len(line) <= 80 for line in told.out.splitlines())
    assert "as given + QAT, 220" in told.out  # 20 epochs of the 166 rows that do not choose
    trained = tomllib.loads((tmp_path / "own-searched.toml").read_text())["models"]["small-qat"]["train"]
    assert trained["hold_out"] == 134 and 0 < trained["max_minutes"] < 5
    made = {file.name for file in (tmp_path / "cache" / "checkpoints").iterdir()}
    arguments = ["--model", "small-qat", "--backend", "onnxruntime_int8", "--until", "score", "--json"]
    assert main(["run", "./own-searched.toml", *arguments]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["status"] == "ok" and record["accuracy"][0]["metrics"]["accuracy"]["value"] > 60
    assert made == {file.name for file in (tmp_path / "cache" / "checkpoints").iterdir()}
