"""Reading a parsed suite file that may be malformed: what is not of the kind asked for counts as absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from tasks import task_facts, task_names

Raw = Mapping[str, Any]


def table(value: object) -> Raw:
    return value if isinstance(value, dict) else {}


def tables(value: object) -> list[tuple[str, Raw]]:
    """The entries of a table that are tables."""
    return [(key, entry) for key, entry in table(value).items() if isinstance(entry, dict)]


def rows(value: object) -> list[tuple[int, Raw]]:
    return [(i, entry) for i, entry in enumerate(value) if isinstance(entry, dict)] if isinstance(value, list) else []


def texts(value: object) -> list[str]:
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def is_task(name: str) -> bool:
    return task_facts(name) is not None or name in task_names()  # in this order: the second looks through all packages


def model_named(value: object) -> str | None:
    """NAME of `model:NAME`."""
    return value.removeprefix("model:") if isinstance(value, str) and value.startswith("model:") else None
