"""Whether a site on the disk is what would be made again: then it need not be."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

from harness import paths
from harness.machine import code_digest

LIBRARIES = ("jinja2", "matplotlib", "numpy", "scipy")
MARK = '<meta name="quantboard-made-of" content="{}">'


def made_of(results: Path) -> str:
    """Hash of everything that pages are made of: records and scores, suites, templates, our code, and the libraries' versions."""
    digest = hashlib.sha256()
    for folder in (results, paths.home() / "suites", paths.home() / "site"):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(folder)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
        digest.update(b"\n")
    digest.update(repr([code_digest(), [(name, version(name)) for name in LIBRARIES]]).encode())
    return digest.hexdigest()[:32]


def is_unchanged(results: Path, out: Path) -> bool:
    """Whether `out` holds the whole site of these results as it would be made now."""
    try:
        index = (out / "index.html").read_text(encoding="utf-8")
        return MARK.format(f"{made_of(results)} {len(list(out.iterdir()))}") in index
    except OSError:
        return False
