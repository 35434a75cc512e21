"""Tasks that an installed package brings: validated, planned and written like ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = """
from pathlib import Path
from tasks.base import TaskFacts
from tasks.definitions import DEFINITIONS
from tasks.sequence_classification import SequenceClassification
from tasks import open_task as ours, DataRef

class Weather:
    facts = TaskFacts("classification", ("accuracy",), short="weather")
    def __call__(self, name, data):
        (Path(data.location) / "weather.txt").read_text()
        task = ours("glue/sst2", DataRef("sample"))
        task.name = name
        task.write_data = lambda folder: [write(folder)]
        return task

def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weather.txt").write_text("sun")
    return folder / "weather.txt"

weather = Weather()
def mute(name, data): return weather(name, data)
"""
SUITE = """
title = "weather"
tasks = ["TASK"]
baseline = "torch_fp32"
[models.small]
source = "scratch"
recipe = "finetune"
architecture = {num_hidden_layers = 1, hidden_size = 16, num_attention_heads = 2, intermediate_size = 32}
train = {learning_rate = 1e-3, epochs = 1}
[shape]
max_length = 64
[[backends]]
name = "torch_fp32"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "site" / "weather-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: weather\nVersion: 1\n")
    points = "[quantboard.tasks]\nweather = weather:weather\nmute = weather:mute\n"
    (package / "entry_points.txt").write_text(points)
    (tmp_path / "site" / "weather.py").write_text(PACKAGE)
    for task in ("weather", "mute"):
        (tmp_path / f"{task}-suite.toml").write_text(SUITE.replace("TASK", task))
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "schema.json").write_text("{}")  # so that results go to this folder
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weather.txt").write_text("rain")
    return tmp_path


def quantboard(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "site"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "QUANTBOARD_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "harness", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("task", ["weather", "mute"])
def test_a_suite_with_a_packages_task_is_valid_whether_or_not_it_says_its_kind(folder: Path, task: str) -> None:
    """Sequences of 64 tokens are shorter than the default doc_stride, which only question answering uses."""
    done = quantboard(folder, "validate", f"./{task}-suite.toml")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{task}-suite: no problems\n", "")


def test_a_key_of_question_answering_is_refused_where_the_package_says_another_kind(folder: Path) -> None:
    suite = folder / "weather-suite.toml"
    suite.write_text(suite.read_text().replace("max_length = 64", "max_length = 64\ndoc_stride = 16"))
    done = quantboard(folder, "validate", "./weather-suite.toml")
    assert "shape.doc_stride: only question answering uses it" in done.stderr


def test_a_plan_without_the_packages_data_says_why(folder: Path) -> None:
    done = quantboard(folder, "plan", "./mute-suite.toml", "--json")
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    reason, remedy = cell["blocked"]
    assert reason.startswith("mute: the package that brings this task cannot open it (FileNotFoundError: ")
    assert remedy == "give its data with --data DIR"


def test_data_of_a_packages_task_is_written_by_the_package(folder: Path) -> None:
    done = quantboard(folder, "data", "./weather-suite.toml", "copy", "--data", "data", "--json")
    assert json.loads(done.stdout) == [str(folder / "copy" / "weather.txt")], done.stderr
    (folder / "site" / "weather.py").write_text(PACKAGE.replace("task.write_data", "task.other"))
    done = quantboard(folder, "data", "./weather-suite.toml", "more", "--data", "data")
    assert done.returncode == 2
    assert "cannot write it; copy the folder that you give with --data" in done.stderr


def test_a_run_in_which_every_cell_is_skipped_fails_and_says_why(folder: Path) -> None:
    done = quantboard(folder, "run", "./mute-suite.toml", "--data", "real")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("nothing was run, all 1 cells were skipped: "), done.stderr
