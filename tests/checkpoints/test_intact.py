"""What the cache holds is compared with its hash before it is used; what is broken is put aside and made again."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from backends import artefacts
from backends.export import export_cached
from harness.checkpoints.intact import checkpoint_fault
from harness.checkpoints.make import ensure
from harness.errors import CheckpointError
from harness.run.context import Run
from harness.run.steps import ensure_checkpoint
from tests.run.conftest import run  # noqa: F401
from tests.run.small import cache, loads, own_cache, ptq, sample_spec, trained  # noqa: F401

FILES = ("model.safetensors", "config.json", "tokenizer.json", "ranges.json", "origin.json", "SHA256SUMS")


def flip(file: Path, position: float = 0.5) -> None:
    """Change one bit."""
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 1
    file.write_bytes(content)


@pytest.fixture
def copied(cache: Path, trained: Path, tmp_path: Path) -> Path:  # noqa: F811
    """A cache with a trained and a calibrated checkpoint."""
    ensure(ptq(sample_spec()), cache)
    (tmp_path / "copy").mkdir()
    shutil.copytree(cache / "checkpoints", tmp_path / "copy" / "checkpoints")
    return tmp_path / "copy"


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found_and_mended(copied: Path, name: str) -> None:
    spec = ptq(sample_spec())
    folder = copied / "checkpoints" / spec.key
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "origin.json"}
    assert ensure(spec, copied) == folder
    assert not (copied / "broken").exists()
    flip(folder / name)
    assert checkpoint_fault(folder)
    assert ensure(spec, copied) == folder
    (aside,) = (copied / "broken").iterdir()
    assert aside.name.startswith(spec.key)
    assert not checkpoint_fault(folder)
    del before["SHA256SUMS"]
    assert {name: (folder / name).read_bytes() for name in before} == before
    parent = copied / "checkpoints" / sample_spec().key
    assert not checkpoint_fault(parent), "its parent's files are files of their own"


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "empty folder", "list", "deep", "lacking"])
def test_a_damaged_origin_is_told_in_a_line_and_made_again(
    copied: Path,
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    spec, lines = ptq(sample_spec()), list[str]()
    shutil.copytree(copied / "checkpoints", run.cache / "checkpoints")
    origin = run.cache / "checkpoints" / spec.key / "origin.json"
    text = origin.read_text()
    new = {
        "cut": text[:200],
        "empty": "",
        "list": "[]",
        "deep": "[" * 100_000,
        "lacking": '{"weights_sha256": "a", "format": 1}',
    }
    origin.unlink()
    if damage in new:
        origin.write_text(new[damage])
    elif damage == "empty folder":
        shutil.rmtree(origin.parent)
        origin.parent.mkdir()
    object.__setattr__(run, "say", lines.append)
    assert ensure_checkpoint(spec, run) is None
    assert not checkpoint_fault(origin.parent)
    assert f"checkpoint tiny (ptq) {spec.key}: origin.json" in lines[0]
    assert "put aside as" in lines[0]
    assert json.loads(origin.read_text())["key"] == spec.key


def test_early_checkpoints_get_hashes_where_their_weights_are_right(copied: Path) -> None:
    folder = copied / "checkpoints" / sample_spec().key
    (folder / "SHA256SUMS").unlink()
    assert checkpoint_fault(folder) == "SHA256SUMS is missing"
    origin = json.loads((folder / "origin.json").read_text())
    (folder / "origin.json").write_text(json.dumps(origin | {"format": 1}))
    assert checkpoint_fault(folder) == ""
    assert (folder / "SHA256SUMS").is_file()
    (folder / "SHA256SUMS").unlink()
    flip(folder / "model.safetensors", 0.9)
    assert checkpoint_fault(folder) == "model.safetensors: its content is not what was written"


def test_children_of_a_parent_that_got_other_weights_are_made_again(copied: Path) -> None:
    """Training on another machine gives other weights; here another hash stands for them."""
    child, parent = ptq(sample_spec()), copied / "checkpoints" / sample_spec().key
    origin = json.loads((parent / "origin.json").read_text())
    (parent / "origin.json").write_text(json.dumps(origin | {"weights_sha256": "other", "lineage": {}}))
    artefacts.seal_folder(parent)
    with pytest.raises(CheckpointError, match="trained again since"):
        ensure(child, copied)
    (copied / "broken" / f"{parent.name}-20260101T000000Z-1").mkdir(parents=True)
    assert not checkpoint_fault(ensure(child, copied))
    assert any(path.name.startswith(child.key) for path in (copied / "broken").iterdir())


def test_the_hashes_are_those_of_sha256sum(trained: Path) -> None:  # noqa: F811
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=trained, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == {
        file.name for file in trained.iterdir() if file.name != "SHA256SUMS"
    }


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "hash"])
def test_a_damaged_onnx_file_is_exported_again(trained: Path, tmp_path: Path, damage: str) -> None:  # noqa: F811
    path, built = export_cached(trained, tmp_path)
    content = path.read_bytes()
    assert built
    assert export_cached(trained, tmp_path) == (path, False)
    if damage == "hash":
        flip(path.with_name(path.name + ".sha256"))
    elif damage == "flip":
        flip(path)
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
    assert export_cached(trained, tmp_path) == (path, True)
    assert path.read_bytes() == content
    assert len(list((tmp_path / "broken").iterdir())) == 1
    assert export_cached(trained, tmp_path) == (path, False)


def test_an_early_onnx_file_without_a_hash_is_exported_again(trained: Path, tmp_path: Path) -> None:  # noqa: F811
    path, _ = export_cached(trained, tmp_path)
    path.with_name(path.name + ".sha256").unlink()
    assert export_cached(trained, tmp_path) == (path, True)
    assert not (tmp_path / "broken").exists()


def test_the_copied_file_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 5000)
    artefacts.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    flip(tmp_path / "a")
    assert (tmp_path / "b").read_bytes() != (tmp_path / "a").read_bytes()
