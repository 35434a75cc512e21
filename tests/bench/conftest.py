"""How long the benches of measuring take: `nox -s bench -- --trials 200` is the whole of them, less is a glance."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--trials", type=int, default=4, help="pairs of equal cells; of everything else a part of it (default 4)"
    )


@pytest.fixture(scope="session")
def trials(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--trials"))
