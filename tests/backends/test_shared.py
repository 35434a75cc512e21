"""Artefacts that machines share: what arrives is what was sealed, or it does not arrive."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from backends import artefacts, shared


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "store"
    monkeypatch.setenv(shared.URL, folder.as_uri())
    return folder


def checkpoint(cache: Path) -> Path:
    folder = cache / "checkpoints" / "key"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    (folder / "inner" / "config.json").write_text("{}")
    artefacts.seal_folder(folder)
    return folder


def onnx_file(cache: Path) -> Path:
    path = cache / "onnx" / "graph.onnx"
    path.parent.mkdir(parents=True)
    path.with_suffix(".part").write_bytes(b"graph" * 1000)
    artefacts.move_sealed(path.with_suffix(".part"), path)
    return path


@pytest.mark.parametrize("make", [checkpoint, onnx_file])
def test_another_cache_gets_what_was_shared(tmp_path: Path, store: Path, make) -> None:  # type: ignore[no-untyped-def]
    one, other = tmp_path / "one", tmp_path / "other"
    path = make(one)
    assert artefacts.share(path, one) == ""
    assert artefacts.share(path, one) == ""
    target = other / path.relative_to(one)
    assert artefacts.usable(target, other)
    files = [file for file in path.rglob("*") if file.is_file()] or [path]
    for file in files:
        assert (other / file.relative_to(one)).read_bytes() == file.read_bytes()
    assert not artefacts.folder_fault(target) if target.is_dir() else not artefacts.file_fault(target)
    assert [file.name for file in store.rglob("*") if file.is_file()] == [f"{path.name}.tar"]
    assert not [left for folder in (one, other) for left in folder.rglob(".part-*")]


@pytest.mark.parametrize("make", [checkpoint, onnx_file])
@pytest.mark.parametrize("damage", ["header", "content", "cut", "empty"])
def test_what_is_damaged_in_the_store_is_put_aside_and_shared_anew(  # type: ignore[no-untyped-def]
    tmp_path: Path, store: Path, make, damage: str
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    path = make(one)
    artefacts.share(path, one)
    (packed,) = store.rglob("*.tar")
    content = bytearray(packed.read_bytes())
    if damage in ("header", "content"):
        largest = max((file for file in path.rglob("*") if file.is_file()), key=file_size, default=path)
        content[0 if damage == "header" else content.index(largest.read_bytes()) + 100] ^= 8
    else:
        del content[0 if damage == "empty" else len(content) // 2 :]
    packed.write_bytes(content)
    target = other / path.relative_to(one)
    assert not artefacts.usable(target, other)
    assert not target.exists()
    assert [left.name.startswith(path.name) for left in (other / "broken").iterdir()] == [True]
    assert not packed.exists()
    artefacts.share(path, one)
    assert artefacts.usable(target, other)


def file_size(file: Path) -> int:
    return file.stat().st_size


def test_nothing_is_unpacked_elsewhere(tmp_path: Path, store: Path) -> None:
    packed = store / "onnx" / "graph.onnx.tar"
    packed.parent.mkdir(parents=True)
    with tarfile.open(packed, "w") as tar:
        member = tarfile.TarInfo("../../../escaped")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    assert not artefacts.usable(tmp_path / "cache" / "onnx" / "graph.onnx", tmp_path / "cache")
    assert not list(tmp_path.rglob("escaped"))


def test_without_a_store_nothing_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shared.URL, raising=False)
    assert artefacts.share(onnx_file(tmp_path), tmp_path) == ""
    assert not artefacts.usable(tmp_path / "onnx" / "other.onnx", tmp_path)


def test_a_store_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url, words in (
        (str(tmp_path / "file" / "store"), "cannot be used"),
        ("nosuchscheme://bucket", "nosuchscheme"),
    ):
        with pytest.raises(shared.StoreError, match=words) as caught:
            shared.open_store(url)
        assert "\n" not in str(caught.value)
