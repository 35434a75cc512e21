"""`run` and `score` on models and data of one's own: names of outputs, bad rows, suite files of one name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main, parser
from harness.cli.suites import RunOptions, _load, command, folder_id, plan_offline, run_options
from harness.errors import QuantboardError
from harness.machine import paths
from harness.records import store
from tests.records.records import make_record
from tests.run.own_tasks import SUITE, save_model, texts, write_rows

CLASSES = ["returns", "delivery", "other"]
TASK = 'kind = "classification"\ntext = "text"\nlabel = "label"\ndata = { train = "rows.jsonl", validation = "rows.jsonl" }\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite, its rows, of which one has an unknown class, and a model that gives its outputs no names."""
    from transformers import BertForSequenceClassification

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "schema.json").write_text("{}")  # so that results go here
    save_model(tmp_path / "model", BertForSequenceClassification, [f"LABEL_{number}" for number in range(3)])
    rows: list[dict[str, Any]] = [{"text": text, "label": CLASSES[row % 3]} for row, text in enumerate(texts(12))]
    write_rows(tmp_path / "rows.jsonl", rows)
    (tmp_path / "own.toml").write_text(SUITE + TASK + f"labels = {json.dumps(sorted(CLASSES))}\n")
    return tmp_path


def options(*words: str) -> RunOptions:
    return run_options(parser().parse_args(["run", "./own.toml", *words]))


def test_labels_name_the_outputs_as_a_suite_does(folder: Path) -> None:
    text = (folder / "own.toml").read_text()
    given = plan_offline(options("--labels", ",".join(CLASSES)))
    assert command(options("--labels", 'a,"b, c"')) == """quantboard run ./own.toml --labels 'a,"b, c"'"""
    in_file = f'{{ source = "model", recipe = "load", labels = {json.dumps(CLASSES)} }}'
    (folder / "own.toml").write_text(text.replace('{ source = "model", recipe = "load" }', in_file))
    assert [cell.key for cell in plan_offline(options()).cells] == [cell.key for cell in given.cells]
    assert not [cell.blocked for cell in given.cells if cell.blocked]
    with pytest.raises(QuantboardError, match="--labels: no chosen model is loaded without names of its own"):
        _load(options("--labels", "a,b,c"))


def test_a_bad_row_stops_a_plan_or_is_left_out_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "rows.jsonl").open("a") as file:
        file.write('{"text": "the museum", "label": "unknown"}\n')
    words = ["plan", "./own.toml", "--labels", ",".join(CLASSES)]
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "line 13: unknown label 'unknown'" in error and error.endswith("with --skip-bad-rows\n")
    assert main([*words, "--skip-bad-rows", "--json"]) == 0
    skipping = options("--skip-bad-rows", "--labels", ",".join(CLASSES))
    assert command(skipping).endswith("--skip-bad-rows")
    cells = plan_offline(skipping).cells
    assert json.loads(cells[0].data.location)["skip_bad_rows"]
    assert "skip_bad_rows" not in cells[0].to_json()["data"], "a declaration says it itself"


def test_data_tells_which_files_a_suite_names_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["data", "./own.toml", "out"]) == 0
    assert "names the files of mine itself; copy them with it: rows.jsonl" in capsys.readouterr().err


def test_score_leaves_out_and_counts_bad_rows_and_counts_each_class(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "glue" / "SST-2").mkdir(parents=True)
    (folder / "glue" / "SST-2" / "dev.tsv").write_text("sentence\tlabel\na\t1\nb\tno\nc\t0\nd\t1\n")
    (folder / "predictions.json").write_text("[1, 1, 0]")
    words = ["score", "glue/sst2", "predictions.json", "--data", "."]
    capsys.readouterr()
    assert main(words) == 2
    assert "line 3: unknown label 'no'" in capsys.readouterr().err
    assert main([*words, "--skip-bad-rows"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert (scored["n"], scored["data"]) == (3, "substitute without 1 unusable row")
    assert scored["accuracy"] == pytest.approx(100 / 3)
    assert scored["classes"] == {
        "negative": {"examples": 1, "predicted": 1, "right": 0},
        "positive": {"examples": 2, "predicted": 2, "right": 1},
    }


def test_a_suite_file_of_the_same_name_elsewhere_does_not_replace_rows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_record(suite="own", model="small", task="mine", suite_folder="0123456789ab")
    store.append(paths.results() / "own" / "run.jsonl", first)
    capsys.readouterr()
    assert main(["run", "./own.toml", "--labels", ",".join(CLASSES)]) == 2
    error = capsys.readouterr().err
    assert "own: a suite file of this name in another folder has records of model 'small'" in error
    assert "rename this file" in error
    mine = make_record(suite="own", model="small", task="mine", suite_folder=folder_id(folder))
    assert folder_id(folder) != folder_id(folder / "suites") == ""
    (paths.results() / "own" / "run.jsonl").unlink()
    store.append(paths.results() / "own" / "run.jsonl", mine)
    assert (
        main(["run", "./own.toml", "--labels", ",".join(CLASSES), "--backend", "torch_fp32", "--until", "train"]) == 0
    )
