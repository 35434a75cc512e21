"""Rows held in memory, for tests of features, decoding and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.base import DataIdentity


@dataclass(frozen=True)
class MemoryRows:
    data: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    identity: DataIdentity = field(default_factory=lambda: DataIdentity("sample", "sample", {}))

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.data)

    def rows(self, split: str) -> Sequence[Mapping[str, Any]]:
        return self.data[split]


def question(
    context: str, question: str = "who?", answer: str = "", start: int | None = None, id_: str = "q", title: str = "t"
) -> dict[str, Any]:
    at = context.index(answer) if start is None else start
    answers = {"text": [answer], "answer_start": [at]}
    return {"id": id_, "title": title, "context": context, "question": question, "answers": answers}
