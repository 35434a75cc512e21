"""What a record names is what was used: content that changes between plan and use ends in an error, not in a figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import harness.records.store
import harness.run.context
import harness.run.executor
import harness.run.group
import harness.run.steps
from harness.checkpoints.make import check_inputs_unchanged, ensure
from harness.errors import CheckpointError, QuantboardError
from harness.machine.processes import KEEP_MEMORY, ProcessResult, child_environment
from harness.plan.sources import corpus_identity, look_up
from harness.plan.spec import Cell, folder_of
from harness.run.assemble import state_of
from harness.run.context import CellFailed, Measured, Run, new_run, work_folder
from harness.run.executor import execute
from harness.run.steps import _check_data_unchanged, _drop_stale_results
from tasks import DataRef, data_identity
from tests.bench.measuring import Bench
from tests.machine.machines import MACHINE
from tests.records.records import make_record
from tests.run.small import sample_spec, train

IDENTITY = data_identity("squad_v1", DataRef("sample"))


def test_a_checkpoint_of_other_content_is_not_made(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for name in ("model.safetensors", "config.json", "vocab.txt", "tokenizer_config.json"):
        (source / name).write_text(name)
    words = {
        **look_up(str(source), Path(), hub=False).identity,
        **corpus_identity(DataRef("sample"))[0],
        "train": IDENTITY.splits["train"].sha256,
    }
    assert set(words) == {"weights", "config", "vocab.txt", "tokenizer_config.json", "corpus", "train"}
    spec = sample_spec(source=str(source), identity=words)
    check_inputs_unchanged(spec)
    for name in words:
        with pytest.raises(CheckpointError, match=rf"tiny on squad_v1: {name}: other content than when"):
            check_inputs_unchanged(replace(spec, identity=words | {name: "of before"}))
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: other content"):
        check_inputs_unchanged(spec)
    with pytest.raises(CheckpointError, match="train: other content"):
        ensure(sample_spec(train=train(max_steps=1), identity={"train": "of before"}), tmp_path / "cache")


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Bench(tmp_path / "bench").cell()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    yield new_run(
        "bench",
        "a bench",
        command="",
        machine=MACHINE,
        identities={"squad_v1": IDENTITY},
        say=said.append,
        show_progress=False,
    )


def test_examples_of_other_content_fail_the_cell(cell: Cell, run: Run) -> None:
    split = "validation"
    _check_data_unchanged(Measured(cell, {"data": {split: IDENTITY.splits[split].sha256}}), run)
    work_folder(cell, run).mkdir(parents=True)
    with pytest.raises(CellFailed, match="split validation has other content"):
        _check_data_unchanged(Measured(cell, {"data": {split: "of before"}}), run)
    assert not work_folder(cell, run).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"code": "another"},
        {"commit": "another"},
        {"machine": replace(MACHINE, flags=("avx2", "avx512_vnni"))},
        "weights",
        "ranges",
    ],
)
def test_what_another_program_machine_or_checkpoint_measured_is_not_kept(cell: Cell, run: Run, change: Any) -> None:
    mine, checkpoint = replace(run, dirty=False), folder_of(cell.checkpoint, run.cache)
    checkpoint.mkdir(parents=True)
    (checkpoint / "origin.json").write_text('{"weights_sha256": "w"}')
    _drop_stale_results(cell, mine)
    (work_folder(cell, mine) / "round-1.json").write_text("{}")
    _drop_stale_results(cell, mine)
    assert (work_folder(cell, mine) / "round-1.json").exists()
    if change == "weights":
        (checkpoint / "origin.json").write_text('{"weights_sha256": "others"}')
    elif change == "ranges":
        (checkpoint / "ranges.json").write_text("other ranges")
    _drop_stale_results(cell, replace(mine, **change) if isinstance(change, dict) else mine)
    assert not (work_folder(cell, mine) / "round-1.json").exists()


@pytest.mark.parametrize(("flags", "done"), [(["avx2"], True), (None, True), (["avx2", "avx512_vnni"], False)])
def test_a_record_of_other_instructions_is_no_record_of_this_machine(
    cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch, flags: list[str] | None, done: bool
) -> None:
    """Integer products round and take otherwise with them; the name of the processor may be the same."""
    old = make_record(key=cell.key, machine={} if flags is None else {"flags": flags})
    begun: list[Cell] = []

    def begin(cell: Cell, run: Run, until: Any) -> Any:
        begun.append(cell)
        return old

    monkeypatch.setattr(harness.run.executor, "_begin", begin)
    monkeypatch.setattr(harness.run.executor, "record", SimpleNamespace(append=lambda path, entry: None))
    assert list(execute([cell], run, {cell.key: old}, fresh=False, until=None)) == [old]
    assert begun == ([] if done else [cell])


def test_a_program_that_changes_while_it_runs_is_told(run: Run) -> None:
    assert state_of(replace(run, dirty=False)) == (False, [])
    assert state_of(replace(run, dirty=True)) == (True, [])
    assert state_of(replace(run, dirty=False, code="of before")) == (
        True,
        ["the program was changed while this ran"],
    )


def test_a_cell_of_another_run_is_not_begun(cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that is done needs no claim; one that is not is refused before anything of it is touched."""

    def locked_cells(cells: Iterable[Cell], cache: Path) -> AbstractContextManager[None]:
        asked.append([one.key for one in cells])
        raise QuantboardError("another run")

    asked: list[list[str]] = []
    monkeypatch.setattr(harness.run.executor, "locked_cells", locked_cells)
    work_folder(cell, run).mkdir(parents=True)
    old = make_record(key=cell.key, machine={"flags": ["avx2"]})
    todo, blocked = replace(cell, key="todo"), replace(cell, key="blocked", blocked=("no GPU", "get one"))
    with pytest.raises(QuantboardError, match="another run"):
        list(execute([cell, todo, blocked], run, {cell.key: old}, fresh=False, until=None))
    with pytest.raises(QuantboardError, match="another run"):
        list(execute([cell], run, {cell.key: old}, fresh=True, until=None))
    assert asked == [["todo"], [cell.key]]
    assert work_folder(cell, run).exists()


def test_memory_is_kept_where_neither_speed_nor_memory_is_a_figure(
    cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []

    def run_module(*_: Any, keep_memory: bool = False, **__: Any) -> ProcessResult:
        kept.append(keep_memory)
        return ProcessResult(1, "it ended", ())

    monkeypatch.setattr(harness.run.executor, "run_module", run_module)
    for mode in ("build", "accuracy", "speed"):
        with pytest.raises(CellFailed, match="it ended"):
            harness.run.steps._step(cell, run, mode, mode, 1)
    assert harness.run.steps.ensure_checkpoint(sample_spec(seed=77), run)
    assert kept == [True, True, False, True]
    for setting in KEEP_MEMORY:
        monkeypatch.delenv(setting, raising=False)
    assert not {*KEEP_MEMORY} & {*child_environment(2)}
