"""Whether a site on the disk is what would be made again: then it need not be."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from harness import paths
from harness.cells import digest
from harness.machine import code_digest, tree_digest

LIBRARIES = ("jinja2", "matplotlib", "numpy", "scipy")
MARK = '<meta name="quantboard-made-of" content="{}">'


def made_of(results: Path) -> str:
    """Hash of everything that pages are made of: records and scores, suites, templates, our code, and the libraries' versions."""
    folders = [tree_digest(folder) for folder in (results, paths.home() / "suites", paths.home() / "site")]
    return digest([folders, code_digest(), [version(name) for name in LIBRARIES]])


def is_unchanged(out: Path, source: str) -> bool:
    """Whether `out` holds the whole site that was made of this."""
    try:
        index = (out / "index.html").read_text(encoding="utf-8")
        return MARK.format(f"{source} {len(list(out.iterdir()))}") in index
    except OSError:
        return False
