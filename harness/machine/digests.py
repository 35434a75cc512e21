from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from harness.machine import paths


def digest(value: Any) -> str:
    """16 hex digits that are equal when and only when the JSON of `value` is (keys in any order)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, kept in the cache by path, size and times of change (its own, which can be set, and its entry's)."""
    stat = path.stat()
    kept = paths.cache() / "hashes" / digest([str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    if found := _read(kept):
        return found
    with path.open("rb") as file:
        made = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f"{kept.name}.{os.getpid()}")
        part.write_text(made)
        part.replace(kept)
    except OSError:
        pass  # a full or read-only cache costs the hash again next time
    return made
