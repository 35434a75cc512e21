"""Hashes of values and of files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from harness.machine import paths


def digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of `value` as JSON; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def read_text(path: Path) -> str | None:
    """A file's text without surrounding white space; None where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hex. The cache keeps it by path, size, mtime and ctime (a program can set mtime, but not ctime)."""
    stat = path.stat()
    cached = paths.cache() / "hashes" / digest([str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    if sha256 := read_text(cached):
        return sha256
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        part = cached.with_name(f"{cached.name}.{os.getpid()}")
        part.write_text(sha256)
        part.replace(cached)
    except OSError:
        pass  # a full or read-only cache: the file is hashed again next time
    return sha256
