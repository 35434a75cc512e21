"""Which cells are run: finished ones are not, and no cell is run by two processes at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import harness.run.executor
import harness.run.group
from backends.artefacts import sha256_of
from harness.errors import QuantboardError
from harness.plan.spec import Cell
from harness.records import store
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.run.context import Run, work_folder
from harness.run.executor import execute, locked_cells
from tests.records.records import make_record
from tests.report.stored_scores import add, answers

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


def test_a_cell_belongs_to_one_process_until_it_ends(tmp_path: Path, cell: Cell) -> None:
    cache = tmp_path / "cache"
    hold, environment = [sys.executable, "-c", HOLD, str(cache)], {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen([*hold, cell.key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        assert other.stdout
        assert other.stdout.readline() == b"holds\n"
        with (
            pytest.raises(
                QuantboardError, match=r"another run on this machine is measuring .* / seed \d+; wait for it"
            ),
            locked_cells([replace(cell, key="another"), cell], cache),
        ):
            pytest.fail("a cell of another process was locked")
        free = subprocess.run([*hold, "another"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment)
        assert free.stdout == b"holds\n"
        other.send_signal(signal.SIGKILL)
        other.wait()
        with locked_cells([cell], cache):
            pass
    finally:
        other.kill()
        other.communicate()


@pytest.mark.parametrize(("flags", "finished"), [(["avx2"], True), (None, True), (["avx2", "avx512_vnni"], False)])
def test_a_record_made_with_other_instructions_does_not_finish_a_cell(
    cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch, flags: list[str] | None, finished: bool
) -> None:
    """They change how integer products round and how fast they are, though the processor's name may be the same."""
    old = make_record(key=cell.key, machine={} if flags is None else {"flags": flags})
    started: list[Cell] = []

    def start_cell(cell: Cell, run: Run, until: Any) -> Any:
        started.append(cell)
        return old

    monkeypatch.setattr(harness.run.group, "start_cell", start_cell)
    monkeypatch.setattr(store, "append", lambda path, record: None)
    assert list(execute([cell], run, {cell.key: old}, again="", until=None)) == [old]
    assert started == ([] if finished else [cell])


def test_what_is_left_of_a_finished_cell_goes_unless_another_run_measures_it_anew(cell: Cell, run: Run) -> None:
    old = make_record(key=cell.key, machine={"flags": list(run.machine.flags)})
    work = work_folder(cell, run)
    work.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(run.cache), cell.key]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        assert other.stdout and other.stdout.readline() == b"holds\n"
        assert list(execute([cell], run, {cell.key: old}, again="", until=None)) == [old]
        assert work.is_dir()
    finally:
        other.kill()
        other.communicate()
    assert list(execute([cell], run, {cell.key: old}, again="", until=None)) == [old]
    assert not work.exists()


def test_cells_are_locked_before_anything_of_them_is_touched(
    cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished and blocked cells need no lock."""

    def refuse(cells: Iterable[Cell], cache: Path) -> AbstractContextManager[None]:
        wanted.append([cell.key for cell in cells])
        raise QuantboardError("another run")

    wanted: list[list[str]] = []
    monkeypatch.setattr(harness.run.executor, "locked_cells", refuse)
    work_folder(cell, run).mkdir(parents=True)
    old = make_record(key=cell.key, machine={"flags": ["avx2"]})
    todo, blocked = replace(cell, key="todo"), replace(cell, key="blocked", blocked=("no GPU", "get one"))
    with pytest.raises(QuantboardError, match="another run"):
        list(execute([cell, todo, blocked], run, {cell.key: old}, again="", until=None))
    with pytest.raises(QuantboardError, match="another run"):
        list(execute([cell], run, {cell.key: old}, again="all", until=None))
    assert wanted == [["todo"], [cell.key]]
    assert work_folder(cell, run).exists()


def test_what_another_run_finished_before_the_lock_is_not_measured_again(
    tmp_path: Path, cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs begin together: the second has read the records before the first ends, and gets the lock afterwards."""
    second = replace(run, results=tmp_path / "results", seen=store.sizes(tmp_path / "results"))
    made = make_record(key=cell.key, machine={"flags": list(run.machine.flags)})
    first = made.model_copy(
        update={"accuracy": [part.model_copy(update={"scores_file": None}) for part in made.accuracy]}
    )
    second.record_file(cell).parent.mkdir(parents=True)
    store.append(second.record_file(cell).with_name("first.jsonl"), first)

    def start_cell(*_: Any) -> Record:
        pytest.fail("measured again")

    monkeypatch.setattr(harness.run.group, "start_cell", start_cell)
    (found,) = execute([cell], second, {}, again="", until=None)
    assert found.record_id == first.record_id
    assert second.stored.path(found, "x.npz") == second.record_file(cell).with_name("x.npz")


@pytest.mark.parametrize("kept", [False, True])
def test_a_record_whose_scores_are_gone_is_told_and_measured_again(
    tmp_path: Path, cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Where the cache kept the same scores, they are put back, and nothing is measured."""
    made = add(tmp_path / "results", "a", answers(100, 30), machine={"flags": ["avx2"]})
    file = tmp_path / "results" / "scores" / "run-a.npz"
    part = made.accuracy[0].model_copy(update={"scores_sha256": sha256_of(file)})
    record = made.model_copy(update={"key": cell.key, "accuracy": [part]})
    lines: list[str] = []
    later = replace(run, stored=ScoreStore([(tmp_path / "results" / "run.jsonl", record)]), say=lines.append)
    started: list[Cell] = []

    def start_cell(cell: Cell, run: Run, until: Any) -> Record:
        started.append(cell)
        return record

    monkeypatch.setattr(harness.run.group, "start_cell", start_cell)
    monkeypatch.setattr(store, "append", lambda path, record: None)
    list(execute([cell], later, {cell.key: record}, again="", until=None))
    assert not started
    if kept:
        (run.cache / "scored" / cell.key).mkdir(parents=True)
        shutil.copy(file, run.cache / "scored" / cell.key / "scores.npz")
    file.unlink()
    list(execute([cell], later, {cell.key: record}, again="", until=None))
    assert started == ([] if kept else [cell])
    assert file.is_file() == kept
    end = "its scores were put back from the cache" if kept else "it is measured again"
    assert any(f"run-a.npz: is missing; {end}" in line for line in lines)
