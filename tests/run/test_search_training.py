"""The training at the end of `quantboard search`: when it comes, how long it is, and the suite that it leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import BertForSequenceClassification

from harness.cli.main import main
from harness.cli.search import choose_cells, suite_text
from harness.cli.suites import RunOptions, plan_offline
from harness.errors import QuantboardError
from harness.plan.spec import Cell
from harness.run import search as method
from harness.run import search_training, search_trial
from harness.run.search import Found, Goals, with_changes
from harness.run.search_training import steps_within, trained, why_untrained
from tests.run.own_tasks import WORDS, save_model, texts, write_rows
from tests.run.test_search import LABELS, SUITE, candidate, stand_in


def planned_cell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cell:
    """The row of static INT8 of a small model and task of one's own."""
    stand_in(folder, monkeypatch)
    save_model(folder / "model", BertForSequenceClassification, LABELS)
    for file in ("train.jsonl", "dev.jsonl"):
        write_rows(folder / file, [{"text": text, "label": LABELS[n % 3]} for n, text in enumerate(texts(200))])
    (folder / "own.toml").write_text(SUITE)
    return choose_cells(plan_offline(RunOptions("./own.toml"), ["hub"]), None)[0]


TRAIN = {"learning_rate": 2e-5, "epochs": 3.0, "batch_size": 16, "warmup_ratio": 0.1, "max_steps": 40}


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
    assert steps_within(120, 21.0, origin) == 47
    assert steps_within(7200, 21.0, origin) == 300  # three epochs
    with pytest.raises(
        QuantboardError, match=r"1 minutes are too few: .* took 21 s, a step takes 2.00 s; give --qat-minutes 2"
    ):
        steps_within(60, 21.0, origin)


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
    assert "as given + QAT, 380" in told.out and "only a run tells what it keeps" in " ".join(told.out.split())
    made = {file.name for file in (tmp_path / "cache" / "checkpoints").iterdir()}
    arguments = ["--model", "small-qat", "--backend", "onnxruntime_int8", "--until", "score", "--json"]
    assert main(["run", "./own-searched.toml", *arguments]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["status"] == "ok" and record["accuracy"][0]["metrics"]["accuracy"]["value"] > 60
    assert made == {file.name for file in (tmp_path / "cache" / "checkpoints").iterdir()}
