"""Hashes of files, and the memory of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends import hashes
from harness.machine.digests import file_hash
from harness.machine.software import file_hashes

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""Of FIPS 180-4's example."""


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hashes" / "known"


def test_a_file_is_hashed_once(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    assert file_hash(file) == ABC
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)  # nothing is read again
        assert file_hash(file) == ABC
        hashes.memory_in.cache_clear()  # as another process finds it
        assert file_hash(file) == ABC
    file.write_bytes(b"abcd")
    assert file_hash(file) != ABC


@pytest.mark.parametrize("damage", ["hash", "check", "cut", "binary", "gone"])
def test_a_damaged_memory_is_not_believed(tmp_path: Path, memory: Path, damage: str) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    file_hash(file)
    name, sha256, check = memory.read_text().split()
    lines = {
        "hash": f"{name} {'0' * 64} {check}\n",
        "check": f"{name} {sha256} {'0' * 16}\n",
        "cut": f"{name} {sha256[:30]}",
    }
    if damage == "gone":
        memory.unlink()
    elif damage == "binary":
        memory.write_bytes(bytes(range(128, 256)) * 9)
    else:
        memory.write_text(lines[damage])
    hashes.memory_in.cache_clear()
    assert file_hash(file) == ABC
    hashes.memory_in.cache_clear()
    assert file_hash(file) == ABC


def test_what_is_deleted_is_forgotten(tmp_path: Path, memory: Path) -> None:
    """`cache verify` believes nothing unread."""
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    file_hash(file)
    name, _, _ = memory.read_text().split()
    memory.unlink()
    own = hashes.memory_in(memory.parent)
    own.refresh()
    assert own.recall(name) is None


def test_processes_share_a_memory(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each appends while the others do, and no line is lost."""
    files = [tmp_path / str(number) for number in range(60)]
    for file in files:
        file.write_bytes(file.name.encode())
    first = file_hash(files[0])
    code = "import sys, pathlib; from backends.artefacts import sha256_of\nfor name in sys.argv[2:]: sha256_of(pathlib.Path(name), pathlib.Path(sys.argv[1]))"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(memory.parent), *map(str, files[start::3])])
        for start in range(3)
    ]
    assert [process.wait() for process in started] == [0, 0, 0]
    monkeypatch.setattr(hashlib, "file_digest", None)
    wanted = [hashlib.sha256(file.name.encode()).hexdigest() for file in files]
    assert [file_hash(file) for file in files] == wanted and wanted[0] == first


def test_a_large_memory_is_begun_anew(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "LARGEST", 1000)
    for number in range(100):
        (tmp_path / str(number)).write_text(str(number))
        file_hash(tmp_path / str(number))
        assert memory.stat().st_size < 1300
    assert file_hash(tmp_path / "0") == hashlib.sha256(b"0").hexdigest()


def test_files_are_hashed_again_where_their_size_or_a_time_changed(tmp_path: Path, memory: Path) -> None:
    path = tmp_path / "results" / "b.txt"
    path.parent.mkdir()
    path.write_text("one")
    (path.parent / "gone").symlink_to("nothing")
    (path.parent / "above").symlink_to(path.parent)
    (path.parent / "itself").symlink_to("itself")
    before = path.stat().st_mtime_ns
    assert file_hashes(path.parent) == {"b.txt": hashlib.sha256(b"one").hexdigest()}
    time.sleep(0.05)  # a file system's clock ticks every few milliseconds
    path.write_text("two")
    os.utime(path, ns=(before, before))
    assert file_hashes(path.parent) == {"b.txt": hashlib.sha256(b"two").hexdigest()}


def test_files_below_a_link_to_another_folder_are_hashed(tmp_path: Path, memory: Path) -> None:
    for folder in ("results", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "results" / "scores").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "results")
    (tmp_path / "elsewhere" / "a.npz").write_bytes(b"abc")
    assert file_hashes(tmp_path / "results") == {"scores/a.npz": ABC}
