"""What a split is made of: its rows counted, hashed and compared with the official ones.

How the label is found, the first that fits:

1. `quantboard.json` beside the data says what it is (`{"glue/qqp": {"train": "substitute"}}`; `subset`, `substitute` or
   `sample`: a declaration can make a claim weaker, never `official`).
2. The rows are the official ones by hash: `official`.
3. As many rows as the official split: `official` where they came from the hub's own repository; `official (by row count)`
   where no official hash is known to us; else `substitute`, since they are not those rows.
4. Fewer questions than SQuAD's: `subset (n of N)` where each is one of the split's; of the training split, whose questions
   are not all known to us, where each has an id of its form (24 hex digits). GLUE's rows carry nothing that would tell a
   part of the official split from something else, so they need the declaration.
5. Anything else: `substitute`.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tasks.base import DataIdentity, SplitIdentity, TaskError
from tasks.forms import FORMS, Form, Row, are_members, content_key, row_digest

IDENTITY_VERSION = 2
"""Raised on purpose when readers or hashes change what they yield: forgets every remembered hash."""
DECLARATION = "quantboard.json"
DECLARABLE = ("subset", "substitute", "sample")
BY_COUNT = "official (by row count)"
STRENGTH = ("official", "subset", "substitute", "sample")


@dataclass(frozen=True)
class Measured:
    """What reading a split once tells. proof: whether its rows are the official ones by hash, None where no hash is known.
    part: every row is one of the official split's, as far as is known."""

    rows: int
    sha256: str
    proof: bool | None
    part: bool


def cache_folder() -> Path:
    """The user's cache; safe to delete. `QUANTBOARD_CACHE` moves it."""
    if given := os.environ.get("QUANTBOARD_CACHE"):
        return Path(given).expanduser().resolve()
    import platformdirs

    return Path(platformdirs.user_cache_dir("quantboard"))


def measure(form: Form, split: str, files: Sequence[Path], rows: Callable[[], Sequence[Row]]) -> Measured:
    """Count and hash a split, reading `rows` only if its files (path, size, times of change) are not remembered."""
    official = form.splits[split]
    stamps = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path in files]
    return remembered(
        ["split", form.name, split, asdict(official), stamps],
        lambda: _measured(form, split, files, rows()),
    )


def _measured(form: Form, split: str, files: Sequence[Path], rows: Sequence[Row]) -> Measured:
    official, proof = form.splits[split], None
    if len(rows) == official.rows:
        if official.content:
            proof = content_key(form, rows) == official.content
        # a file written anew has other bytes, so that only equality proves anything
        if not proof and official.file and len(files) == 1:
            proof = hashlib.sha256(files[0].read_bytes()).hexdigest() == official.file or proof
    known = are_members(form, split, rows) if len(rows) < official.rows else None
    native = form.name == "squad_v1" and all(re.fullmatch(r"[0-9a-f]{24}", row["id"]) for row in rows)
    return Measured(len(rows), row_digest(form, rows), proof, native if known is None else known)


def remembered(key: Any, find: Callable[[], Measured]) -> Measured:
    """What `find` yields, kept in the user's cache under `key`. A cache that cannot be written costs time only."""
    name = hashlib.sha256(json.dumps([IDENTITY_VERSION, key]).encode()).hexdigest()[:32]
    path = cache_folder() / "identity" / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Measured(**json.loads(path.read_text(encoding="utf-8")))
    found = find()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(found), file)
        Path(temporary).replace(path)
    return found


def label_of(form: Form, split: str, found: Measured, declared: str | None, from_hub: bool) -> str:
    """The rule of this module's head."""
    official = form.splits[split].rows
    subset = f"subset ({found.rows:,} of {official:,})" if found.rows < official else "substitute"
    if declared:
        return subset if declared == "subset" else declared
    if found.proof:
        return "official"
    if found.rows == official:
        if from_hub:
            return "official"
        return BY_COUNT if found.proof is None else "substitute"
    return subset if found.part else "substitute"


def is_official(label: str) -> bool:
    """By hash, by its origin, or as far as a count of rows tells."""
    return label.split()[0] == "official"


def identity_of(kind: str, form: Form, splits: Mapping[str, tuple[Measured, str]], origin: str = "") -> DataIdentity:
    """From (what was measured, label) of each split."""
    parts = {
        split: SplitIdentity(found.rows, form.splits[split].rows, found.sha256, label)
        for split, (found, label) in splits.items()
    }
    weakest = max(
        (part.label for part in parts.values()), key=lambda label: (STRENGTH.index(label.split()[0]), label == BY_COUNT)
    )
    missing = tuple(split for split in form.splits if split not in parts)
    return DataIdentity(kind, weakest, parts, origin, missing)


def declared_label(form: Form, split: str, folders: Iterable[Path]) -> str | None:
    """What the first of the folders that has a `quantboard.json` with this split says. Raises TaskError for a bad file."""
    for folder in folders:
        path = folder / DECLARATION
        if not path.is_file():
            continue
        said = _declaration(path, path.stat().st_mtime_ns).get(form.name, {})
        if split in said:
            return said[split]
    return None


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean '{near[0]}'?" if near else f"it is one of {', '.join(known)}"


@cache
def _declaration(path: Path, _: int) -> dict[str, dict[str, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TaskError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(splits, dict) for splits in content.values()):
        raise TaskError(f'{path}: expected {{"TASK": {{"SPLIT": "{"|".join(DECLARABLE)}"}}}}')
    for task, splits in content.items():
        if task not in FORMS:
            raise TaskError(f"{path}: there is no task '{task}'; {_meant(task, FORMS)}")
        for split, label in splits.items():
            if split not in FORMS[task].splits:
                raise TaskError(f"{path}: {task}: there is no split '{split}'; {_meant(split, FORMS[task].splits)}")
            if label not in DECLARABLE:
                raise TaskError(f"{path}: {task}.{split}: {label!r} cannot be declared; one of {', '.join(DECLARABLE)}")
    return content
