"""The short form of `nox -s chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.__main__ import Done, attack
from tests.chaos.short import SHORT


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_every_fault_is_survived(tmp_path: Path) -> None:
    """And a second part has nothing left to do."""
    kept = tmp_path / "done"
    attack(SHORT, 1, 0, tmp_path / "first", Done(kept), quick=True)
    table = Done(kept).faults()
    print(table)
    assert table.survived and table.counts.keys() == SHORT.keys()
    attack(SHORT, 1, 0, tmp_path / "second", Done(kept))
    assert not (tmp_path / "second").exists()
