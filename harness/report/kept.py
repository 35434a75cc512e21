"""What a build of a site leaves for the next, in the cache: heads and nights of the records, and of which inputs each page was made.
Any of it may be missing or damaged: then it is made again."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from backends import artefacts
from harness.machine import paths
from harness.machine.digests import digest
from harness.machine.software import FileHash
from harness.report.catalog import Known, KnownFile
from harness.report.judged import Part
from harness.report.standings import Standing

FORM = "1"
"""Raised where the form of what is kept changes."""


@dataclass(frozen=True)
class KeptUnit:
    """pages: the SHA-256 of each by name. sections: of its boards on the pages of their suites, by hash."""

    pages: dict[str, str]
    standings: tuple[Standing, ...]
    sections: tuple[str, ...]


@dataclass
class Kept:
    """units, suites: by the hash of their inputs; of a page of a suite its SHA-256. sections: of boards, as JSON, by
    their hash."""

    known: Known = field(default_factory=Known)
    units: dict[str, KeptUnit] = field(default_factory=dict)
    suites: dict[str, str] = field(default_factory=dict)
    sections: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Saved:
    code: str
    files: dict[str, KnownFile]
    runs: dict[str, tuple[Part, ...]]
    units: dict[str, KeptUnit]
    suites: dict[str, str]


@cache
def _saved() -> TypeAdapter[_Saved]:
    return TypeAdapter(_Saved)


@cache
def _hashes() -> TypeAdapter[dict[str, FileHash]]:
    return TypeAdapter(dict[str, FileHash])


def folder_of(out: Path) -> Path:
    return paths.cache() / "site" / digest(str(out.resolve()))


def recall(out: Path, code: str) -> Kept:
    """What the last build of the site at `out` left. code: a hash of the program; another program's is worth nothing."""
    folder = folder_of(out)
    try:
        head, _, body = (folder / "known.json").read_bytes().partition(b"\n")
        if head.decode() != _mark(body):
            return Kept()
        saved = _saved().validate_json(body)
        if saved.code != code:
            return Kept()
        briefs, sections = (_read_lines(folder / name) for name in ("briefs", "sections"))
    except (OSError, ValueError):
        return Kept()
    return Kept(Known(saved.files, saved.runs, briefs), saved.units, saved.suites, sections)


def keep(out: Path, code: str, kept: Kept) -> None:
    """A cache that cannot be written costs the next build time, and nothing else."""
    folder, known = folder_of(out), kept.known
    body = _saved().dump_json(_Saved(code, known.files, known.runs, kept.units, kept.suites))
    try:
        artefacts.make_folder(folder)
        for name, lines in (("briefs", known.briefs), ("sections", kept.sections)):
            artefacts.write_whole(folder / name, b"\n".join(sha.encode() + b" " + line for sha, line in lines.items()))
        artefacts.write_whole(folder / "known.json", _mark(body).encode() + b"\n" + body)
    except OSError:
        return


def recall_hashes(out: Path) -> dict[str, FileHash]:
    """Of the results, when the last build of the site at `out` read them; by name."""
    try:
        head, _, body = (folder_of(out) / "hashes.json").read_bytes().partition(b"\n")
        return _hashes().validate_json(body) if head.decode() == _mark(body) else {}
    except (OSError, ValueError):
        return {}


def keep_hashes(out: Path, hashes: dict[str, FileHash]) -> None:
    body = _hashes().dump_json(hashes)
    with suppress(OSError):
        artefacts.make_folder(folder_of(out))
        artefacts.write_whole(folder_of(out) / "hashes.json", _mark(body).encode() + b"\n" + body)


def _mark(body: bytes) -> str:
    return f"{FORM} {hashlib.sha256(body).hexdigest()}"


def _read_lines(path: Path) -> dict[str, bytes]:
    found = (line.partition(b" ") for line in path.read_bytes().split(b"\n"))
    return {sha.decode(): line for sha, _, line in found if sha}
