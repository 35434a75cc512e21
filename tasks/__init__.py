"""Tasks by name. A new task is one file and one line here, or an installed package's `quantboard.tasks` entry point."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from tasks.base import (
    DataIdentity,
    DataRef,
    Features,
    Scores,
    Shape,
    SplitIdentity,
    Statistic,
    Task,
    TaskError,
    TaskFacts,
)

__all__ = [
    "DataIdentity", "DataRef", "Features", "Scores", "Shape", "SplitIdentity", "Statistic", "Task", "TaskError", "TaskFacts",
    "open_task", "short_name", "task_facts", "task_names",
]  # fmt: skip

_FACTS = {
    "squad_v1": TaskFacts("question_answering", ("exact_match", "f1"), None, "squad_v1", 176),
    "glue/cola": TaskFacts("classification", ("matthews_correlation",), "GLUE", "cola", 11),
    "glue/sst2": TaskFacts("classification", ("accuracy",), "GLUE", "sst2", 13),
    "glue/mrpc": TaskFacts("classification", ("accuracy", "f1"), "GLUE", "mrpc", 53),
    "glue/stsb": TaskFacts("regression", ("pearson", "spearman"), "GLUE", "stsb", 28),
    "glue/qqp": TaskFacts("classification", ("accuracy", "f1"), "GLUE", "qqp", 30),
    "glue/mnli": TaskFacts(
        "classification", ("accuracy",), "GLUE", "mnli", 39, ("validation_matched", "validation_mismatched")
    ),
    "glue/qnli": TaskFacts("classification", ("accuracy",), "GLUE", "qnli", 52),
    "glue/rte": TaskFacts("classification", ("accuracy",), "GLUE", "rte", 67),
}
_REGISTRY = {"squad_v1": "tasks.squad:open_task"} | {
    name: "tasks.glue:open_task" for name in _FACTS if name.startswith("glue/")
}


@cache
def _installed() -> dict[str, str]:
    """Of installed packages. Kept: looking through them all takes 10 ms."""
    return {point.name: point.value for point in entry_points(group="quantboard.tasks")}


def task_names() -> list[str]:
    """All task names that a suite may use; imports no task."""
    return [*_REGISTRY, *_installed()]


def task_facts(name: str) -> TaskFacts | None:
    """What suites are checked against; None for an unknown task, and for an installed package's, which it would have to import."""
    return _FACTS.get(name)


def short_name(name: str) -> str:
    """What tables call a task: its name without the benchmark's prefix, such as `cola` for `glue/cola`."""
    facts = task_facts(name)
    return facts.short if facts and facts.short else name


def open_task(name: str, data: DataRef) -> Task:
    """The task bound to its data. Raises TaskError for an unknown name or unreadable data."""
    target = _REGISTRY.get(name) or _installed().get(name)
    if target is None:
        near = difflib.get_close_matches(name, task_names(), 1)
        raise TaskError(
            f"unknown task '{name}'"
            + (f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(task_names())}")
        )
    module, _, function = target.partition(":")
    task: Task = getattr(import_module(module), function)(name, data)
    return task


def data_identity(name: str, data: DataRef) -> DataIdentity:
    """What a task's data is made of, without importing the task where it is one of ours: plans need no NumPy."""
    if name in _REGISTRY:
        from tasks.sources import open_rows

        return open_rows(name, data).identity
    return open_task(name, data).identity
