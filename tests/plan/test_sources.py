"""What is known of a model's source: the revision that the hub reports to its real client, sizes, and ranges."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.plan.sources import ranges_of
from tests.tasks.loopback_hub import Fault, LoopbackHub, commit

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import time
from harness.checkpoints.hub import hub_revision
import huggingface_hub.hf_api
start = time.monotonic()
print(hub_revision("hub:owner/name"), time.monotonic() - start)
"""


def ask_revision(hub: LoopbackHub, home: Path) -> tuple[str, float]:
    out = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=hub.environment(home), capture_output=True, text=True, check=True
    )
    revision, seconds = out.stdout.split()
    return revision, float(seconds)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "models" / "owner" / "name"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return tmp_path / "root"


def test_the_hub_reports_the_revision_of_a_model(models: Path, tmp_path: Path) -> None:
    with LoopbackHub(models) as hub:
        assert ask_revision(hub, tmp_path / "home")[0] == commit(models / "models" / "owner" / "name")


def test_a_hub_models_sizes_are_known_before_anything_is_trained(models: Path, tmp_path: Path) -> None:
    """The plan reports a teacher that is too deep for its student, not the training after hours of fine-tuning the teacher."""
    sizes = {"num_hidden_layers": 5, "hidden_size": 64, "intermediate_size": 128}
    (models / "models" / "owner" / "name" / "config.json").write_text(json.dumps(sizes))
    code = (
        "from harness.plan.spec import CheckpointSpec\nfrom harness.checkpoints.hub import hub_revision\nfrom harness.plan.sources import sizes_of\n"
        "from tasks import DataRef, Shape\n"
        "spec = CheckpointSpec('m', 'squad_v1', 'finetune', 'hub:owner/name', 1, Shape(8), DataRef('hub'))\n"
        "print(sizes_of(spec)); hub_revision('hub:owner/name'); print(sizes_of(spec))"
    )
    with LoopbackHub(models) as hub:
        options = {"cwd": ROOT, "env": hub.environment(tmp_path / "home"), "capture_output": True, "text": True}
        out = subprocess.run([sys.executable, "-c", code], check=True, **options)  # type: ignore[call-overload]
        assert not [line for line in hub.requests if "safetensors" in line]
    assert out.stdout.splitlines() == ["{}", str(sizes)]


def test_ranges_in_a_copy_from_the_hub_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not downloaded, so a file there does not belong to the model."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--name" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "ranges.json").write_text(json.dumps({"scheme": {"name": "q8bert"}}))
    assert ranges_of(str(folder))[0] == "q8bert"
    assert ranges_of("hub:owner/name") == (None, {}, None)


def test_a_hub_that_is_silent_about_conversions_is_not_waited_for(models: Path, tmp_path: Path) -> None:
    with LoopbackHub(models, [Fault("discussions", silent=True)]) as hub:
        revision, seconds = ask_revision(hub, tmp_path / "home")
    assert revision == commit(models / "models" / "owner" / "name")
    assert seconds < 14


@pytest.mark.parametrize("fault", [Fault("api", status=401), Fault("api", status=500), Fault("api", silent=True)])
def test_a_hub_that_does_not_answer_is_given_up_within_seconds(models: Path, tmp_path: Path, fault: Fault) -> None:
    with LoopbackHub(models, [fault]) as hub:
        revision, seconds = ask_revision(hub, tmp_path / "home")
    assert revision == "None"
    assert seconds < 10
