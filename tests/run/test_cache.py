"""The verb `cache`: who needs what, what is broken, what may go."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from backends import artefacts
from harness.cli.main import main
from harness.records import store
from harness.records.schema import Checkpoint
from harness.report.kept import folder_of
from harness.report.site import render
from harness.run.executor import locked_cells
from harness.run.work import write_kept
from tests.records.records import make_record

DAY = 86_400


class Cache:
    """A cache with one of each kind, and a results folder whose record needs two of them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.results, self._capsys = folder / "cache", folder / "results", capsys
        made = Checkpoint(
            key="used", recipe="finetune", source="scratch", architecture={}, parameters=1, weights_bytes=1
        )
        record = make_record(key="cell", checkpoint=made)
        self.checkpoint = made.key
        store.append(self.results / "run.jsonl", record)
        for key in (self.checkpoint, "other"):
            place = self.folder / "checkpoints" / key
            place.mkdir(parents=True)
            (place / "model.safetensors").write_bytes(key.encode() * 1000)
            origin = made.model_dump() | {"task": "squad_v1", "settings": {}, "format": 2}
            (place / "origin.json").write_text(json.dumps(origin | {"weights_sha256": key, "key": key}))
            artefacts.seal_folder(place)
        for name in ("engines/onnx/a.onnx", "features/f.npz"):
            (self.folder / name).parent.mkdir(parents=True)
            (self.folder / f"{name}.part").write_bytes(b"content of " + name.encode())
            artefacts.move_sealed(self.folder / f"{name}.part", self.folder / name)
        write_kept(self.folder / "scored" / "cell" / "accuracy.json", {"f1": 80.0})
        write_kept(self.folder / "cells" / "unfinished" / "round-1.json", {"qps": 1.0})
        (self.folder / "broken" / "old").mkdir(parents=True)

    def __call__(self, *words: str) -> tuple[int, Any]:
        self._capsys.readouterr()
        code = main(["cache", *words, "--json", "--results", str(self.results)])
        return code, json.loads(self._capsys.readouterr().out)

    def names(self, *words: str) -> list[str]:
        code, answer = self(*words)
        assert code == 0
        return [entry["name"] for entry in answer]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cache:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    return Cache(tmp_path, capsys)


def test_the_list_says_who_needs_what(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    _, listed = cache()
    assert {entry["name"]: entry["needed"] for entry in listed} == {
        f"checkpoints/{cache.checkpoint}": "1 record",
        "checkpoints/other": "",
        "scored/cell": "1 record",
        "cells/unfinished": "an interrupted run continues from it",
        "engines/onnx/a.onnx": "",
        "features/f.npz": "",
        "broken/old": "",
    }
    sizes = {entry["name"]: entry["bytes"] for entry in listed}
    place = cache.folder / "checkpoints" / "other"
    assert sizes["checkpoints/other"] == sum(file.stat().st_size for file in place.iterdir())
    assert main(["cache", "--results", str(cache.results)]) == 0
    assert "2 of kind checkpoint, 1 needed, the longest unused for 0.0 days" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    ["checkpoints/other/model.safetensors", "engines/onnx/a.onnx", "features/f.npz", "scored/cell/accuracy.json"],
)
def test_every_byte_is_verified(cache: Cache, name: str) -> None:
    """Also where size and times are as before, as on a disk that loses a bit."""
    assert cache("verify") == (0, [])
    file = cache.folder / name
    content, stat = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    code, broken = cache("verify")
    (found,) = broken
    assert code == 1
    assert name.startswith(found["name"])
    assert not (cache.folder / found["name"]).exists()
    assert cache("verify") == (0, [])


def test_rules_prune_and_spare_what_is_needed(cache: Cache) -> None:
    assert cache.names("prune") == ["broken/old"]
    old = time.time() - 40 * DAY
    for file in cache.folder.rglob("*"):
        if "f.npz" not in file.name:
            os.utime(file, (old, old))
    unneeded = ["checkpoints/other", "engines/onnx/a.onnx"]
    assert sorted(cache.names("prune", "--unused-days", "30", "--dry-run")) == unneeded
    assert cache.names("prune", "--unused-days", "30", "--kind", "engine") == ["engines/onnx/a.onnx"]
    assert not (cache.folder / "engines" / "onnx" / "a.onnx.sha256").exists()
    assert cache.names("prune", "--keep-gib", "1") == []
    assert sorted(cache.names("prune", "--keep-gib", "1e-9")) == ["checkpoints/other", "features/f.npz"]
    assert f"checkpoints/{cache.checkpoint}" in cache.names("prune", "--keep-gib", "1e-9", "--needed")
    assert [name for name in cache.names() if not name.startswith("hashes")] == []


def test_what_a_site_left_is_listed_verified_and_pruned(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(cache.folder))
    site = cache.results.parent / "site"
    render(cache.results, site)
    folder = folder_of(site)
    (name,) = cache.names("list", "--kind", "site")
    assert name == f"site/{folder.name}" and cache("verify") == (0, [])
    old = time.time() - 40 * DAY
    for file in folder.rglob("*"):
        os.utime(file, (old, old))
    assert cache.names("prune", "--kind", "site", "--unused-days", "30") == ["broken/old", name]
    assert not folder.exists()
    render(cache.results, site)
    (folder / "briefs").write_bytes((folder / "briefs").read_bytes()[:-1] + b"!")
    assert cache("verify") == (1, [{"name": name, "fault": "briefs: its content is not what was written"}])


def test_what_is_left_over_of_a_finished_cell_goes_without_a_rule(cache: Cache) -> None:
    write_kept(cache.folder / "cells" / "cell" / "accuracy.json", {"f1": 80.0})
    assert cache.names("list", "--kind", "left over") == ["cells/cell"]
    assert cache.names("list", "--kind", "unfinished cell") == ["cells/unfinished"]
    assert sorted(cache.names("prune")) == ["broken/old", "cells/cell"]


def test_nothing_is_deleted_under_a_run(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    """The lock is one process's, so the other one is a child."""
    child = os.fork()
    if not child:
        with locked_cells([make_record(key="cell")], cache.folder):  # type: ignore[list-item]
            time.sleep(60)
        os._exit(0)
    try:
        deadline = time.monotonic() + 10
        while main(["cache", "prune", "--kind", "engine"]) != 2:
            assert time.monotonic() < deadline
        assert "a run uses this cache" in capsys.readouterr().err
        assert main(["cache", "verify"]) == 2
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_an_unknown_kind_is_told(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--kind", "engin"]) == 2
    assert "there is no 'engin'; did you mean 'engine'?" in capsys.readouterr().err
