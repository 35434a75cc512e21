"""Problems of the schemes that a suite file declares, which its tables alone do not show."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import ValidationError

from backends import BackendError
from backends.schemes import changed_scheme, get_scheme, scheme_names
from harness.errors import KeyPath, did_you_mean
from harness.suite.parsed import TomlTable, subtables, table
from harness.suite.problems import Problem, shown
from harness.suite.scheme_tables import OwnScheme


def check_schemes(data: TomlTable) -> Iterator[Problem]:
    """Every problem of the `schemes` tables."""
    for name, declared in subtables(data.get("schemes")):
        at: KeyPath = ("schemes", name)
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
            yield at, "the name must hold only small letters, digits, '.', '_' and '-'; rename it"
        elif name in scheme_names():
            yield at, "a scheme of this name exists already; rename it"
        base = declared.get("base")
        if isinstance(base, str) and base not in scheme_names():
            yield (*at, "base"), f"unknown scheme {shown(base)}{did_you_mean(base, scheme_names())}"
        elif isinstance(base, str):
            try:
                changed_scheme(base, OwnScheme.model_validate(declared).changes())
            except ValidationError:
                pass  # its tables report it
            except BackendError as error:
                yield at, re.sub(r"^scheme '.*?': (?=[a-z])", "", str(error).rpartition("': ")[2])


def why_untrained(data: TomlTable, name: str) -> str:
    """Why a model cannot be trained with the quantizers of a scheme; empty if it can."""
    full = full_name(data, name)
    chosen = get_scheme(full) if full else None
    keys = [key for key in ("smoothing", "bias_correction") if chosen and getattr(chosen, key)]
    return f"its {' and '.join(keys)} is for calibration only, and training learns both; delete it" if keys else ""


def known_schemes(data: TomlTable) -> list[str]:
    """Names that the file may use: ours, and those that it declares."""
    return [*scheme_names(), *table(data.get("schemes"))]


def full_name(data: TomlTable, name: str) -> str | None:
    """The full name of a scheme; None for one that cannot be used, which is reported elsewhere."""
    declared = table(data.get("schemes")).get(name)
    if declared is None:
        return name if name in scheme_names() else None
    try:
        own = OwnScheme.model_validate(declared)
        return changed_scheme(own.base, own.changes())
    except (ValidationError, BackendError):
        return None
