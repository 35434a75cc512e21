"""What the command line prints on standard error, and a plan as JSON."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.errors import visible

if TYPE_CHECKING:
    from harness.plan.plan import Plan


def say(line: str) -> None:
    """Print a message or progress line on standard error."""
    print(visible(line), file=sys.stderr, flush=True)


@cache
def tell(line: str) -> None:
    """Say once what is damaged and left out."""
    say(f"left out: {line}")


def plan_json(plan: Plan) -> dict[str, Any]:
    """Every cell with its settings; `blocked` holds the reason and the fix where it cannot run here."""
    notes = {"notes": list(plan.notes)} if plan.notes else {}
    return {"suite": plan.suite.name, "cells": [cell.to_json() for cell in plan.cells]} | notes
