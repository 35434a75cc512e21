"""Objects by name: our own, and those that installed packages offer as entry points."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from backends.base import BackendError


@dataclass(frozen=True)
class Registry:
    """kind: what the objects are, for messages. group: of the entry points. ours: name -> `module:attribute`, imported when it is
    asked for."""

    kind: str
    group: str
    ours: dict[str, str]

    @cached_property
    def _installed(self) -> dict[str, str]:
        """name -> `module:attribute` of installed packages. Cached: searching all packages takes 10 ms."""
        return {point.name: point.value for point in entry_points(group=self.group)}

    def names(self) -> list[str]:
        """All names; imports none of the objects."""
        return [*self.ours, *self._installed]

    def __contains__(self, name: object) -> bool:
        return name in self.ours or name in self._installed

    def get(self, name: str) -> Any:
        """The object of that name. Raises BackendError for an unknown name, with the nearest known one, and for an object of an
        installed package that cannot be imported."""
        target = self.ours.get(name) or self._installed.get(name)
        if target is None:
            near = difflib.get_close_matches(name, self.names(), 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(self.names())}"
            raise BackendError(f"unknown {self.kind} '{name}'; {hint}")
        module, _, attribute = target.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except Exception as error:  # a plugin may raise anything
            if name in self.ours:
                raise
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise BackendError(
                f"{self.kind} '{name}' of an installed package cannot be loaded ({what}); mend or uninstall the package of {module}"
            ) from None
