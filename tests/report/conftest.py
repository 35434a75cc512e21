"""What tests of the site share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.report import build
from harness.report.units import Unit, make_unit


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a build of a site leaves for the next lies in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTBOARD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Unit]:
    """The units that builds make, as they make them."""
    units: list[Unit] = []

    def make(unit: Unit, *rest: Any) -> Any:
        units.append(unit)
        return make_unit(unit, *rest)

    monkeypatch.setattr(build, "make_unit", make)
    return units
