"""A training in two processes (on the CPU, with gloo) compared with one: the same batches, the same result, no hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from backends.ranges import read_ranges
from harness.checkpoints.make import ensure
from harness.checkpoints.origin import describe_checkpoint
from harness.checkpoints.training.devices import ProcessGroup
from harness.errors import SourceUnavailable
from harness.machine.processes import ProcessResult
from harness.plan.spec import CheckpointSpec, folder_of
from harness.run.steps import why_missing
from harness.suite.train import in_key
from tests.checkpoints.specs import TEACHER, qat_spec, stage
from tests.run.small import ROOT, SIZES, sample_spec, train


def start(folder: Path, spec: CheckpointSpec) -> subprocess.Popen[str]:
    """Start `python -m harness.checkpoints.make` as a run does."""
    job = folder / "job.json"
    job.write_text(json.dumps({"spec": asdict(spec), "cache": str(folder / "cache")}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "harness.checkpoints.make", str(job)],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return sorted(
        (child for child in children if "spawn_main" in " ".join(child.cmdline())), key=lambda child: child.pid
    )


# Shifts of all logits, and of all scores of a query, leave the loss as it is: their gradients are rounding noise, which Adam scales up.
NOISE = ("qa_outputs.bias", "layer.0.output.LayerNorm.bias", "self.key.bias")


def difference(first: Path, second: Path) -> float:
    """The largest difference between two checkpoints' weights."""
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a if not name.endswith(NOISE))


def test_the_number_of_devices_is_in_no_key() -> None:
    assert in_key(train(devices=2)) == in_key(train())
    assert sample_spec(train=train(devices=2)).key == sample_spec(train=train()).key


def test_every_row_of_a_batch_is_used_once_and_has_the_same_weight() -> None:
    for rows, size in ((8, 2), (7, 2), (1, 2), (5, 3), (2, 4)):
        batch = np.arange(10, 10 + rows)
        values = torch.arange(10.0, 10 + rows)
        parts = [ProcessGroup(rank, size).split_batch(batch) for rank in range(size)]
        assert [int(row) for part, weight in parts if weight for row in part] == batch.tolist()
        means = [float(values[torch.from_numpy(part - 10)].mean()) * weight for part, weight in parts]
        assert sum(means) / size == pytest.approx(float(values.mean()))
    assert ProcessGroup().split_batch(batch)[1] == 1.0


# Batches of 7 give unequal parts. The last batch of an epoch has fewer rows than there are processes.
SETTINGS: dict[str, Any] = {"batch_size": 7, "max_steps": 6, "dropout": 0.0, "precision": "fp32", "learning_rate": 1e-3}


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    one = ensure(sample_spec(train=train(**SETTINGS)), tmp_path / "one")
    two = ensure(sample_spec(train=train(**SETTINGS, devices=2)), tmp_path / "two")
    assert one.name == two.name
    origins = [json.loads((folder / "origin.json").read_text()) for folder in (one, two)]
    assert [origin["train_devices"] for origin in origins] == [1, 2]
    assert describe_checkpoint(two).train_devices == 2
    assert [origin["train_steps"] for origin in origins] == [6, 6]
    for (step, loss), (second_step, second_loss) in zip(*(origin["loss_curve"] for origin in origins), strict=True):
        assert step == second_step
        assert loss == pytest.approx(second_loss, rel=1e-5)
    untrained = ensure(
        sample_spec(train=train(**{**SETTINGS, "max_steps": 1, "learning_rate": 1e-9})), tmp_path / "one"
    )
    assert difference(one, untrained) > 3e-3
    assert difference(one, two) < 1e-6


@pytest.mark.slow
def test_two_processes_distill_a_student(tmp_path: Path) -> None:
    """The intermediate losses are means over padded batches, so both processes must pad to the same width."""
    results = []
    for name, more in (("one", {}), ("two", {"devices": 2})):
        spec = stage("intermediate", None, architecture={**SIZES, "hidden_size": 8}, train=train(**SETTINGS, **more))
        if name == "two":
            teacher = folder_of(TEACHER, tmp_path / name)
            teacher.parent.mkdir(parents=True)
            teacher.symlink_to(folder_of(TEACHER, tmp_path / "one"))
        folder = ensure(spec, tmp_path / name)
        results.append((folder, json.loads((folder / "origin.json").read_text())["loss_curve"]))
    assert difference(results[0][0], results[1][0]) < 1e-6
    for (_, first_loss), (_, second_loss) in zip(results[0][1], results[1][1], strict=True):
        assert first_loss == pytest.approx(second_loss, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["q8bert", "engine_int8"])
def test_two_processes_train_quantizers(tmp_path: Path, scheme: str) -> None:
    """Observed extremes are those of the whole batch, and learned ranges do not depend on the number of processes."""
    parent, folders = sample_spec(), []
    settings = {**SETTINGS, "max_steps": 4, "learning_rate": 1e-4, "warmup_ratio": 0.0}
    for name, more in (("one", {}), ("two", {"devices": 2})):
        if name == "two":
            copied = folder_of(parent, tmp_path / name)
            copied.parent.mkdir(parents=True)
            copied.symlink_to(folder_of(parent, tmp_path / "one"))
        folder = ensure(replace(qat_spec(parent, scheme), train=train(**settings, **more)), tmp_path / name)
        assert json.loads((folder / "origin.json").read_text())["train_devices"] == more.get("devices", 1)
        folders.append(folder)
    assert difference(*folders) < 1e-6
    one, two = (read_ranges(folder).tensors for folder in folders)
    assert one.keys() == two.keys()
    calibrated = read_ranges(
        ensure(replace(qat_spec(parent, scheme), recipe="ptq", train=None), tmp_path / "one")
    ).tensors
    for tensor in one:
        assert np.allclose(two[tensor].scale, one[tensor].scale, rtol=5e-7, atol=0), tensor
    assert max(float(np.abs(one[tensor].scale / calibrated[tensor].scale - 1).max()) for tensor in one) > 1e-4


def wait_for_state(process: subprocess.Popen[str], state: Path) -> None:
    deadline = time.monotonic() + 120
    while not list(state.glob("step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


LONG = {**SETTINGS, "max_steps": 4000, "checkpoint_every": 5, "devices": 2}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_makes_the_checkpoint_fail(rank: int, tmp_path: Path) -> None:
    spec = sample_spec(train=train(**LONG))
    process = start(tmp_path, spec)
    wait_for_state(process, tmp_path / "cache" / "checkpoints" / f".state-{spec.key}")
    both = workers(process)
    both[rank].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert process.returncode == 3, err
    answer = json.loads(out.splitlines()[-1])
    assert answer["kind"] == "failed"
    assert answer["error"] == (
        f"tiny: training on device {rank + 1} of 2: its process was killed by SIGKILL: most often the kernel, out of memory"
    )
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in both)
    assert not folder_of(spec, tmp_path / "cache").exists()
    lines = (*err.splitlines(), *out.splitlines())  # as in the log of its process
    outcome = why_missing(spec, ProcessResult(3, "its process ended with exit code 3", lines))
    assert (outcome.status, outcome.reason) == ("failed", answer["error"])
    # The first process prints where its parent prints; the others print into log files.
    assert outcome.log == tuple(answer["log"] or lines[:-1])
    assert any(line.strip() for line in outcome.log)
    words = json.dumps(answer | {"log": ["its last words"]})
    assert why_missing(spec, ProcessResult(3, "", ("another", words))).log == ("its last words",)


@pytest.mark.slow
def test_ctrl_c_leaves_one_state_that_both_processes_resume_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout: each process resumes its own random numbers, so the result is that of an uninterrupted training."""
    spec = sample_spec(train=train(**{**LONG, "max_steps": 80, "checkpoint_every": 10, "dropout": 0.1}))
    state = tmp_path / "cache" / "checkpoints" / f".state-{spec.key}"
    process = start(tmp_path, spec)
    wait_for_state(process, state)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    (saved,) = state.iterdir()
    assert 10 <= int(saved.name.removeprefix("step-")) < 80
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as `start` has it
    resumed, whole = ensure(spec, tmp_path / "cache"), ensure(spec, tmp_path / "whole")
    assert difference(resumed, whole) < 1e-6


@pytest.mark.slow
def test_a_users_fault_is_reported_once(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        ensure(sample_spec(source=str(tmp_path / "nothing"), architecture=None, train=train(devices=2)), tmp_path)
    assert caught.value.reason == f"{tmp_path / 'nothing'}: there is no such folder"
