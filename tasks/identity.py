"""What a split consists of: its rows are counted, hashed and compared with the official ones.

How a split gets its label; the first rule that applies decides:

1. `quantboard.json` beside the data says what it is (`{"glue/qqp": {"train": "substitute"}}`). It may say `subset`,
   `substitute` or `sample`, never `official`: a declaration can only weaken a claim.
2. The rows are the official ones by hash: `official`.
3. It has as many rows as the official split. Where an official hash, size or form of ids is known and contradicts, it is a
   `substitute`, whatever its source. Otherwise it is `official` if it came from the official repository on the hub, else
   `official (by row count)`.
4. It has fewer rows than the official split, and they are rows of that split: `subset (n of N)`. SQuAD's development questions
   are known, so each is looked up. Of SQuAD's training questions only the form of the id is known (24 hex digits), so each id
   must have that form. GLUE's rows carry nothing that would show where they came from, so they need the declaration.
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
from tasks.definitions import DEFINITIONS, Definition
from tasks.rows import Row, are_members, arrow_size, content_key, row_digest

IDENTITY_VERSION = 3
"""Raised on purpose when readers or hashes change what they yield. It invalidates every cached hash."""
DECLARATION = "quantboard.json"
DECLARABLE = ("subset", "substitute", "sample")
BY_COUNT = "official (by row count)"
SIZE_BOUND = 0.01
"""Copies of one split differ in white space: MNLI's matched set in two copies by 0.13%. Other rows differ by more."""
STRENGTH = ("official", "subset", "substitute", "sample")


@dataclass(frozen=True)
class SplitContent:
    """What reading a split once tells of it."""

    rows: int
    sha256: str
    proof: bool | None
    """Whether the rows are the official ones by hash; False where a known hash or size contradicts; None where neither tells."""
    part: bool
    """Whether every row is one of the official split's, as far as we can tell."""
    left_out: int = 0
    """Rows that cannot be used, which were left out."""
    quoted: int = 0
    """Texts that look as if a CSV writer had put quotes around them."""


def cache_folder() -> Path:
    """The user's cache; safe to delete. `QUANTBOARD_CACHE` moves it."""
    if given := os.environ.get("QUANTBOARD_CACHE"):
        return Path(given).expanduser().resolve()
    import platformdirs

    return Path(platformdirs.user_cache_dir("quantboard"))


def split_content(
    definition: Definition,
    split: str,
    files: Sequence[Path],
    rows: Callable[[], tuple[Sequence[Row], int]],
    *,
    skip: bool = False,
) -> SplitContent:
    """Count and hash a split. `rows` is read only if the cache does not know its files (by path, size and times of change); it also
    tells how many were left out, which happens where `skip` says so."""
    official = definition.splits[split]
    stamps = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path in files]
    return cached(
        ["split", definition.name, split, asdict(official), stamps, *(["skip"] if skip else [])],
        lambda: _read(definition, split, files, *rows()),
    )


def _read(
    definition: Definition, split: str, files: Sequence[Path], rows: Sequence[Row], left_out: int
) -> SplitContent:
    official, proof = definition.splits[split], None
    if len(rows) == official.rows:
        if official.content:
            proof = content_key(definition, rows) == official.content
        # the same rows written again give other bytes: an equal file is proof, a different one is not
        if not proof and official.file and len(files) == 1:
            proof = hashlib.sha256(files[0].read_bytes()).hexdigest() == official.file or proof
        if official.size and abs(arrow_size(definition, rows) / official.size - 1) > SIZE_BOUND:
            proof = False
    members = are_members(definition, split, rows) if len(rows) < official.rows else None
    ids_fit = definition.id_pattern is not None and all(re.fullmatch(definition.id_pattern, row["id"]) for row in rows)
    part = ids_fit if members is None else members
    quoted = looks_quoted(definition, rows) if any(file.suffix == ".tsv" for file in files) else 0
    return SplitContent(len(rows), row_digest(definition, rows), proof, part, left_out, quoted)


def looks_quoted(definition: Definition, rows: Sequence[Row]) -> int:
    """How many texts are in quotes with doubled quotes inside, as a CSV writer puts them; 0 where a text has quotes otherwise, and
    for QQP, whose official file, that of the broken rows, has such texts."""
    if definition.raw.rows_for_each_broken:
        return 0
    texts = [text for row in rows for column in definition.texts if '"' in (text := row[column])]
    quoted = all(
        len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', "") for text in texts
    )
    return len(texts) if quoted and any('""' in text[1:-1] for text in texts) else 0


def cached(key: Any, read: Callable[[], SplitContent]) -> SplitContent:
    """What `read` yields, kept in the user's cache under `key`. A cache that cannot be written costs time only."""
    name = hashlib.sha256(json.dumps([IDENTITY_VERSION, key]).encode()).hexdigest()[:32]
    path = cache_folder() / "identity" / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return SplitContent(**json.loads(path.read_text(encoding="utf-8")))
    content = read()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(content), file)
        Path(temporary).replace(path)
    return content


def label_of(definition: Definition, split: str, content: SplitContent, declared: str | None, from_hub: bool) -> str:
    """The split's label, by the rules at the top of this module."""
    official = definition.splits[split].rows
    subset = f"subset ({content.rows:,} of {official:,})" if content.rows < official else "substitute"
    if declared:
        return subset if declared == "subset" else declared
    if content.proof:
        return "official"
    if content.rows == official:
        if content.proof is False or (definition.id_pattern and not content.part):
            return "substitute"
        return "official" if from_hub else BY_COUNT
    return subset if content.part else "substitute"


def is_official(label: str) -> bool:
    """Whether the label says official: by hash, by origin or by row count."""
    return label.split()[0] == "official"


def label_shown(task: str, split: str, label: str, from_hub: bool) -> str:
    """The label of a recorded split. Early records say "official" where only the number of rows was known."""
    official = DEFINITIONS[task].splits.get(split) if task in DEFINITIONS else None
    by_count = label == "official" and official and not (official.content or official.file or from_hub)
    return BY_COUNT if by_count else label


def identity_of(
    kind: str, definition: Definition, splits: Mapping[str, tuple[SplitContent, str]], origin: str = ""
) -> DataIdentity:
    """The identity of data of this kind (see `DataRef`). splits: the content and the label of each."""
    parts = {
        split: SplitIdentity(content.rows, definition.splits[split].rows, content.sha256, label + _left_out(content))
        for split, (content, label) in splits.items()
    }
    quoted = [f"{content.quoted:,} texts of {split}" for split, (content, _) in splits.items() if content.quoted]
    note = (
        f"{definition.name}: {' and '.join(quoted)} look quoted, as a CSV writer does it, and keep their quotes, since GLUE's files have"
        " none; declare the files as a task of your own to have them read as CSV"
    )
    weakest = max(
        (part.label for part in parts.values()), key=lambda label: (STRENGTH.index(label.split()[0]), label == BY_COUNT)
    )
    missing = tuple(split for split in definition.splits if split not in parts)
    return DataIdentity(kind, weakest, parts, origin, missing, (note,) if quoted else ())


def _left_out(content: SplitContent) -> str:
    """Behind a label, of which the first word counts."""
    count = content.left_out
    return f" without {count:,} unusable row{'s' if count > 1 else ''}" if count else ""


def declared_label(definition: Definition, split: str, folders: Iterable[Path]) -> str | None:
    """What `quantboard.json` says of this split, in the first of the folders that has one which names it; else None. Raises
    TaskError for a bad file."""
    for folder in folders:
        path = folder / DECLARATION
        if not path.is_file():
            continue
        labels = _declaration(path, path.stat().st_mtime_ns).get(definition.name, {})
        if split in labels:
            return labels[split]
    return None


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean '{near[0]}'?" if near else f"it is one of {', '.join(known)}"


@cache
def _declaration(path: Path, _: int) -> dict[str, dict[str, str]]:
    """The content of the file, read again when its time of change (the second argument) differs. Raises TaskError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TaskError(f"{path}: not JSON: {error}; correct or delete the file") from error
    if not isinstance(content, dict) or not all(isinstance(splits, dict) for splits in content.values()):
        raise TaskError(f'{path}: expected {{"TASK": {{"SPLIT": "{"|".join(DECLARABLE)}"}}}}')
    for task, splits in content.items():
        if task not in DEFINITIONS:
            raise TaskError(f"{path}: there is no task '{task}'; {_suggestion(task, DEFINITIONS)}")
        official = DEFINITIONS[task].splits
        for split, label in splits.items():
            if split not in official:
                raise TaskError(f"{path}: {task}: there is no split '{split}'; {_suggestion(split, official)}")
            if label not in DECLARABLE:
                raise TaskError(
                    f"{path}: {task}.{split}: {label!r} cannot be declared; use one of {', '.join(DECLARABLE)}"
                )
    return content
