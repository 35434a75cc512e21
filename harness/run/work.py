"""What the cache keeps of a cell between its processes: results as JSON with their hash, and the arrays that go with them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from backends import artefacts
from harness.run.context import Run, broken_names

ARRAYS = ("scores.npz", "samples.npz")
"""What the process of the accuracy step leaves beside its results."""


def write_kept(path: Path, results: dict[str, Any]) -> None:
    """Write results whole or not at all, and return when they are on the disk. Raises OSError."""
    artefacts.make_folder(path.parent)
    text = json.dumps(results)
    artefacts.write_whole(path, json.dumps({"sha256": _hash(text), "results": results}).encode())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_kept(path: Path) -> dict[str, Any] | None:
    """Results in the cache; None where there are none, or they or their arrays are not what was written."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        results: dict[str, Any] = content["results"]
        whole = content["sha256"] == _hash(json.dumps(results))
        arrays = results.get("arrays", {})
        return (
            results if whole and arrays == {name: artefacts.sha256_of(path.parent / name) for name in arrays} else None
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def array_hashes(folder: Path) -> dict[str, str]:
    """The hashes of the cell's arrays, by name, once these are on the disk. Raises OSError."""
    for name in ARRAYS:
        artefacts.sync(folder / name)
    return {name: artefacts.sha256_of(folder / name) for name in ARRAYS}


def tell_broken(run: Run) -> None:
    """Say what processes of this run have put aside since it was last told."""
    for name in sorted(broken_names(run.cache) - run.told):
        run.told.add(name)
        run.say(f"the cache: {name.rsplit('-', 2)[0]} was damaged; it was put aside as broken/{name} and is made again")
