"""The tasks of installed packages, which their entry points `quantboard.tasks` name."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from tasks.base import DataRef, Task, TaskError, TaskFacts


@cache
def installed_tasks() -> dict[str, str]:
    """Name to `module:function`. Cached, since looking through all packages takes 10 ms."""
    return {point.name: point.value for point in entry_points(group="quantboard.tasks")}


def open_installed(name: str, data: DataRef) -> Task:
    """An installed package's task. Raises TaskError, also for whatever its code raises: its data may not be there."""
    try:
        task: Task = _entry(name)(name, data)
    except TaskError:
        raise
    except Exception as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise TaskError(
            f"{name}: the package that brings this task cannot open it ({type(error).__name__}: {what}); give its data with"
            " --data DIR"
        ) from error
    return task


def installed_facts(name: str) -> TaskFacts | None:
    """What an installed package says of its task: attribute `facts` of the object that its entry point names, a TaskFacts. None
    where it says nothing, or cannot be imported: opening the task tells why."""
    try:
        facts = getattr(_entry(name), "facts", None)
    except Exception:  # foreign code may raise anything, and a plan must survive it
        return None
    return facts if isinstance(facts, TaskFacts) else None


def write_installed(name: str, data: DataRef, folder: Path) -> list[Path]:
    """Let an installed package's task write its data into a new folder, which `--data` takes: its method `write_data(folder)`.
    Raises TaskError where it has none."""
    write = getattr(open_installed(name, data), "write_data", None)
    if write is None:
        raise TaskError(
            f"{name}: comes with an installed package, which reads its data itself and cannot write it; copy the folder that you"
            " give with --data"
        )
    return [Path(path) for path in write(folder)]


@cache
def _entry(name: str) -> Any:
    return resolve_name(installed_tasks()[name])
