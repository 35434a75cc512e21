"""Two runs on one cache: the second is told so before it touches what the first has measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import QuantboardError
from harness.plan.spec import Cell
from harness.run.executor import locked_cells
from tests.bench.measuring import Bench

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from types import SimpleNamespace
from harness.run.executor import locked_cells
with locked_cells([SimpleNamespace(key=sys.argv[2])], Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Bench(tmp_path / "bench").cell()


def test_a_cell_belongs_to_one_process_until_it_ends(tmp_path: Path, cell: Cell) -> None:
    cache = tmp_path / "cache"
    hold, environment = [sys.executable, "-c", HOLD, str(cache)], {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen([*hold, cell.key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        assert other.stdout
        assert other.stdout.readline() == b"holds\n"
        with (
            pytest.raises(QuantboardError, match=r"another run on this machine is at .* / seed \d+; wait for it"),
            locked_cells([replace(cell, key="another"), cell], cache),
        ):
            pytest.fail("a cell of another process was taken")
        free = subprocess.run([*hold, "another"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment)
        assert free.stdout == b"holds\n"
        other.send_signal(signal.SIGKILL)
        other.wait()
        with locked_cells([cell], cache):
            pass
    finally:
        other.kill()
        other.communicate()
