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
    parser.addoption(
        "--peer-threads", type=int, default=1, help="threads of every side of the peers' bench (default 1)"
    )
    parser.addoption("--peer-turns", type=int, default=9, help="turns of every side at every shape (default 9)")
    parser.addoption("--peers-out", default="", help="a JSON file for the peers' bench to write")


@pytest.fixture(scope="session")
def trials(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--trials"))
