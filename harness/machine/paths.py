"""Where files lie: suites, page templates, results and the user's cache.

In a checkout they are its own folders. An installed package brings its suites and templates along, and writes results and
pages to the working folder.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGED = Path(__file__).resolve().parents[1] / "shipped"
"""Where the wheel holds `suites/` and `site/`; not there in a checkout."""


def checkout() -> Path | None:
    """The working folder or the nearest parent with `suites/schema.json`, else the source tree that this code runs from;
    None for an installed package that is used outside a checkout."""
    here = Path.cwd()
    source = Path(__file__).resolve().parents[2]
    for folder in (here, *here.parents, source):
        if (folder / "suites" / "schema.json").is_file():
            return folder
    return None


def suites() -> Path:
    """The folder of the suites that are known by name."""
    return (checkout() or _PACKAGED) / "suites"


def site_sources() -> Path:
    """The folder of the templates, style sheet and script that pages are made of."""
    return (checkout() or _PACKAGED) / "site"


def results() -> Path:
    """The folder of all records: of the checkout, else of the working folder."""
    return (checkout() or Path.cwd()) / "results"


def site_output() -> Path:
    """The default folder of the generated site: of the checkout, else of the working folder."""
    return (checkout() or Path.cwd()) / "_site"


def cache() -> Path:
    """Checkpoints, features, engine files and hashes; safe to delete. `QUANTBOARD_CACHE` moves it."""
    if given := os.environ.get("QUANTBOARD_CACHE"):
        return Path(given).expanduser().resolve()
    import platformdirs

    return Path(platformdirs.user_cache_dir("quantboard"))
