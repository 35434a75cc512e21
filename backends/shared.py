"""The folder or object store in which several machines share artefacts, read and written through fsspec.

It is named by an environment variable, which children of a run inherit. A file appears in it whole or not at all.
"""

from __future__ import annotations

import os
import secrets
from functools import cache
from pathlib import Path
from typing import Any

URL = "QUANTBOARD_ARTEFACTS"


class StoreError(Exception):
    """A store that cannot be used: one line with a fix."""


@cache
def open_store(url: str) -> tuple[Any, str]:
    """fsspec's file system of a folder or URL, and the path in it. Raises StoreError where it cannot be written to."""
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url)
        root = root.rstrip("/")
        probe = f"{root}/.probe-{secrets.token_hex(4)}"
        system.makedirs(root, exist_ok=True)
        system.pipe_file(probe, b"")
        system.rm_file(probe)
    except ImportError as error:
        raise StoreError(f"{url}: {error}, on every node") from None
    except Exception as error:  # each store has exceptions of its own
        raise StoreError(
            f"{url}: cannot be used ({_why(error)}); name a folder or URL that every node may write to"
        ) from None
    return system, root


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def has_none() -> bool:
    """Whether there is no store."""
    return not os.environ.get(URL)


def has(name: str) -> bool:
    """Whether the store has a file of this name."""
    try:
        system, root = open_store(os.environ[URL])
        return bool(system.exists(f"{root}/{name}"))
    except Exception:  # each store has exceptions of its own
        return False


def download(name: str, target: Path) -> bool:
    """Whether the store had a file of this name, which is now `target`. What cannot be fetched is made here instead."""
    try:
        system, root = open_store(os.environ[URL])
        if not system.exists(f"{root}/{name}"):
            return False
        system.get_file(f"{root}/{name}", str(target))
    except Exception:  # each store has exceptions of its own
        return False
    return True


def upload(source: Path, name: str) -> str:
    """Put a file into the store. Returns what went wrong; empty where nothing did."""
    try:
        system, root = open_store(os.environ[URL])
        whole = f"{root}/{name}"
        part = f"{whole}.{secrets.token_hex(4)}.part"
        system.makedirs(whole.rpartition("/")[0], exist_ok=True)
        system.put_file(str(source), part)
        system.mv(part, whole)
    except Exception as error:  # each store has exceptions of its own
        return _why(error)
    return ""


def discard(name: str) -> None:
    """Delete a file that is broken, so that it is put there anew."""
    try:
        system, root = open_store(os.environ[URL])
        system.rm_file(f"{root}/{name}")
    except Exception:  # each store has exceptions of its own; the next node finds it broken again
        return
