"""Versions of installed packages, and which code runs."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import harness
from backends.base import version_of
from backends.hashes import sha256s
from harness.machine import paths


def software(distributions: Iterable[str]) -> dict[str, str]:
    """Versions by distribution name, Python's included. `a|b` means the first of the two that is installed; distributions that
    are not installed are left out."""
    versions = {"python": platform.python_version()}
    for choice in distributions:
        for name in choice.split("|"):
            if version := version_of(name):
                versions[name] = version
                break
    return versions


def commit() -> tuple[str | None, bool | None]:
    """The commit of the code that runs, and whether anything in its checkout but results/ differs from that commit (new files
    count). (None, None) where the code does not run from a git checkout of this project, for example an installed package,
    even when the working folder is such a checkout."""
    home = paths.checkout()
    if home is None or Path(harness.__file__).resolve().parents[1] != home.resolve():
        return None, None
    try:
        _git(home, "ls-files", "--error-unmatch", "harness/machine/hardware.py")
        sha = _git(home, "rev-parse", "HEAD")
        changed = _git(home, "status", "--porcelain", "--", ".", ":(exclude)results")
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return sha, bool(changed)


def code_digest() -> str:
    """Hash of our own source files as they are now, which is the code that processes started from now on run."""
    top = Path(__file__).resolve().parents[2]
    trees = [tree_digest(top / name, "*.py") for name in ("harness", "backends", "tasks")]
    return hashlib.sha256("".join(trees).encode()).hexdigest()[:16]


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of all files below a folder, and below links to other folders, by their names there, in the order of the names; files that
    have not changed since an earlier look are not read."""
    top = os.fspath(folder)
    found = list(_files_below(top, frozenset()))
    names = [path[len(top) + 1 :].replace(os.sep, "/") for path in found]
    return dict(sorted(zip(names, sha256s(found, paths.cache() / "hashes"), strict=True)))


def _files_below(folder: str, inside: frozenset[str]) -> Iterator[str]:
    """inside: the folders above, to which a link leads nowhere new."""
    real = os.path.realpath(folder)
    try:
        entries = [] if real in inside else list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):  # a link to itself, or what was just deleted
            if entry.is_file():
                yield entry.path
            elif entry.is_dir():
                yield from _files_below(entry.path, inside | {real})


def tree_digest(folder: Path, pattern: str = "*") -> str:
    """SHA-256 of the names and contents of all files below a folder whose names match `pattern`."""
    tree = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        if path.is_file():
            tree.update(f"{path.relative_to(folder)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return tree.hexdigest()


def _git(home: Path, *words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(home), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
