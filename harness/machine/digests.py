"""Hashes of values and of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from backends.artefacts import sha256_of
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
    """SHA-256 of a file in hex, from the cache's memory where the file is unchanged (`backends.artefacts.sha256_of`)."""
    return sha256_of(path, paths.cache() / "hashes")
