"""Ceilings of matrix products take seconds in every run: tests that are not about them share those of the first."""

from __future__ import annotations

from typing import Any

import pytest

from harness.run import roofline
from harness.run.context import Run

_taken: dict[int, list[Any]] = {}
_take = roofline._ceilings


def ceilings(run: Run, threads: int) -> list[Any]:
    """Those of the first run in this process."""
    if threads not in _taken:
        _taken[threads] = _take(run, threads)
    return _taken[threads]


def share_ceilings(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(roofline, "_ceilings", ceilings)
