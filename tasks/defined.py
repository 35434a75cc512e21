"""What tasks that a definition describes have in common: its facts, and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.base import DataIdentity, Kind, Rows
from tasks.definitions import VERSIONS, Definition

Row = Mapping[str, Any]


class DefinedTask:
    def __init__(self, definition: Definition, rows: Rows) -> None:
        self._definition = definition
        self._rows = rows
        self.name: str = definition.name
        self.kind: Kind = definition.kind
        self.version: int = VERSIONS[definition.kind]
        self.labels: tuple[str, ...] = definition.labels
        self.primary_metric: str = definition.primary_metric
        present = definition.eval_splits
        if len(present) > 1:
            present = tuple(split for split in present if split in rows.splits)
        # with no split to evaluate, the first one is named, and reading it says that it is missing
        self.eval_splits: tuple[str, ...] = present or definition.eval_splits[:1]

    @property
    def identity(self) -> DataIdentity:
        return self._rows.identity

    def examples(self, split: str) -> Sequence[Row]:
        """The rows of a split, in file order. Raises TaskError on broken data."""
        return self._rows.rows(split)
