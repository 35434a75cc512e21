"""Hashes of files."""

from __future__ import annotations

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
    kept.write_text("from the cache")
    assert file_hash(file) == "from the cache"
    file.write_bytes(b"abcd")
    assert file_hash(file) != known
