"""Where files lie: suites, page templates, results and the user's cache.

In a checkout they are folders of the checkout. An installed package contains its suites and templates, and writes results and
pages to the working folder.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGED = Path(__file__).resolve().parents[1] / "shipped"
"""The folder of the wheel that holds `suites/` and `site/`; a checkout has none."""


def checkout() -> Path | None:
    """The working folder or the nearest parent with `suites/schema.json`, else the source tree that this code runs from;
    None for an installed package that is used outside a checkout."""
    working = Path.cwd()
    source = Path(__file__).resolve().parents[2]
    for folder in (working, *working.parents, source):
        if (folder / "suites" / "schema.json").is_file():
            return folder
    return None


def suites() -> Path:
    """The folder in which suites are found by name."""
    return (checkout() or _PACKAGED) / "suites"


def site_sources() -> Path:
    """The folder of the page templates, style sheet and script."""
    return (checkout() or _PACKAGED) / "site"


def method() -> Path:
    """What is known of how each figure is made, for the page Method."""
    return (checkout() or _PACKAGED) / "docs" / "method.md"


def results() -> Path:
    """The folder of all records, in the checkout or else in the working folder."""
    return (checkout() or Path.cwd()) / "results"


def site_output() -> Path:
    """The default folder of the generated site, in the checkout or else in the working folder."""
    return (checkout() or Path.cwd()) / "_site"


def cache() -> Path:
    """The folder of checkpoints, features, engine files and hashes; safe to delete. `QUANTBOARD_CACHE` moves it."""
    if folder := os.environ.get("QUANTBOARD_CACHE"):
        return Path(folder).expanduser().resolve()
    import platformdirs

    return Path(platformdirs.user_cache_dir("quantboard"))
