"""A record names what was used: content that changes between plan and use ends in an error, not in a figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import harness.run.steps
from backends import BACKENDS
from harness.checkpoints.make import check_inputs_unchanged, ensure
from harness.errors import CheckpointError
from harness.machine.processes import KEEP_MEMORY, ProcessResult, child_environment
from harness.plan.sources import corpus_identity, look_up
from harness.plan.spec import Cell, folder_of
from harness.run.assemble import code_state
from harness.run.context import CellFailed, CellResults, Run, work_folder
from harness.run.job import Job
from harness.run.steps import check_data_unchanged, drop_stale_results, ensure_checkpoint, run_step
from harness.run.work import read_kept
from tasks import DataRef, data_identity
from tests.machine.machines import MACHINE
from tests.run.small import sample_spec, train

MORE_MEMORY = (
    "it asked for more memory than measure.memory_gib = 2 grants; raise it in the suite, or lower shape.batch_sizes"
)
IDENTITY = data_identity("squad_v1", DataRef("sample"))


def test_a_checkpoint_of_other_content_is_not_made(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for name in ("model.safetensors", "config.json", "vocab.txt", "tokenizer_config.json"):
        (source / name).write_text(name)
    hashes = {
        **look_up(str(source), Path(), hub=False).identity,
        **corpus_identity(DataRef("sample"))[0],
        "train": IDENTITY.splits["train"].sha256,
    }
    assert set(hashes) == {"weights", "config", "vocab.txt", "tokenizer_config.json", "corpus", "train"}
    spec = sample_spec(source=str(source), identity=hashes)
    check_inputs_unchanged(spec)
    for name in hashes:
        with pytest.raises(CheckpointError, match=rf"tiny on squad_v1: {name}: the content has changed since the plan"):
            check_inputs_unchanged(replace(spec, identity=hashes | {name: "older"}))
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: the content has changed"):
        check_inputs_unchanged(spec)
    with pytest.raises(CheckpointError, match="train: the content has changed"):
        ensure(sample_spec(train=train(max_steps=1), identity={"train": "older"}), tmp_path / "cache")


def test_changed_examples_fail_the_cell(cell: Cell, run: Run) -> None:
    split = "validation"
    check_data_unchanged(CellResults(cell, {"data": {split: IDENTITY.splits[split].sha256}}), run)
    work_folder(cell, run).mkdir(parents=True)
    with pytest.raises(CellFailed, match="split validation has changed"):
        check_data_unchanged(CellResults(cell, {"data": {split: "older"}}), run)
    assert not work_folder(cell, run).exists()


@pytest.mark.slow
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
def test_results_of_other_code_another_machine_or_checkpoint_are_deleted(cell: Cell, run: Run, change: Any) -> None:
    clean, checkpoint = replace(run, dirty=False), folder_of(cell.checkpoint, run.cache)
    checkpoint.mkdir(parents=True)
    (checkpoint / "origin.json").write_text('{"weights_sha256": "w"}')
    drop_stale_results(cell, clean)
    (work_folder(cell, clean) / "round-1.json").write_text("{}")
    drop_stale_results(cell, clean)
    assert (work_folder(cell, clean) / "round-1.json").exists()
    if change == "weights":
        (checkpoint / "origin.json").write_text('{"weights_sha256": "others"}')
    elif change == "ranges":
        (checkpoint / "ranges.json").write_text("other ranges")
    drop_stale_results(cell, replace(clean, **change) if isinstance(change, dict) else clean)
    assert not (work_folder(cell, clean) / "round-1.json").exists()


def test_source_files_that_change_during_a_run_are_noted(run: Run) -> None:
    assert code_state(replace(run, dirty=False)) == (False, [])
    assert code_state(replace(run, dirty=True)) == (True, [])
    assert code_state(replace(run, dirty=False, code="older")) == (True, ["the source files changed during this run"])


def test_processes_keep_memory_where_neither_speed_nor_memory_is_measured(
    cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeps: list[bool] = []

    def run_module(*_: Any, keep_memory: bool = False, **__: Any) -> ProcessResult:
        keeps.append(keep_memory)
        return ProcessResult(1, "it ended", ())

    monkeypatch.setattr(harness.run.steps, "run_module", run_module)
    monkeypatch.setitem(BACKENDS.ours, "slowed", "tests.bench.slowed:SLOWED")
    for mode in ("build", "accuracy", "speed"):
        with pytest.raises(CellFailed, match="it ended"):
            run_step(cell, run, mode, mode, 1)
    assert ensure_checkpoint(sample_spec(seed=77), run)
    assert keeps == [True, True, False, True]
    for setting in KEEP_MEMORY:
        monkeypatch.delenv(setting, raising=False)
    assert not {*KEEP_MEMORY} & {*child_environment(2)}


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (ProcessResult(0, "", ("goodbye",)), "its process ended with exit code 0 before it had results"),
        (
            ProcessResult(-9, "took longer than 5 s and was stopped", (), timed_out=True),
            "took longer than 5 s and was stopped; raise measure.speed_timeout in the suite if it only needs longer",
        ),
        (
            ProcessResult(-11, "its process was killed by SIGSEGV", ("loading",)),
            "its process was killed by SIGSEGV, under measure.memory_gib = 2",
        ),
        (
            ProcessResult(
                3, "", ("x.onnx: OpenVINO cannot load it (Failed to allocate 9 bytes of memory); delete it",)
            ),
            f"x.onnx: OpenVINO cannot load it (Failed to allocate 9 bytes of memory): {MORE_MEMORY}",
        ),
        *(
            (
                ProcessResult(1, "its process ended with exit code 1", (last,)),
                f"its process ended with exit code 1: {MORE_MEMORY}",
            )
            for last in (  # as each said it when it was refused 16 GiB
                "MemoryError",
                "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 16.0 GiB for an array with shape (9,)",
                "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you",
                "BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested",
                "RuntimeError: can't start new thread",
            )
        ),
    ],
)
def test_messages_say_how_a_process_ended(
    cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch, ended: ProcessResult, words: str
) -> None:
    given: dict[str, Any] = {}

    def run_module(*_: Any, **settings: Any) -> ProcessResult:
        given.update(settings)
        return ended

    monkeypatch.setattr(harness.run.steps, "run_module", run_module)
    limited = replace(cell, measure=replace(cell.measure, speed_timeout=5.0, memory_gib=2.0))
    with pytest.raises(CellFailed) as caught:
        run_step(limited, run, "speed", "round-1", 1)
    assert str(caught.value).endswith(words)
    assert "free some space" not in str(caught.value)
    assert (given["timeout"], given["memory"]) == (5.0, 2 << 30)


def test_a_round_is_kept_with_what_was_observed_or_not_at_all(
    cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the end of the round's process and the runner's observations costs the round."""

    def run_module(module: str, job: Path, *_: Any, **__: Any) -> ProcessResult:
        Job.read(job).out.write_text('{"rounds": []}')
        return ProcessResult(0, "", ())

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(harness.run.steps, "run_module", run_module)
    with monkeypatch.context() as context:
        context.setattr("harness.measure.watch.Watch.add_to", killed)
        with pytest.raises(KeyboardInterrupt):
            run_step(cell, run, "speed", "round-1", 1)
    assert read_kept(work_folder(cell, run) / "round-1.json") is None
    assert run_step(cell, run, "speed", "round-1", 1) == read_kept(work_folder(cell, run) / "round-1.json")
