"""Versions of installed packages, and which code runs."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

import harness
from backends.base import version_of
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


@dataclass(frozen=True)
class FileHash:
    """SHA-256 of a file, and its size and times when it was read: a program can set mtime, but not ctime."""

    size: int
    mtime_ns: int
    ctime_ns: int
    sha256: str


def file_hashes(folder: Path, known: Mapping[str, FileHash] | None = None) -> dict[str, FileHash]:
    """Of all files below a folder by their names there, in the order of the names. known: of an earlier look; files that have not
    changed since are not read."""
    found: dict[str, FileHash] = {}
    for above, _, names in os.walk(folder):
        for path in (os.path.join(above, name) for name in names):  # noqa: PTH118 (half the time of Path, for thousands of files)
            try:
                stat = os.stat(path)  # noqa: PTH116
            except FileNotFoundError:  # a link to nothing
                continue
            if not S_ISREG(stat.st_mode):
                continue
            name = path[len(os.fspath(folder)) + 1 :].replace(os.sep, "/")
            facts = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
            old = known.get(name) if known else None
            if old is None or (old.size, old.mtime_ns, old.ctime_ns) != facts:
                old = FileHash(*facts, hashlib.sha256(Path(path).read_bytes()).hexdigest())
            found[name] = old
    return dict(sorted(found.items()))


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
