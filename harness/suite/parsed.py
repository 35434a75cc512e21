"""Reading a parsed suite file that may be malformed: a value of the wrong type counts as absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from tasks import TaskFacts, task_facts, task_names

TomlTable = Mapping[str, Any]


def table(value: object) -> TomlTable:
    return value if isinstance(value, dict) else {}


def subtables(value: object) -> list[tuple[str, TomlTable]]:
    """The values of a table that are tables, with their keys."""
    return [(key, content) for key, content in table(value).items() if isinstance(content, dict)]


def table_array(value: object) -> list[tuple[int, TomlTable]]:
    """The tables of an array, with their positions."""
    values = value if isinstance(value, list) else []
    return [(index, content) for index, content in enumerate(values) if isinstance(content, dict)]


def strings(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def is_task(data: TomlTable, name: str) -> bool:
    """Whether the file declares the task, or we know it."""
    # the last condition reads the metadata of all installed packages
    return name in table(data.get("task")) or task_facts(name) is not None or name in task_names()


def known_tasks(data: TomlTable) -> list[str]:
    return [*table(data.get("task")), *task_names()]


def facts_of(data: TomlTable, name: str) -> TaskFacts | None:
    """What is known of a task, whether the file declares it or not. None for an unknown task, for an installed package's, and
    for one whose declared kind is none."""
    declared = table(data.get("task"))
    if name not in declared:
        return task_facts(name)
    from tasks.declared import facts_of_kind

    own = table(declared[name])
    return facts_of_kind(own.get("kind"), strings(own.get("metrics")), unanswerable=own.get("unanswerable") is True)


def referenced_model(value: object) -> str | None:
    """NAME of `model:NAME`; None for anything else."""
    return value.removeprefix("model:") if isinstance(value, str) and value.startswith("model:") else None
