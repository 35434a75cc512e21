"""The tasks of installed packages, which their entry points `quantboard.tasks` name."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points


@cache
def installed_tasks() -> dict[str, str]:
    """Name to `module:function`. Cached, since looking through all packages takes 10 ms."""
    return {point.name: point.value for point in entry_points(group="quantboard.tasks")}
