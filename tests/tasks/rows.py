"""Rows held in memory, for tests of features, decoding and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.base import SplitIdentity
from tasks.sources import RowSource


def rows_in_memory(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> RowSource:
    return RowSource(
        name="memory",
        kind="sample",
        splits=tuple(data),
        load=lambda split: [dict(row) for row in data[split]],
        identify=lambda split: SplitIdentity(len(data[split]), None, "", "sample"),
    )


def question(
    context: str, question: str = "who?", answer: str = "", start: int | None = None, id_: str = "q", title: str = "t"
) -> dict[str, Any]:
    at = context.index(answer) if start is None else start
    answers = {"text": [answer], "answer_start": [at]}
    return {"id": id_, "title": title, "context": context, "question": question, "answers": answers}
