"""The whole nightly, dry: two nights on the sample as `nox -s nightly` runs them, an engine that is slower in the second."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("nox")
ROOT = Path(__file__).resolve().parents[1]

SUITE = """
title = "A night"
tasks = ["glue/rte"]
baseline = "onnxruntime_fp32"
seeds = [1]
[models.tiny]
source = "scratch"
recipe = "finetune"
architecture = { num_hidden_layers = 1, hidden_size = 64, num_attention_heads = 2, intermediate_size = 128 }
train = { learning_rate = 5e-4, epochs = 1, max_steps = 10, batch_size = 8 }
[shape]
max_length = 64
batch_sizes = [8]
[[backends]]
name = "onnxruntime_fp32"
[[backends]]
name = "patient_fp32"
[measure]
scenarios = ["offline"]
loads = ["real"]
threads = 1
rounds = 4
min_duration = 0.1
min_queries = 8
max_warmup = 1.0
"""
NIGHT = """
suites = ["night"]
require = ["onnxruntime_fp32", "patient_fp32"]
data = "sample"
against = "reference"
max_slowdown = "5%"
max_loss = 0.5
"""
PATIENT = '''
"""An engine that keeps the processor busy after each call, for the share of its time that the environment says."""
import os
from dataclasses import dataclass, field, replace
from backends import get_backend
from tests.bench.slowed import INNER, Slowed, SlowedSession

@dataclass(frozen=True)
class Patient(Slowed):
    name: str = "patient_fp32"
    options: dict = field(default_factory=dict)

    def prepare(self, checkpoint, settings, device):
        return SlowedSession(get_backend(INNER).prepare(checkpoint, settings, device), float(os.environ["SLOWER"]))

PATIENT = Patient()
'''
PROGRAM = """
import sys
from harness.cli.main import main
from harness.report import speed_ratios
from harness.run import roofline
# other tests may keep this machine busy, and the engine is slower by far more than they can make it
speed_ratios.OTHERS_BOUND = speed_ratios.STEAL_BOUND = speed_ratios.WORST_BOUND = speed_ratios.THROTTLED_BOUND = 1e9
roofline._ceilings = lambda run, threads: []  # they take seconds in every run
sys.exit(main(sys.argv[1:]))
"""


class Failed(Exception):
    """How a session ends badly."""


class Session:
    """What `nightly` uses of a nox session: `quantboard` runs from this checkout."""

    def __init__(self, folder: Path, slower: float) -> None:
        self.posargs: list[str] = []
        self.commands: list[tuple[str, ...]] = []
        self._folder = folder
        paths = os.pathsep.join(map(str, (folder / "engine", ROOT)))
        self._environment = os.environ | {
            "PYTHONPATH": paths,
            "SLOWER": str(slower),
            "QUANTBOARD_CACHE": str(folder / "cache"),
        }

    def run(self, *words: str, stdout: Any = None) -> None:
        from nox.command import CommandFailed

        assert words[0] == "quantboard"
        self.commands.append(words)
        command = [sys.executable, str(self._folder / "program.py"), *words[1:]]
        done = subprocess.run(command, cwd=self._folder, env=self._environment, stdout=stdout, text=True)
        if done.returncode:
            raise CommandFailed(f"{words} ended with {done.returncode}")

    def log(self, text: str) -> None:
        print(text)

    def error(self, text: str) -> None:
        raise Failed(text)


@pytest.fixture
def nightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A checkout with a suite and a nightly.toml of its own, and its noxfile."""
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "schema.json").write_text("{}")
    (tmp_path / "suites" / "night.toml").write_text(SUITE)
    (tmp_path / "nightly.toml").write_text(NIGHT)
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "site").symlink_to(ROOT / "site")
    engine = tmp_path / "engine"
    (engine / "patient-1.0.dist-info").mkdir(parents=True)
    (engine / "patient-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: patient\nVersion: 1.0\n")
    (engine / "patient-1.0.dist-info" / "entry_points.txt").write_text(
        "[quantboard.backends]\npatient_fp32 = patient:PATIENT\n"
    )
    (engine / "patient.py").write_text(PATIENT)
    shutil.copy(ROOT / "noxfile.py", tmp_path)
    spec = importlib.util.spec_from_file_location("noxfile_of_the_test", tmp_path / "noxfile.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "install", lambda session, *extras: None)
    monkeypatch.chdir(tmp_path)
    return module


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_a_slow_down_between_two_nights_ends_red_with_a_history(
    nightly: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    first = Session(tmp_path, slower=0.0)
    nightly.nightly(first)  # nothing to compare with yet
    assert [words[1] for words in first.commands] == ["doctor", "run", "site"]
    assert not summary.exists() and not list((tmp_path / "_site").glob("history-*.html"))
    shutil.copytree(tmp_path / "results", tmp_path / "reference")

    second = Session(tmp_path, slower=9.0)
    with pytest.raises(Failed, match=r"^the night is worse than the reference$"):
        nightly.nightly(second)
    assert [words[1] for words in second.commands] == ["doctor", "run", "gate", "site"]
    text = summary.read_text()
    worse = [line for line in text.splitlines() if line.startswith("| night")]
    assert text.startswith("### WORSE than reference")
    # On a busy machine the gate may tell as well of a speed that was not steady after its second of warm-up.
    (slower,) = (line for line in worse if "was not steady" not in line)
    lost = re.search(r"patient\\_fp32 .* speed-up, tonight: -(\d+)\.\d%", slower)
    assert lost and int(lost[1]) > 75  # a tenth of its speed is left

    records = [json.loads(line) for file in (tmp_path / "results").rglob("*.jsonl") for line in file.open()]
    nights = [record for record in records if record["label"] == "patient_fp32"]
    assert len(nights) == 2 and len({record["run_id"] for record in nights}) == 2
    assert nights[0]["accuracy"][0]["metrics"] == nights[1]["accuracy"][0]["metrics"]
    (page,) = (tmp_path / "_site").glob("history-*.html")
    shown = page.read_text()
    (section,) = re.findall(r'<section class="card pad night" id="patient-fp32".*?</section>', shown, re.S)
    assert '<span class="tag failed">slower</span>' in section and 'class="bad"' in section
    assert f'href="{page.name}"' in (tmp_path / "_site" / page.name.replace("history-", "task-")).read_text()
