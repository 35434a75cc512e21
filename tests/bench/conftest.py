"""How many trials the benches of measuring run: `nox -s bench -- --trials 200` is the full number."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--trials",
        type=int,
        default=4,
        help="pairs of equal cells to measure; other benches run a share of this number (default 4)",
    )


@pytest.fixture(scope="session")
def trials(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--trials"))
