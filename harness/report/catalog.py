"""The records of a results folder by their heads. What decides where a record stands is small and kept between builds of a site;
the record itself is read from its line when a page needs it, so that a site of many records fits into little memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from harness.errors import RecordError, Tell
from harness.machine.digests import digest
from harness.records import store
from harness.records.schema import Record
from harness.records.speed_schema import SpeedRound
from harness.report.boards import cell_place
from harness.report.judged import Part, parts_of


@dataclass(frozen=True)
class Head:
    """file: below the results folder. start, size, sha: of its line in bytes. place: identifies the cell and its machine; the rest
    as in Record."""

    file: str
    start: int
    size: int
    sha: str
    record_id: str
    key: str
    run_id: str
    finished: str
    rescored: str | None
    measured: bool
    device: str
    place: str


@dataclass(frozen=True)
class KnownFile:
    """sha: of the whole file."""

    sha: str
    heads: tuple[Head, ...]


@dataclass
class Known:
    """What a build leaves for the next. runs: by a hash of its lines, what each run adds to histories. briefs: by the hash of a
    record's line."""

    files: dict[str, KnownFile] = field(default_factory=dict)
    runs: dict[str, tuple[Part, ...]] = field(default_factory=dict)
    briefs: dict[str, bytes] = field(default_factory=dict)


class Catalog:
    """heads: of all records, files in the order of their names. parts: what they add to histories. known: for the next build; files
    with damaged lines are left out, so that every build tells of them."""

    def __init__(self, results: Path, hashes: Mapping[str, str], known: Known, tell: Tell) -> None:
        """hashes: SHA-256 of the files below `results` by name. known: of the build before."""
        self.results = results
        self._old = known
        self.known = Known()
        self.heads: list[Head] = []
        whole: dict[str, tuple[Part, ...]] = {}
        for path in store.files(results) if results.is_dir() else ():
            name = path.relative_to(results).as_posix()
            sha = hashes.get(name, "")
            old = known.files.get(name)
            if old is None or old.sha != sha:
                old = self._read(path, name, sha, whole, tell)
            else:
                self.known.files[name] = old
            self.heads += old.heads
        self._by_id = {head.record_id: head for head in self.heads}
        self.parts = list(self._parts(whole))

    def record_of(self, record_id: str) -> Record:
        """As much of it as histories tell."""
        return self.brief(self._by_id[record_id])

    def brief(self, head: Head) -> Record:
        """The record without what only its own row and page show."""
        kept = self.known.briefs.get(head.sha) or self._old.briefs.get(head.sha, b"")
        try:
            record = Record.model_validate_json(kept)
        except ValidationError:  # not kept, or damaged
            kept = _brief(self.record(head))
            record = Record.model_validate_json(kept)
        self.known.briefs[head.sha] = kept
        return record

    def record(self, head: Head) -> Record:
        return Record.model_validate_json(self.line(head))

    def line(self, head: Head) -> bytes:
        """Raises RecordError where the file is not what it was."""
        with (self.results / head.file).open("rb") as file:
            file.seek(head.start)
            line = file.read(head.size)
        if _sha(line) != head.sha:
            raise RecordError(f"{self.results / head.file}: changed while it was read; make the site again")
        return line

    def path(self, head: Head) -> Path:
        return self.results / head.file

    def _read(self, path: Path, name: str, sha: str, runs: dict[str, tuple[Part, ...]], tell: Tell) -> KnownFile:
        """A file's records, its runs, and briefs of its records."""
        told = False

        def tell_once(problem: str) -> None:
            nonlocal told
            told = True
            tell(problem)

        heads, by_run = list[Head](), dict[str, list[tuple[Head, Record]]]()
        for start, line, record in store.read_file(path, tell_once):
            head = _head(name, start, line, record)
            heads.append(head)
            by_run.setdefault(record.run_id, []).append((head, record))
            if head.sha not in self._old.briefs:
                self.known.briefs[head.sha] = _brief(record)
        for own in by_run.values():
            runs[_run_digest(head for head, _ in own)] = tuple(parts_of(record for _, record in own))
        found = KnownFile(sha, tuple(heads))
        if sha and not told:
            self.known.files[name] = found
        return found

    def _parts(self, read: Mapping[str, tuple[Part, ...]]) -> Iterator[Part]:
        """Of all runs; one that lies in several files is read again as a whole. read: those that were read in this build."""
        by_run: dict[str, list[Head]] = {}
        for head in self.heads:
            by_run.setdefault(head.run_id, []).append(head)
        for heads in by_run.values():
            run = _run_digest(heads)
            parts = read.get(run) or self._old.runs.get(run)
            if parts is None:
                parts = tuple(parts_of(map(self.record, heads)))
            self.known.runs[run] = parts
            yield from parts


def _run_digest(heads: Iterable[Head]) -> str:
    return digest([head.sha for head in heads])


def _sha(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:32]


def _head(file: str, start: int, line: bytes, record: Record) -> Head:
    return Head(
        file=file,
        start=start,
        size=len(line),
        sha=_sha(line),
        record_id=record.record_id,
        key=record.key,
        run_id=record.run_id,
        finished=record.finished,
        rescored=record.rescored,
        measured=record.measured,
        device=record.device,
        place=digest(cell_place(record)),
    )


READ = ("limit", "ancestor", "measure")
"""The settings that the pages of all cells together read."""


def _brief(record: Record) -> bytes:
    """A record that says the same of where it stands, its accuracy and its figures of speed, in a fifth of the bytes."""
    checkpoint = record.checkpoint and record.checkpoint.model_copy(update={"quantization": None, "train": {}})
    speed = [part.model_copy(update={"rounds": [_bare(part.rounds[0])], "timed": ""}) for part in record.speed]
    brief = record.model_copy(
        update={
            "log_tail": [],
            "settings": {name: record.settings[name] for name in READ if name in record.settings}
            | {"checkpoint": _recipes(record.settings.get("checkpoint"))},
            "checkpoint": checkpoint,
            "speed": speed,
            "turns": [part.model_copy(update={"rounds": part.rounds[:1]}) for part in record.turns[:1]],
            "placement": None,
            "roofline": None,
            "cold_start": None,
            "notes": [],
        }
    )
    return brief.model_dump_json(exclude_defaults=True).encode()


def _recipes(spec: object) -> dict[str, object]:
    """How a checkpoint and what it was made from were made: whether the weights are random."""
    return {"recipe": spec.get("recipe"), "parent": _recipes(spec.get("parent"))} if isinstance(spec, dict) else {}


def _bare(round_: SpeedRound) -> SpeedRound:
    return round_.model_copy(update={"search": [], "conditions": None, "loadgen": {}})
