"""What pages share. Pages are plain values; templates only lay them out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from harness.records.schema import Record
from harness.report.boards import Place
from harness.report.comparability import has_valid_accuracy, is_sample, is_speed_invalid, is_whole, standing_words
from harness.report.tables import Badge


@dataclass(frozen=True)
class SuiteSummary:
    """A row of the index. data: a line for each kind of data. counts: how many cells have what."""

    name: str
    title: str
    page: str
    sample: bool
    tasks: str
    data: tuple[str, ...]
    machines: str
    counts: tuple[Badge, ...]


def suite_summaries(records: Sequence[Record], boards: Sequence[Place]) -> Iterable[SuiteSummary]:
    titles = {record.suite: record.suite_title for record in records}
    places: dict[tuple[str, bool], list[Place]] = {}
    for board in boards:
        places.setdefault((board.suite, board.sample), []).append(board)
    cells: dict[tuple[str, bool], list[Record]] = {}
    for record in records:
        cells.setdefault((record.suite, is_sample(record)), []).append(record)
    for (suite, sample), own in places.items():
        yield SuiteSummary(
            name=suite,
            title=titles[suite],
            page=suite_page_name(suite, sample),
            sample=sample,
            tasks=_joined(board.task for board in own),
            data=tuple(_data_lines(own)),
            machines="; ".join(dict.fromkeys(board.machine for board in own)),
            counts=tuple(_counts(cells[suite, sample])),
        )


def not_measured(records: Sequence[Record]) -> list[str]:
    """Backends that a suite asked for and that no cell could run."""
    measured = {record.backend for record in records if record.measured}
    return sorted({record.backend for record in records if record.backend not in measured})


LONGEST_SUITE = 100
"""Characters of a suite's name in the name of a page."""


def suite_page_name(suite: str, sample: bool) -> str:
    if len(suite) > LONGEST_SUITE or (
        suite.endswith("-sample") and not sample
    ):  # another suite's on the sample has that name
        suite = f"{suite[:LONGEST_SUITE]}-{hashlib.sha256(suite.encode()).hexdigest()[:16]}"
    return f"suite-{suite}-sample.html" if sample else f"suite-{suite}.html"


def standing_badge(record: Record) -> Badge:
    """A whole cell is red only where no figure of its accuracy, or none of its speed, is valid."""
    words = standing_words(record)
    return Badge("warn" if "in part" in words else record.standing, words, record.why)


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _data_lines(boards: Sequence[Place]) -> list[str]:
    """A line for each kind of data; with its tasks where there are several kinds."""
    tasks: dict[str, list[str]] = {}
    for board in sorted(boards, key=lambda board: board.data.lower()):
        tasks.setdefault(board.data, []).append(board.task)
    return list(tasks) if len(tasks) == 1 else [f"{data}: {_joined(names)}" for data, names in tasks.items()]


def _counts(records: Sequence[Record]) -> list[Badge]:
    """How many cells have a valid accuracy, how many have a speed, and how many have neither."""
    usable = [record for record in records if has_valid_accuracy(record)]
    accurate = [record for record in usable if not record.speed_only]
    whole = [record for record in accurate if is_whole(record)]
    timed = [record for record in usable if record.speed]
    invalid = [[is_speed_invalid(record, speed) for speed in record.speed] for record in timed]
    counts = [
        ("ok", "accuracy", len(whole)),
        ("warn", "accuracy on a part of the evaluation set", len(accurate) - len(whole)),
        ("ok", "speed", sum(not any(marks) for marks in invalid)),
        ("warn", "speed, in part invalid", sum(any(marks) and not all(marks) for marks in invalid)),
        ("invalid", "speed invalid", sum(all(marks) for marks in invalid)),
        ("", "not timed", len(usable) - len(timed)),
        ("", "with random weights, no accuracy", len(usable) - len(accurate)),
        (
            "invalid",
            "invalid",
            sum(record.standing == "invalid" and not has_valid_accuracy(record) for record in records),
        ),
        *((status, status, sum(record.standing == status for record in records)) for status in ("failed", "skipped")),
    ]
    return [Badge(kind, f"{count} {what}") for kind, what, count in counts if count]


def with_uncommitted_ancestors(records: Sequence[Record]) -> set[str]:
    """Ids of records whose model was made from, or taught by, one that was made in a checkout with uncommitted changes. An
    ancestor is known by its key and its weights."""
    made = [(record.record_id, record.checkpoint) for record in records if record.checkpoint]
    uncommitted = {
        (checkpoint.key, checkpoint.lineage[checkpoint.key])
        for _, checkpoint in made
        if checkpoint.made_by.get("dirty") and checkpoint.key in checkpoint.lineage
    }
    return {
        record_id
        for record_id, checkpoint in made
        if any(ancestor in uncommitted for ancestor in checkpoint.lineage.items() if ancestor[0] != checkpoint.key)
    }


def uncommitted_remarks(record: Record, with_ancestors: AbstractSet[str]) -> list[tuple[str, str]]:
    """What was made or run in a checkout with uncommitted changes, the record's own run first: (badge, sentence). with_ancestors:
    as `with_uncommitted_ancestors` gives it."""
    remarks = []
    made_by = record.checkpoint.made_by if record.checkpoint else {}
    if record.dirty:
        remarks.append(("uncommitted changes", "The checkout had uncommitted changes when this ran."))
    if made_by.get("dirty"):
        on_commit = f" (on commit {made_by['commit'][:12]})" if made_by.get("commit") else ""
        sentence = f"Its model was made in a checkout with uncommitted changes{on_commit}."
        remarks.append(("model from uncommitted changes", sentence))
    if record.record_id in with_ancestors:
        sentence = "A model that its own was made from, or taught by, was made in a checkout with uncommitted changes."
        remarks.append(("ancestor from uncommitted changes", sentence))
    return remarks
