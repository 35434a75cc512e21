"""Where rows come from: the splits that are present, folders without data, the sample and the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from tasks.base import DataRef, TaskError
from tasks.sources import detect, open_rows, resolve
from tests.tasks.raw_files import write_glue, write_squad


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))


def test_splits_are_those_that_are_present(tmp_path: Path) -> None:
    write_glue(tmp_path, "glue/mnli", files=("train", "dev_matched"))
    source = open_rows("glue/mnli", detect("glue/mnli", tmp_path))
    assert source.splits == ("train", "validation_matched")
    with pytest.raises(TaskError, match=r"no split 'validation_mismatched' in .*; found: train, validation_matched"):
        source.rows("validation_mismatched")
    assert source.identity.missing == ("validation_mismatched",)
    write_glue(tmp_path, "glue/mnli", files=("dev_mismatched",))
    assert open_rows("glue/mnli", detect("glue/mnli", tmp_path)).identity.missing == ()


def test_a_split_is_read_only_when_asked_for(tmp_path: Path) -> None:
    write_squad(tmp_path)
    (tmp_path / "squad" / "train-v1.1.json").write_text("{")
    source = open_rows("squad_v1", detect("squad_v1", tmp_path))
    assert len(source.rows("validation")) == 3
    with pytest.raises(TaskError):
        source.rows("train")


def test_a_missing_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="nowhere: no such folder"):
        detect("squad_v1", tmp_path / "nowhere")
    with pytest.raises(
        TaskError, match=r"no data for squad_v1; looked for squad/\{train-v1.1.json,dev-v1.1.json\} and a folder of"
    ):
        detect("squad_v1", tmp_path)
    with pytest.raises(TaskError, match=r"glue/MNLI/\{train.tsv,dev_matched.tsv,dev_mismatched.tsv\}"):
        detect("glue/mnli", tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(TaskError, match="file: not a folder"):
        detect("glue/mnli", tmp_path / "file")
    with pytest.raises(TaskError, match=r"no data is known for task 'glue/../cola'"):
        detect("glue/../cola", tmp_path)


def test_data_that_was_deleted_after_planning(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no data for squad_v1"):
        open_rows("squad_v1", DataRef("raw", str(tmp_path / "deleted"))).rows("train")


def test_sample(tmp_path: Path) -> None:
    source = open_rows("squad_v1", DataRef("sample"))
    identity = source.identity
    assert (identity.kind, identity.label) == ("sample", "sample")
    assert identity.splits["train"].rows == len(source.rows("train")) > 1000
    assert {part.label for part in identity.splits.values()} == {"sample"}
    assert identity.splits["train"].sha256 != identity.splits["validation"].sha256


def test_resolve(tmp_path: Path) -> None:
    write_squad(tmp_path)
    assert resolve("squad_v1", str(tmp_path), hub=True) == DataRef("raw", str(tmp_path.resolve()))
    assert resolve("squad_v1", "sample", hub=True) == DataRef("sample")
    assert resolve("squad_v1", None, hub=True) == DataRef("hub")
    assert resolve("squad_v1", None, hub=False) == DataRef("sample")
    assert resolve("squad_v1", "real", hub=True) == DataRef("hub")
    refused = resolve("squad_v1", "real", hub=False)
    assert isinstance(refused, tuple)
    assert "--data DIR" in refused[1]
    with pytest.raises(TaskError, match="no data for glue/rte"):
        resolve("glue/rte", str(tmp_path), hub=True)
    # what was downloaded before needs no network
    fetched = tmp_path / "cache" / "hub" / "squad_v1"
    fetched.mkdir(parents=True)
    (fetched / "origin.json").write_text("{}")
    assert resolve("squad_v1", "real", hub=False) == resolve("squad_v1", None, hub=False) == DataRef("hub")


def test_a_task_of_an_installed_package_reads_its_own_data(tmp_path: Path) -> None:
    package = tmp_path / "site" / "weather-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: weather\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[quantboard.tasks]\nweather = weather:open_task\n")
    code = (
        "from tasks import TaskError; from tasks.sources import resolve\n"
        f"for data in ({str(tmp_path)!r}, None): print(resolve('weather', data, hub=False).kind)\n"
        f"try: resolve('whether', {str(tmp_path)!r}, hub=False)\n"
        "except TaskError as error: print(error)"
    )
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(tasks.__file__).parent.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout.splitlines()[:2] == ["raw", "sample"]
    assert done.stdout.splitlines()[2].startswith("no data is known for task 'whether'")
