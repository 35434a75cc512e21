"""Models from the hub, with the real client against a server on the loopback interface."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.plan.sources import look_up
from tests.tasks.loopback_hub import Fault, LoopbackHub, commit

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import json, os
from harness.errors import SourceUnavailable
from harness.checkpoints.hub import find_source
try:
    folder = find_source("hub:owner/name", os.environ.get("REVISION"))
    print(json.dumps({"files": sorted(path.name for path in folder.iterdir()), "folder": str(folder)}))
except SourceUnavailable as error:
    print(json.dumps({"reason": error.reason, "remedy": error.remedy}))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A repository as on the hub, with 200 kB of weights; only four of its files are wanted."""
    folder = tmp_path / "root" / "models" / "owner" / "name"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "README.md", "flax_model.msgpack"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(200_000))
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')")
    return folder


def fetch(hub: LoopbackHub, home: Path, **environment: str) -> dict[str, Any]:
    out = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=ROOT, env=hub.environment(home) | environment, capture_output=True, text=True, check=True, timeout=90,
    )  # fmt: skip
    assert "Traceback" not in out.stderr
    result: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    return result


def root(model: Path) -> Path:
    return model.parents[2]


def test_only_configuration_tokenizer_and_safetensors_are_fetched(model: Path, tmp_path: Path) -> None:
    with LoopbackHub(root(model)) as hub:
        result = fetch(hub, tmp_path / "home")
    assert result["files"] == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert (Path(result["folder"]) / "model.safetensors").stat().st_size == 200_000
    downloads = [line for line in hub.requests if "/resolve/" in line]
    assert downloads
    assert not [line for line in downloads if line.endswith((".bin", ".py", ".msgpack", ".md"))]


@pytest.mark.slow
def test_a_downloaded_model_needs_no_hub(model: Path, tmp_path: Path) -> None:
    with LoopbackHub(root(model)) as hub:
        before = fetch(hub, tmp_path / "home")
    assert fetch(hub, tmp_path / "home") == before  # the server is gone


@pytest.mark.slow
def test_the_commit_that_was_planned_is_fetched(model: Path, tmp_path: Path) -> None:
    with LoopbackHub(root(model)) as hub:
        assert "files" in fetch(hub, tmp_path / "home", REVISION=commit(model))
        assert fetch(hub, tmp_path / "home", REVISION="0" * 40)["reason"].startswith("hub:owner/name: ")
    assert "files" in fetch(hub, tmp_path / "home", REVISION=commit(model))


@pytest.mark.slow
def test_a_plan_without_the_hub_uses_the_downloaded_commit(model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The hub's client keeps no `main` where a commit is downloaded by its hash."""
    with LoopbackHub(root(model)) as hub:
        fetch(hub, tmp_path / "home", REVISION=commit(model))
        environment = hub.environment(tmp_path / "home")
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
        if name in environment:
            monkeypatch.setenv(name, environment[name])
    source = look_up("hub:owner/name", tmp_path, hub=False)
    assert (source.blocked, source.identity) == (None, {"revision": commit(model)})


@pytest.mark.slow
def test_no_such_model(model: Path, tmp_path: Path) -> None:
    shutil.rmtree(model)
    with LoopbackHub(root(model)) as hub:
        result = fetch(hub, tmp_path / "home")
    assert result["reason"] == "hub:owner/name: the hub has no such model, or you may not read it"
    assert "HF_TOKEN" in result["remedy"]


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_a_hub_that_refuses(model: Path, tmp_path: Path, status: int) -> None:
    with LoopbackHub(root(model), [Fault("/api/models/", status=status)]) as hub:
        result = fetch(hub, tmp_path / "home")
    assert result["reason"].startswith("hub:owner/name: ")
    assert "\n" not in result["reason"]
    if status in (403, 500, 503):
        assert str(status) in result["reason"]


def test_a_hub_that_is_not_reachable(model: Path, tmp_path: Path) -> None:
    with LoopbackHub(root(model)) as hub:
        pass
    begin = time.monotonic()
    result = fetch(hub, tmp_path / "home")
    assert result["reason"].startswith("hub:owner/name: the hub does not answer")
    assert "HF_ENDPOINT" in result["remedy"]
    assert time.monotonic() - begin < 60


@pytest.mark.slow
def test_an_interrupted_download_is_tried_again(model: Path, tmp_path: Path) -> None:
    cut = Fault(r"resolve/.*model\.safetensors", cut=120_000)
    with LoopbackHub(root(model), [cut]) as hub:
        result = fetch(hub, tmp_path / "home", HF_HUB_DOWNLOAD_TIMEOUT="2")
        assert result["reason"].startswith("hub:owner/name: the download failed (")
        assert result["remedy"] == "try again: finished files are kept"
        assert not list((tmp_path / "home").rglob("snapshots/*/model.safetensors"))
        hub.faults.clear()
        hub.requests.clear()
        assert "model.safetensors" in fetch(hub, tmp_path / "home")["files"]


def test_pickled_weights_are_the_last_resort(model: Path, tmp_path: Path) -> None:
    """Safetensors, and the hub's own conversion, are looked for first."""
    (model / "model.safetensors").unlink()
    with LoopbackHub(root(model)) as hub:
        result = fetch(hub, tmp_path / "home")
        assert any("/discussions" in line and "SFconvertbot" in line for line in hub.requests)
        assert "pytorch_model.bin" in result["files"] and "modeling_evil.py" not in result["files"]
        (model / "pytorch_model.bin").unlink()
        result = fetch(hub, tmp_path / "other")
    assert result["reason"] == "hub:owner/name: has no model.safetensors or pytorch_model.bin"
    assert "save_pretrained" in result["remedy"]


def test_weights_in_several_files_are_fetched(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    parts = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for part in parts:
        (model / part).write_bytes(b"x")
    index = {"weight_map": dict(zip("ab", parts, strict=True))}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with LoopbackHub(root(model)) as hub:
        result = fetch(hub, tmp_path / "home")
    assert {*parts, "model.safetensors.index.json"} < set(result["files"])
    assert "pytorch_model.bin" not in result["files"]


@pytest.mark.slow
def test_the_hubs_safetensors_conversion_is_used(model: Path, tmp_path: Path) -> None:
    """As for many older repositories: the hub's bot offers safetensors in pull request 7, somebody else in 6."""
    converted = Path(shutil.copytree(model, model.parent / "converted"))
    (model / "model.safetensors").unlink()
    (converted / "model.safetensors").write_bytes(bytes(1234))
    offers = [
        {
            "num": number, "title": "Adding `safetensors` variant of this model", "author": {"name": author},
            "createdAt": "2024-01-01T00:00:00.000Z", "status": "open", "isPullRequest": True,
            "repo": {"name": "owner/name", "type": "model"}, "repoOwner": {"name": "owner", "type": "user"},
            "pinned": False, "numComments": 0, "numReactionUsers": 0, "topReactions": [],
        }
        for number, author in ((6, "somebody"), (7, "SFconvertbot"))
    ]  # fmt: skip
    with LoopbackHub(root(model)) as hub:
        plain: Any = hub._server.RequestHandlerClass

        class Handler(plain):  # type: ignore[misc]
            def _route(self, path: str, body: str, fault: Fault | None) -> None:
                if path.endswith("/discussions"):
                    author = parse_qs(urlsplit(self.path).query).get("author", [""])[0]
                    by_author = [offer for offer in offers if offer["author"]["name"] == author]  # type: ignore[index]
                    self._json({"discussions": by_author, "count": len(by_author), "start": 0})
                    return
                if "refs/pr/7" in path or commit(converted) in path:
                    path = path.replace("refs/pr/7", "main").replace("owner/name", "owner/converted")
                super()._route(path, body, fault)

        hub._server.RequestHandlerClass = Handler
        result = fetch(hub, tmp_path / "home")
        code = "from harness.checkpoints.hub import hub_revision; print(hub_revision('hub:owner/name'))"
        given = {"cwd": ROOT, "env": hub.environment(tmp_path / "other"), "capture_output": True, "text": True}
        revision = subprocess.run([sys.executable, "-c", code], check=True, **given).stdout.strip()  # type: ignore[call-overload]
        assert revision == commit(converted)  # part of a plan's keys
    assert (Path(result["folder"]) / "model.safetensors").stat().st_size == 1234
    assert fetch(hub, tmp_path / "home") == result  # the server is gone


def test_a_full_disk_is_not_a_fault_of_the_hub(model: Path, tmp_path: Path) -> None:
    code = CODE.replace(
        "try:",
        "import huggingface_hub\n"
        "def full(*_, **__): raise OSError(28, 'No space left on device')\n"
        "huggingface_hub.snapshot_download = full\ntry:",
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode == 1
    assert out.stderr.splitlines()[-1] == "OSError: [Errno 28] No space left on device"
