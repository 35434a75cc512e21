"""Questions of a user's own: the rows of a declared task of kind `question_answering`."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

from tasks.base import BadRow, DataIdentity, SplitIdentity, TaskError, with_skip
from tasks.declared import LABEL, Declaration
from tasks.definitions import Definition, OfficialSplit, RawFiles
from tasks.questions import read_questions
from tasks.rows import Row, row_digest
from tasks.tables import read_table


class DeclaredQuestions:
    """The rows of declared files. Every method raises TaskError, with file and place, for what cannot be used."""

    def __init__(self, declaration: Declaration) -> None:
        self._declaration = declaration
        self._read: dict[str, tuple[list[Row], int]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._declaration.data)

    @cached_property
    def definition(self) -> Definition:
        """What the code of the kind works by."""
        declared = self._declaration
        return Definition(
            name=declared.name,
            kind="question_answering",
            metrics=declared.facts.metrics,
            primary_metric=declared.facts.metrics[0],
            texts=("context", "question"),
            splits={split: OfficialSplit(0) for split in self.splits},
            raw=RawFiles(folder="", names={}, format="squad_json"),
            hub=("", None),
            unanswerable=declared.unanswerable,
        )

    @cached_property
    def identity(self) -> DataIdentity:
        """As that of other declared tasks: an equal copy elsewhere is equal data."""
        settings = json.dumps([self._declaration.kind, self._declaration.facts.metrics, self._declaration.unanswerable])
        splits = {}
        for split in self.splits:
            rows, skipped = self._questions(split)
            content = hashlib.sha256(f"{settings}\n{row_digest(self.definition, rows)}".encode()).hexdigest()
            label = f"{LABEL}, {skipped:,} rows left out" if skipped else LABEL
            splits[split] = SplitIdentity(len(rows), None, content, label)
        return DataIdentity("declared", LABEL, splits)

    def rows(self, split: str) -> list[Row]:
        """The questions of a split in file order, in Hugging Face's flat form."""
        return self._questions(split)[0]

    def _questions(self, split: str) -> tuple[list[Row], int]:
        declared = self._declaration
        if split not in declared.data:
            raise TaskError(f"{declared.name}: no split '{split}' is declared; found: {', '.join(self.splits)}")
        if split not in self._read:
            path = Path(declared.data[split])
            try:
                rows, skipped = read_questions(
                    path, unanswerable=declared.unanswerable, skip=declared.skip_bad_rows, read_table=read_table
                )
            except BadRow as error:
                text = str(error)
                if not declared.unanswerable and ": no answer;" in text:
                    text = text.partition(": no answer;")[0]
                    text += ": no answer; write unanswerable = true where some questions have none"
                raise with_skip(text) from None
            if not rows:
                raise TaskError(f"{path}: holds no questions that can be used ({skipped:,} left out); check the file")
            self._read[split] = rows, skipped
        return self._read[split]
