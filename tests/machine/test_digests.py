"""Hashes of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from harness.machine.digests import file_hash


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180-4's example
    assert file_hash(file) == known
    (kept,) = (tmp_path / "cache" / "hashes").iterdir()
    monkeypatch.setattr(hashlib, "file_digest", None)  # nothing is read again
    assert file_hash(file) == known
    monkeypatch.undo()
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    kept.write_text(kept.read_text().replace("b", "c", 1))  # a damaged note is not believed
    assert file_hash(file) == known
    file.write_bytes(b"abcd")
    assert file_hash(file) != known
