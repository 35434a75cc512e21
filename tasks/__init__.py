"""Tasks by name. A new task is one definition in `tasks.definitions`, or an installed package's entry point `quantboard.tasks`."""

from __future__ import annotations

import difflib
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from tasks.base import (
    DataIdentity,
    DataRef,
    Features,
    Kind,
    Scores,
    Shape,
    SplitIdentity,
    Statistic,
    Task,
    TaskError,
    TaskFacts,
)
from tasks.definitions import DEFINITIONS, VERSIONS, Definition
from tasks.installed import installed_facts, installed_tasks, open_installed

if TYPE_CHECKING:
    from tasks.declared import DeclaredRows
    from tasks.declared_questions import DeclaredQuestions

__all__ = [
    "DataIdentity", "DataRef", "Features", "Scores", "Shape", "SplitIdentity", "Statistic", "Task", "TaskError", "TaskFacts",
    "open_task", "short_name", "task_definition", "task_facts", "task_names", "task_version",
]  # fmt: skip

_CODE: dict[Kind, str] = {
    "question_answering": "tasks.question_answering:QuestionAnswering",
    "classification": "tasks.sequence_classification:SequenceClassification",
    "regression": "tasks.sequence_classification:SequenceClassification",
    "multi_label": "tasks.multi_label:MultiLabel",
    "token_classification": "tasks.token_classification:TokenClassification",
    "similarity": "tasks.similarity:Similarity",
}
"""The class of each kind of task; it takes a definition and the rows."""


def task_names() -> list[str]:
    """All task names that a suite may use; imports no task."""
    return [*DEFINITIONS, *(name for name in installed_tasks() if name not in DEFINITIONS)]


def task_facts(name: str) -> TaskFacts | None:
    """What suites are checked against. None for an unknown task, and for an installed package's that says nothing of itself."""
    if name in DEFINITIONS:
        return DEFINITIONS[name].facts
    return installed_facts(name) if name in installed_tasks() else None


def short_name(name: str) -> str:
    """What tables call a task: its name without the benchmark's prefix, such as `cola` for `glue/cola`."""
    facts = task_facts(name)
    return facts.short if facts and facts.short else name


def open_task(name: str, data: DataRef) -> Task:
    """The task with its data. Raises TaskError for an unknown name or unreadable data."""
    if data.kind == "declared":
        declared = _declared_rows(data)
        own: Task = resolve_name(_code(declared.definition))(declared.definition, declared)
        return own
    if name in DEFINITIONS:
        from tasks.sources import open_rows

        definition = DEFINITIONS[name]
        task: Task = resolve_name(_code(definition))(definition, open_rows(name, data))
        return task
    if name in installed_tasks():
        return open_installed(name, data)
    near = difflib.get_close_matches(name, task_names(), 1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(task_names())}"
    raise TaskError(f"unknown task '{name}'; {hint}")


def data_identity(name: str, data: DataRef) -> DataIdentity:
    """What a task's data consists of. Does not import the code of a task that has a definition: plans need no NumPy."""
    if data.kind == "declared":
        return _declared_rows(data).identity
    if name in DEFINITIONS:
        from tasks.sources import open_rows

        return open_rows(name, data).identity
    return open_task(name, data).identity


def task_definition(name: str, data: DataRef) -> Definition | None:
    """What a task's code works by: its classes, for example. None for an installed package's task. That of a declared task reads
    its files, and raises TaskError for those that cannot be used."""
    return _declared_rows(data).definition if data.kind == "declared" else DEFINITIONS.get(name)


def task_version(name: str, data: DataRef) -> int:
    """The version of a task's code, part of every cell's key. Does not import the code of a task that has a definition."""
    if data.kind == "declared":
        from tasks.declared import KINDS, Declaration

        return VERSIONS[KINDS[Declaration.from_json(data.location).kind]]  # reads no file
    return VERSIONS[DEFINITIONS[name].kind] if name in DEFINITIONS else open_task(name, data).version


def _code(definition: Definition) -> str:
    return "tasks.unanswerable:UnanswerableQuestions" if definition.unanswerable else _CODE[definition.kind]


def _declared_rows(data: DataRef) -> DeclaredRows | DeclaredQuestions:
    from tasks.declared import Declaration, DeclaredRows
    from tasks.declared_questions import DeclaredQuestions

    declaration = Declaration.from_json(data.location)
    return (DeclaredQuestions if declaration.kind == "question_answering" else DeclaredRows)(declaration)
