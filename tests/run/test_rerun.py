"""A cell runs again from its record alone: no suite file is there any more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import QuantboardError
from harness.plan.spec import folder_of
from harness.records import store
from harness.run.rerun import _cell, _check_reading, _check_splits
from tasks import DataRef
from tests.checkpoints.test_corpus import on_text
from tests.records.records import make_record
from tests.run.small import sample_spec
from tests.run.test_run import Checkout


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_a_record_is_all_that_it_takes(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    ended = checkout.run("run", "small", "--backend", "onnxruntime_int8_dynamic")
    assert ended.returncode == 0, ended.stderr
    (old,) = checkout.records()
    (checkout.folder / "suites" / "small.toml").unlink()
    ended = checkout.run("rerun", old["record_id"], "--json")
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
    assert {one["figure"] for one in against["ratios"]} >= {"qps", "p90_ms"}


def test_settings_of_another_version_are_one_line() -> None:
    entry = make_record(settings={"limit": None, "unheard_of": 1}, commit="0123456789abcdef")
    with pytest.raises(QuantboardError, match="check out commit 0123456789ab"):
        _cell(entry, DataRef("sample"), None)


def test_what_a_stage_reads_is_asked_for_before_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not where the cache has what was made of it."""
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path))
    entry = make_record()
    general = on_text(identity={"corpus": "of then"}, distill={"stage": "general"})
    augmented = sample_spec(distill={"stage": "prediction", "augment": {"glove": "glove.txt"}}, parent=general)
    with pytest.raises(QuantboardError, match=r"run-k: its general stage read other text \(of then\) than is here"):
        _check_reading(augmented, entry)
    folder_of(general, tmp_path).mkdir(parents=True)
    with pytest.raises(QuantboardError, match="a file of word vectors, and no record holds where it lies"):
        _check_reading(augmented, entry)
    folder_of(augmented, tmp_path).mkdir()
    _check_reading(augmented, entry)


def test_data_with_a_split_that_the_record_had_not_is_one_line() -> None:
    """MNLI's mismatched part, say, before the whole cell is measured for nothing."""
    _check_splits(make_record(), ["validation"])
    with pytest.raises(
        QuantboardError, match="run-k: the data has other, which the record's had not; give a --data DIR"
    ):
        _check_splits(make_record(), ["validation", "other"])
    _check_splits(make_record(status="failed", accuracy=[]), ["validation", "other"])


def test_a_model_from_a_folder_needs_the_folder(tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "records" / "data" / "record_schema_1.json"
    entry = store.parse(json.loads(path.read_text()))
    settings = json.loads(json.dumps(entry.settings))
    settings["checkpoint"]["parent"]["source"] = settings["checkpoint"]["source"] = "my-model"
    changed = entry.model_copy(update={"settings": settings})
    with pytest.raises(QuantboardError, match="came from a folder 'my-model'; name that folder with --source"):
        _cell(changed, DataRef("sample"), None)
    with pytest.raises(QuantboardError, match=r"there is no model\.safetensors"):
        _cell(changed, DataRef("sample"), tmp_path)
    assert _cell(entry, DataRef("sample"), None).label == "onnxruntime_int8"
