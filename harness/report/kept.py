"""What a build of a site leaves for the next, in the cache: heads and nights of the records, and of which inputs each page was made.
Any of it may be missing or damaged: then it is made again."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from backends import artefacts
from harness.machine import paths
from harness.machine.digests import digest
from harness.measure.nights import Spread
from harness.report.catalog import Known, KnownFile
from harness.report.judged import Part
from harness.report.standings import Standing

FORM = "3"
"""Raised where the form of what is kept changes."""

LINES = "briefs", "sections", "comparisons"
"""Files of lines, each a hash and what it stands for."""


@dataclass(frozen=True)
class KeptUnit:
    """pages: the SHA-256 of each by name. sections: of its boards on the pages of their suites, by hash. between, comparisons, answers: as
    of `units.Made`."""

    pages: dict[str, str]
    standings: tuple[Standing, ...]
    sections: tuple[str, ...]
    between: dict[str, Spread]
    comparisons: tuple[str, ...]
    answers: dict[str, str]


@dataclass
class Kept:
    """units, suites: by the hash of their inputs; of a page of a suite its SHA-256. sections: of boards, as JSON, by
    their hash. comparisons: of scores, as JSON, by the hash of what they are made of."""

    known: Known = field(default_factory=Known)
    units: dict[str, KeptUnit] = field(default_factory=dict)
    suites: dict[str, str] = field(default_factory=dict)
    sections: dict[str, bytes] = field(default_factory=dict)
    comparisons: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Saved:
    files: dict[str, KnownFile]
    runs: dict[str, tuple[Part, ...]]
    units: dict[str, KeptUnit]
    suites: dict[str, str]


@cache
def _saved() -> TypeAdapter[_Saved]:
    return TypeAdapter(_Saved)


def folder_of(out: Path) -> Path:
    return paths.cache() / "site" / digest(str(out.resolve()))


def recall(out: Path, code: str) -> Kept:
    """What the last build of the site at `out` left. code: a hash of the program; another program's is worth nothing."""
    folder = folder_of(out)
    try:
        saved = _saved().validate_json(_read(folder / "known.json", code))
    except (OSError, ValueError):
        return Kept()
    briefs, sections, comparisons = (_read_lines(folder / name, code) for name in LINES)
    return Kept(Known(saved.files, saved.runs, briefs), saved.units, saved.suites, sections, comparisons)


def keep(out: Path, code: str, kept: Kept) -> None:
    """A cache that cannot be written costs the next build time, and nothing else."""
    folder, known = folder_of(out), kept.known
    body = _saved().dump_json(_Saved(known.files, known.runs, kept.units, kept.suites))
    with suppress(OSError):
        artefacts.make_folder(folder)
        for name, lines in zip(LINES, (known.briefs, kept.sections, kept.comparisons), strict=True):
            _write(folder / name, code, b"\n".join(sha.encode() + b" " + line for sha, line in lines.items()))
        _write(folder / "known.json", code, body)


def _write(path: Path, code: str, body: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(f"{FORM} {code}\n".encode() + body)
        artefacts.move_sealed(part, path)
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path, code: str) -> bytes:
    """Raises OSError, and ValueError for what another program wrote, and for what is not as it was written."""
    head, _, body = path.read_bytes().partition(b"\n")
    if head.decode() != f"{FORM} {code}" or artefacts.file_fault(path):
        raise ValueError
    return body


def _read_lines(path: Path, code: str) -> dict[str, bytes]:
    """Empty where they cannot be believed."""
    try:
        found = (line.partition(b" ") for line in _read(path, code).split(b"\n"))
        return {sha.decode(): line for sha, _, line in found if sha}
    except (OSError, ValueError):
        return {}
