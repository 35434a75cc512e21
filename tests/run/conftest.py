"""A cell that could be measured, and a run that it belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plan.spec import Cell
from harness.run.context import Run, new_run
from tasks import DataRef, data_identity
from tests.bench.measuring import Bench
from tests.machine.machines import MACHINE


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Bench(tmp_path / "bench").cell()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    return new_run(
        "bench",
        "a bench",
        command="",
        machine=MACHINE,
        identities={"squad_v1": data_identity("squad_v1", DataRef("sample"))},
        say=lambda line: None,
        show_progress=False,
    )
