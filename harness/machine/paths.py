"""Where things lie: the checkout (suites, templates, results) and the user's cache."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder that holds `suites/`: the current one or a parent of it, else the source tree this code runs from."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "suites" / "schema.json").is_file():
            return folder
    return Path(__file__).resolve().parent.parent.parent


def cache() -> Path:
    """Checkpoints, features, engine files and hashes; safe to delete. `QUANTBOARD_CACHE` moves it."""
    if given := os.environ.get("QUANTBOARD_CACHE"):
        return Path(given).expanduser().resolve()
    import platformdirs

    return Path(platformdirs.user_cache_dir("quantboard"))


def results() -> Path:
    return home() / "results"
