"""Turns among real processes: who is slower is found slower, and one that is lost costs the others nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.turns import Found, take_turns
from tests.bench.measuring import MEASURE, Bench

BOTH = replace(MEASURE, scenarios=("single_stream", "offline"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("turns"))


def one_round(bench: Bench, slowed: dict[str, float], broken: str = "") -> tuple[Found, dict[str, str]]:
    jobs = {name: bench.job("turns", bench.cell(slow, BOTH), 1) for name, slow in slowed.items()}
    jobs = {
        name: replace(job, checkpoint=Path("/nowhere"), cache=bench.folder / "empty") if name == broken else job
        for name, job in jobs.items()
    }
    lost: dict[str, str] = {}
    return take_turns(jobs, "round 1", lost.__setitem__, module="tests.bench.slowed"), lost


def test_a_session_slowed_by_a_half_is_found_so(bench: Bench) -> None:
    """Single samples and the largest batch, the same work for both. Half is far more than what a busy machine does to it."""
    found, lost = one_round(bench, {"plain": 0.0, "slowed": 0.5})
    assert lost == {}
    for mine, theirs in zip(found["slowed"], found["plain"], strict=True):
        assert 1.25 < mine["seconds"] / theirs["seconds"] < 1.8
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}
    assert [(one["load"], one["batch_size"], one["together"]) for one in found["plain"]] == [
        ("real", 1, "round 1"),
        ("real", 8, "round 1"),
    ]


def test_one_that_is_lost_is_named_and_the_others_go_on(bench: Bench) -> None:
    found, lost = one_round(bench, {"a": 0.0, "broken": 0.0, "b": 0.0}, broken="broken")
    assert list(lost) == ["broken"] and "exit code" in lost["broken"]
    assert found["broken"] == [] and len(found["a"]) == len(found["b"]) == 2
    alone, lost = one_round(bench, {"a": 0.0, "broken": 0.0}, broken="broken")
    assert alone == {"a": [], "broken": []} and list(lost) == ["broken"]
