"""Comparisons of scores, each made once: where the same scores are compared again, in the same build of a site or in the next,
nothing is read and nothing is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.errors import Tell
from harness.machine.digests import digest
from harness.records.schema import Accuracy, Record
from harness.records.scores import ScoreStore

Result = TypeVar("Result")


class RememberedScores(ScoreStore):
    """known: comparisons as JSON, by the hash of what they are made of; new ones are added. used: the hashes of those that were
    asked for."""

    def __init__(
        self,
        records: Iterable[tuple[Path, Record]],
        tell: Tell,
        hash_of: Callable[[Record, Accuracy], str],
        known: dict[str, bytes],
    ) -> None:
        """hash_of: the SHA-256 of a scores file as it is, not as its record says; empty where there is none."""
        super().__init__(records, tell)
        self._hash_of, self._comparisons = hash_of, known
        self._identities: dict[tuple[str, str], str] = {}
        self.used: set[str] = set()

    def once(
        self, what: str, records: Sequence[Record], split: str, make: Callable[[], Result], form: TypeAdapter[Result]
    ) -> Result:
        key = digest([what, [self._identity(record, split) for record in records]])
        try:
            known = form.validate_json(self._comparisons.get(key, b""))
        except ValidationError:
            pass
        else:
            self.used.add(key)
            return known
        made = make()
        coded = _coded(made, form)
        if coded and not self.damaged & {record.record_id for record in records}:
            self._comparisons[key] = coded
            self.used.add(key)
        return made

    def _identity(self, record: Record, split: str) -> str:
        """All that `scores` and `predictions` give of a record follows from it."""
        place = record.record_id, split
        if place not in self._identities:
            part = next((part for part in record.accuracy if part.split == split), None)
            facts: list[object] = [split]
            if part:
                values = [(name, figure.value) for name, figure in part.metrics.items()]
                facts += [
                    self._hash_of(record, part),
                    part.scores_sha256,
                    part.primary,
                    values,
                    part.examples,
                    part.missing,
                ]
            self._identities[place] = digest(facts)
        return self._identities[place]


def _coded(made: Result, form: TypeAdapter[Result]) -> bytes:
    """As JSON; empty where that reads back as anything else, be it 3.0 for 3."""
    try:
        coded = form.dump_json(made, warnings="error")
        read = form.validate_json(coded)
    except ValueError:  # of Pydantic, in both directions
        return b""
    return coded if read == made and form.dump_json(read) == coded else b""
