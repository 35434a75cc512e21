"""A cell runs again from its record alone, after its suite file was deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import QuantboardError
from harness.plan.spec import folder_of
from harness.records import store
from harness.run.rerun import check_inputs, check_splits, planned_cell
from harness.run.rescore import refuse_declared
from tasks import DataRef
from tests.checkpoints.texts import corpus_spec
from tests.records.records import make_record
from tests.run.small import sample_spec
from tests.run.test_run import Checkout


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_a_record_is_enough_to_run_its_cell_again(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    ended = checkout.run_here("run", "small", "--backend", "onnxruntime_int8_dynamic")
    assert ended.returncode == 0, ended.stderr
    (old,) = checkout.records()
    (checkout.folder / "suites" / "small.toml").unlink()
    ended = checkout.run_here("rerun", old["record_id"], "--json")
    assert ended.returncode == 0, ended.stderr
    assert "this is another cell" not in ended.stderr
    new = checkout.records()[-1]
    printed = json.loads(ended.stdout)
    assert printed["record"] == new
    assert new["key"] == old["key"]
    assert new["record_id"] != old["record_id"]
    assert new["settings"] == old["settings"]
    assert new["checkpoint"] == old["checkpoint"]  # found in the cache, not trained again
    assert new["command"] == f"quantboard rerun {old['record_id']}"
    assert [part["metrics"] for part in new["accuracy"]] == [part["metrics"] for part in old["accuracy"]]
    (against,) = printed["against"]
    assert against["differences"]["f1"]["value"] == 0
    assert {ratio["figure"] for ratio in against["ratios"]} >= {"qps", "p90_ms"}


def test_settings_of_another_version_are_one_line() -> None:
    record = make_record(settings={"limit": None, "unheard_of": 1}, commit="0123456789abcdef")
    with pytest.raises(QuantboardError, match="check out commit 0123456789ab"):
        planned_cell(record, DataRef("sample"), None)


def test_inputs_of_a_stage_are_checked_before_it_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not where the cache has the result."""
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path))
    record = make_record()
    general = corpus_spec(identity={"corpus": "older"}, distill={"stage": "general"})
    augmented = sample_spec(distill={"stage": "prediction", "augment": {"glove": "glove.txt"}}, parent=general)
    with pytest.raises(QuantboardError, match=r"run-k: its general stage read other text \(older\) than this data has"):
        check_inputs(augmented, record)
    folder_of(general, tmp_path).mkdir(parents=True)
    with pytest.raises(QuantboardError, match="a file of word vectors, and records do not say where"):
        check_inputs(augmented, record)
    folder_of(augmented, tmp_path).mkdir()
    check_inputs(augmented, record)


def test_data_with_another_split_is_one_line() -> None:
    """For example MNLI's mismatched part; the message comes before the cell is measured in vain."""
    check_splits(make_record(), ["validation"])
    with pytest.raises(
        QuantboardError, match="run-k: the data has other, which the record's data did not have; give a --data DIR"
    ):
        check_splits(make_record(), ["validation", "other"])
    check_splits(make_record(status="failed", accuracy=[]), ["validation", "other"])


def test_a_task_of_a_suite_file_cannot_be_scored_or_run_without_it() -> None:
    record = make_record()
    refuse_declared(record)
    assert record.data is not None
    declared = record.model_copy(update={"data": record.data.model_copy(update={"kind": "declared"})})
    with pytest.raises(QuantboardError, match=f"is declared in the suite file {record.suite}.toml.*quantboard run"):
        refuse_declared(declared)


def test_a_model_from_a_folder_needs_the_folder(tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "records" / "data" / "record_schema_1.json"
    record = store.parse(json.loads(path.read_text()))
    settings = json.loads(json.dumps(record.settings))
    settings["checkpoint"]["parent"]["source"] = settings["checkpoint"]["source"] = "my-model"
    changed = record.model_copy(update={"settings": settings})
    with pytest.raises(QuantboardError, match="came from a folder 'my-model'; name that folder with --source"):
        planned_cell(changed, DataRef("sample"), None)
    with pytest.raises(QuantboardError, match=r"there is no model\.safetensors"):
        planned_cell(changed, DataRef("sample"), tmp_path)
    assert planned_cell(record, DataRef("sample"), None).label == "onnxruntime_int8"
