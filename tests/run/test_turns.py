"""Interleaved rounds of real processes: a slower one is measured as slower, and one that is lost does not stop the others."""

from __future__ import annotations

import errno
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import harness.run.group
from harness.machine.processes import ServerProcess
from harness.run.context import CellResults, Run, work_folder
from harness.run.events import unwatched
from harness.run.group import interleave
from harness.run.turns import Interleaved, Workers, run_interleaved, turn_groups
from harness.run.work import write_kept
from harness.suite.measure import Measure
from tests.bench.measuring import MEASURE, Bench
from tests.machine.machines import MACHINE

BOTH = replace(MEASURE, scenarios=("single_stream", "offline"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("turns"))


def one_round(
    bench: Bench, slowed: dict[str, float], broken: str = "", measure: Measure = BOTH
) -> tuple[Interleaved, dict[str, str]]:
    jobs = {name: bench.job("turns", bench.cell(slow, measure), 1) for name, slow in slowed.items()}
    jobs = {
        name: replace(job, checkpoint=Path("/nowhere"), cache=bench.folder / "empty") if name == broken else job
        for name, job in jobs.items()
    }
    lost: dict[str, str] = {}
    return run_interleaved(jobs, "round 1", lost.__setitem__, module="tests.bench.slowed"), lost


pytestmark = pytest.mark.xdist_group("turns")  # cells of one thread share a processor


@pytest.mark.slow
def test_a_session_four_times_as_slow_is_measured_as_slower(bench: Bench) -> None:
    """Single samples and the largest batch, the same work for both. The bounds allow for a busy machine, which interrupts long
    calls more often than short ones; `nox -s bench -- -k trials` has narrow bounds."""
    results, lost = one_round(bench, {"plain": 0.0, "slowed": 3.0})
    assert lost == {}
    for mine, theirs in zip(results.loads["slowed"], results.loads["plain"], strict=True):
        assert 2 < mine["seconds"] / theirs["seconds"] < 20
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}
    assert [(times["load"], times["batch_size"], times["together"]) for times in results.loads["plain"]] == [
        ("real", 1, "round 1"),
        ("real", 8, "round 1"),
    ]


@pytest.mark.slow
def test_a_process_that_is_lost_is_named_and_the_others_go_on(bench: Bench) -> None:
    results, lost = one_round(bench, {"a": 0.0, "broken": 0.0, "b": 0.0}, broken="broken")
    assert list(lost) == ["broken"] and "config.json: cannot be read" in lost["broken"]
    assert results.loads["broken"] == [] and len(results.loads["a"]) == len(results.loads["b"]) == 2
    assert set(results.processes) == {"a", "b"}
    alone, lost = one_round(bench, {"a": 0.0, "broken": 0.0}, broken="broken")
    assert alone.loads == {"a": [], "broken": []} and list(lost) == ["broken"]


@pytest.mark.slow
def test_limits_of_a_suite_hold_and_cost_their_own_cell(bench: Bench) -> None:
    """A process that hangs in a call, one that wants more memory than it may have, and one that neither concerns."""
    cells = {
        "fine": bench.cell(0.0, replace(BOTH, speed_timeout=600)),
        "hangs": bench.cell(1e9, replace(BOTH, speed_timeout=20)),
        "large": bench.cell(0.0, replace(BOTH, memory_gib=0.05)),
    }
    jobs = {name: bench.job("turns", cell, 1) for name, cell in cells.items()}
    lost: dict[str, str] = {}
    began = time.monotonic()
    results = run_interleaved(jobs, "round 1", lost.__setitem__, module="tests.bench.slowed")
    assert time.monotonic() - began < 300
    assert lost["hangs"] == (
        "took longer than 20 s and was stopped; raise measure.speed_timeout in the suite if it only needs longer"
    )
    assert "more memory than measure.memory_gib = 0.05 grants; raise it in the suite" in lost["large"]
    assert set(lost) == set(results.logs) == {"hangs", "large"}
    assert set(results.processes) == {"fine"}


@pytest.mark.slow
def test_a_cell_alone_is_measured_where_interleaving_is_the_measurement(bench: Bench) -> None:
    """Its figures are those of the calls that its times are made of."""
    measure = replace(MEASURE, scenarios=("interleaved",))
    results, lost = one_round(bench, {"alone": 0.0}, measure=measure)
    assert lost == {}
    process = results.processes["alone"]
    assert process["peak_rss_bytes"] > process["import_rss_bytes"] > 0
    for turn, test in zip(results.loads["alone"], process["rounds"], strict=True):
        round_ = test["round"]
        assert (test["scenario"], test["batch_size"]) == ("interleaved", turn["batch_size"])
        assert round_["qps"] == pytest.approx(turn["samples"] / turn["seconds"])
        assert round_["queries"] == turn["samples"] * turn["passes"]
        assert 0 < round_["p50_ms"] <= round_["p90_ms"] <= round_["p99_ms"]
        assert round_["conditions"]["ended_seconds"] > round_["conditions"]["began_seconds"]
    assert results.loads["alone"][0]["batches"] >= 16  # different queries


def workers_of(
    bench: Bench, processes: dict[str, ServerProcess], lost: dict[str, str], measure: Measure = BOTH
) -> tuple[Workers, dict[str, tuple[str, ...]]]:
    logs: dict[str, tuple[str, ...]] = {}
    return Workers(processes, lost.__setitem__, {name: bench.cell(0.0, measure) for name in processes}, logs), logs


def answering(folder: Path, name: str, answers: list[dict[str, Any]]) -> ServerProcess:
    job = folder / f"{name}.json"
    job.write_text(json.dumps(answers))
    return ServerProcess("tests.run.answering", job, folder / f"{name}.log")


def test_a_process_with_busy_threads_is_left_out_and_the_cpu_time_of_lost_ones_is_kept(
    bench: Bench, tmp_path: Path
) -> None:
    """Twice may be chance. The processor time of lost processes is not that of other processes."""
    busy = [
        {"seconds": 0.1, "idle": idle, "idle_seconds": 0.2, "cpu": 0.5} for idle in (True, False, True, False, False)
    ]
    cut = [{"cpu": 0.5}, {"seconds": 0.1, "idle": True, "idle_seconds": 0.0, "cpu": 0.75}]
    lost: dict[str, str] = {}
    with answering(tmp_path, "busy", busy) as busy_process, answering(tmp_path, "cut", cut) as cut_process:
        workers, logs = workers_of(bench, {"busy": busy_process, "cut": cut_process}, lost)
        workers.ask_all({"cpu": True})
        assert workers.cpu == {"busy": 0.5, "cut": 0.5}
        assert [workers.run("busy", 0, 0) for _ in range(3)] == busy[1:4]
        assert not lost
        assert workers.run("busy", 0, 0) is None and "keep running" in lost["busy"]
        assert workers.run("cut", 0, None) == cut[1]
        assert workers.run("cut", 0, None) is None and "exit code 3" in lost["cut"]
        assert workers.ask_all({"cpu": True}) == {} and workers.cpu["cut"] == 0.75
        assert set(logs) == {"cut"}  # the other one neither ended nor hung


def test_a_process_has_its_time_for_its_own_turns_alone(bench: Bench, tmp_path: Path) -> None:
    """While another one hangs, its time does not run out."""
    slow = [{"cpu": 0.0, "sleep": 600}]
    fine = [{"cpu": 0.0}, {"seconds": 0.1, "idle": True, "idle_seconds": 0.0, "cpu": 0.5}]
    lost: dict[str, str] = {}
    with answering(tmp_path, "slow", slow) as slow_process, answering(tmp_path, "fine", fine) as fine_process:
        measure = replace(BOTH, speed_timeout=3)
        workers, logs = workers_of(bench, {"slow": slow_process, "fine": fine_process}, lost, measure)
        assert workers.ask_all({"cpu": True}, 600) == {"fine": fine[0]}
        assert "took longer than 3 s and was stopped; raise measure.speed_timeout" in lost["slow"]
        assert workers.run("fine", 0, None) == fine[1]
        assert set(lost) == set(logs) == {"slow"}


def test_which_cells_are_interleaved(bench: Bench) -> None:
    single, double = bench.cell(), bench.cell(measure=replace(MEASURE, threads=2))
    gpu, short = replace(single, device="cuda"), replace(single, shape=replace(single.shape, max_length=64))
    assert turn_groups([single, double, gpu, single, short, double]) == [
        [single, single],
        [double, double],
        [gpu],
        [short],
    ]


class TwoCells:
    """Two cells of a run with a cache of its own. lines: what the run says. started: how many interleaved rounds ran."""

    def __init__(self, bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self.started = 0
        self.fault: OSError | None = None
        run = SimpleNamespace(run_id="later", cache=folder, machine=MACHINE, say=self.lines.append, watch=unwatched)
        self.run = cast(Run, run)
        cells = [replace(bench.cell(), key=key) for key in ("a", "b")]
        rounds = [{"peak_rss_bytes": 1 << 20, "peak_device_bytes": None}]
        self.cells = [CellResults(cell, {}, list(rounds)) for cell in cells]
        for cell in cells:
            work_folder(cell, self.run).mkdir(parents=True)
        monkeypatch.setattr(harness.run.group, "run_interleaved", self.run_interleaved)

    def run_interleaved(self, jobs: dict[str, Any], together: str, lost: Any) -> Interleaved:
        self.started += 1
        if self.fault:
            raise self.fault
        lost("b", "its process ended with exit code 1")
        return Interleaved({"a": [{"together": together}], "b": []}, {}, {"b": ("the last words",)})

    def keep(self, key: str, together: str) -> None:
        cell = next(results.cell for results in self.cells if results.cell.key == key)
        content = {"together": together, "loads": [{"together": together}], "process": None, "note": ""}
        write_kept(work_folder(cell, self.run) / "turns-1.json", content)

    def turns(self) -> list[list[dict[str, Any]]]:
        return [results.turns for results in self.cells]


@pytest.fixture
def two(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TwoCells:
    return TwoCells(bench, tmp_path, monkeypatch)


def test_interleaved_rounds_of_a_killed_run_are_kept(two: TwoCells) -> None:
    for key in ("a", "b"):
        two.keep(key, "earlier")
    interleave(two.cells, two.run, 1)
    assert two.started == 0 and two.turns() == [[{"together": "earlier"}]] * 2
    last = replace(two.cells[1], turns=[])
    interleave([last], two.run, 1)  # the other's record was written before the run was killed
    assert two.started == 0 and last.turns == [{"together": "earlier"}]


@pytest.mark.parametrize("before", [{"a": "earlier"}, {"a": "earlier", "b": "another"}])
def test_a_round_that_not_all_cells_have_kept_is_run_again(two: TwoCells, before: dict[str, str]) -> None:
    for key, together in before.items():
        two.keep(key, together)
    interleave(two.cells, two.run, 1)
    assert two.started == 1
    (mine,), theirs = two.turns()
    assert mine["together"].startswith("later") and theirs == []
    assert two.cells[1].notes == ["interleaved, round 1: its process ended with exit code 1"]
    again = [replace(results, turns=[], notes=[], lost=None) for results in two.cells]
    interleave(again, two.run, 1)
    assert two.started == 1 and [results.turns for results in again] == two.turns()
    for pair in (two.cells, again):
        assert pair[0].lost is None and pair[1].lost is not None
        assert str(pair[1].lost) == "interleaved, round 1: its process ended with exit code 1"
        assert pair[1].lost.log == ("the last words",)


def test_a_full_disk_does_not_stop_the_run(two: TwoCells) -> None:
    two.fault = OSError(errno.ENOSPC, "No space left on device", "/tmp/x")
    interleave(two.cells, two.run, 1)
    assert two.turns() == [[], []]
    assert two.cells[0].notes == ["interleaved, round 1: /tmp/x: No space left on device"]


def test_models_that_do_not_fit_into_memory_together_are_not_interleaved(two: TwoCells) -> None:
    two.cells[0].rounds[0] = {"peak_rss_bytes": 1 << 60, "peak_device_bytes": None}
    interleave(two.cells, two.run, 1)
    assert two.started == 0 and two.turns() == [[], []]
    assert "the 2 models need 1073741824.0 GiB of memory together" in two.lines[-1]
