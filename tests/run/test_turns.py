"""Turns among real processes: who is slower is found slower, and one that is lost costs the others nothing."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import harness.records.store
import harness.run.context
import harness.run.executor
import harness.run.group
import harness.run.steps
from harness.machine.processes import ServerProcess
from harness.run.context import Measured, Run, work_folder
from harness.run.group import _take_turns
from harness.run.turns import Found, Players, take_turns, turn_groups
from tests.bench.measuring import MEASURE, Bench
from tests.machine.machines import MACHINE

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


pytestmark = pytest.mark.xdist_group("turns")  # cells of one thread share a processor


def test_a_session_four_times_as_slow_is_found_so(bench: Bench) -> None:
    """Single samples and the largest batch, the same work for both; with room for a busy machine, which interrupts long calls
    more often than short ones. `nox -s bench -- -k trials` has the narrow bounds."""
    found, lost = one_round(bench, {"plain": 0.0, "slowed": 3.0})
    assert lost == {}
    for mine, theirs in zip(found["slowed"], found["plain"], strict=True):
        assert 2 < mine["seconds"] / theirs["seconds"] < 20
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


def answering(folder: Path, name: str, answers: list[dict[str, Any]]) -> ServerProcess:
    job = folder / f"{name}.json"
    job.write_text(json.dumps(answers))
    return ServerProcess("tests.run.answering", job, folder / f"{name}.log")


def test_one_whose_threads_do_not_rest_is_left_out_and_what_the_lost_used_is_known(tmp_path: Path) -> None:
    """Twice may be chance. The processor time of those that are gone was not that of other processes."""
    restless = [
        {"seconds": 0.1, "rested": rested, "resting": 0.2, "cpu": 0.5} for rested in (True, False, True, False, False)
    ]
    cut = [{"cpu": 0.5}, {"seconds": 0.1, "rested": True, "resting": 0.0, "cpu": 0.75}]
    lost: dict[str, str] = {}
    with answering(tmp_path, "restless", restless) as one, answering(tmp_path, "cut", cut) as two:
        players = Players({"restless": one, "cut": two}, lost.__setitem__)
        players.ask_all({"cpu": True})
        assert players.cpu == {"restless": 0.5, "cut": 0.5}
        assert [players.run("restless", 0, 0) for _ in range(3)] == restless[1:4]
        assert not lost
        assert players.run("restless", 0, 0) is None and "go on working" in lost["restless"]
        assert players.run("cut", 0, None) == cut[1]
        assert players.run("cut", 0, None) is None and "exit code 3" in lost["cut"]
        assert players.ask_all({"cpu": True}) == {} and players.cpu["cut"] == 0.75


def test_who_takes_turns_with_whom(bench: Bench) -> None:
    one, two = bench.cell(), bench.cell(measure=replace(MEASURE, threads=2))
    other, short = replace(one, device="cuda"), replace(one, shape=replace(one.shape, max_length=64))
    assert turn_groups([one, two, other, one, short, two]) == [[one, one], [two, two], [other], [short]]


class Kept:
    """Two cells of a run in a cache of its own; `said`: its lines; `started`: rounds of turns that were not kept."""

    def __init__(self, bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.started = 0
        self.fault: OSError | None = None
        run = SimpleNamespace(run_id="later", cache=folder, machine=MACHINE, say=self.said.append)
        self.run = cast(Run, run)
        cells = [replace(bench.cell(), key=key) for key in ("a", "b")]
        rounds = [{"peak_rss_bytes": 1 << 20, "peak_device_bytes": None}]
        self.cells = [Measured(cell, {}, list(rounds)) for cell in cells]
        for cell in cells:
            work_folder(cell, self.run).mkdir(parents=True)
        monkeypatch.setattr(harness.run.executor, "take_turns", self.take)

    def take(self, jobs: dict[str, Any], together: str, lost: Any) -> Found:
        self.started += 1
        if self.fault:
            raise self.fault
        lost("b", "its process ended with exit code 1")
        return {"a": [{"together": together}], "b": []}

    def keep(self, key: str, together: str) -> None:
        cell = next(one.cell for one in self.cells if one.cell.key == key)
        content = {"together": together, "found": [{"together": together}], "note": ""}
        (work_folder(cell, self.run) / "turns-1.json").write_text(json.dumps(content))

    def turns(self) -> list[list[dict[str, Any]]]:
        return [one.turns for one in self.cells]


@pytest.fixture
def kept(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(bench, tmp_path, monkeypatch)


def test_a_killed_runs_turns_are_kept(kept: Kept) -> None:
    for key in ("a", "b"):
        kept.keep(key, "earlier")
    _take_turns(kept.cells, kept.run, 1)
    assert kept.started == 0 and kept.turns() == [[{"together": "earlier"}]] * 2
    last = replace(kept.cells[1], turns=[])
    _take_turns([last], kept.run, 1)  # the other's record was written before the run was killed
    assert kept.started == 0 and last.turns == [{"together": "earlier"}]


@pytest.mark.parametrize("before", [{"a": "earlier"}, {"a": "earlier", "b": "another"}])
def test_turns_that_one_cell_alone_kept_are_taken_again(kept: Kept, before: dict[str, str]) -> None:
    for key, together in before.items():
        kept.keep(key, together)
    _take_turns(kept.cells, kept.run, 1)
    assert kept.started == 1
    (mine,), theirs = kept.turns()
    assert mine["together"].startswith("later") and theirs == []
    assert kept.cells[1].notes == ["by turns, round 1: its process ended with exit code 1"]
    again = [replace(one, turns=[], notes=[]) for one in kept.cells]
    _take_turns(again, kept.run, 1)
    assert kept.started == 1 and [one.turns for one in again] == kept.turns()


def test_a_full_disk_costs_the_turns_and_not_the_run(kept: Kept) -> None:
    kept.fault = OSError(errno.ENOSPC, "No space left on device", "/tmp/x")
    _take_turns(kept.cells, kept.run, 1)
    assert kept.turns() == [[], []]
    assert kept.cells[0].notes == ["by turns, round 1: /tmp/x: No space left on device"]


def test_models_that_do_not_fit_together_take_no_turns(kept: Kept) -> None:
    kept.cells[0].rounds[0] = {"peak_rss_bytes": 1 << 60, "peak_device_bytes": None}
    _take_turns(kept.cells, kept.run, 1)
    assert kept.started == 0 and kept.turns() == [[], []]
    assert "the 2 models need 1073741824.0 GiB of memory together" in kept.said[-1]
