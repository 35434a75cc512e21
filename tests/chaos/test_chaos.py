"""The short form of `nox -s chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.__main__ import SHORT, attack


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_every_fault_is_survived(tmp_path: Path) -> None:
    table = attack(SHORT, 1, 0, tmp_path)
    print(table)
    assert table.survived
