"""Interrupted trainings against those that nothing stopped."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.checkpoints.training.cpu import register_attention, replace_dropout
from harness.checkpoints.training.states import Progress, Training
from tests.checkpoints.trainings import Stop, model, run, same, stop, stops_at


@pytest.mark.parametrize("how", ["crash", "interrupt"])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path, how: str) -> None:
    """With dropout and decay, stopped in the second epoch: weights, losses and curve are those of the run that nothing stopped."""

    def made() -> Any:
        fresh = model(dropout=0.1, attention=register_attention())
        replace_dropout(fresh)
        return fresh

    common: dict[str, Any] = {"checkpoint_every": 5, "weight_decay": 0.1, "warmup_ratio": 0.1, "epochs": 3}
    whole, trained, _ = run(tmp_path / "whole", made(), **common)
    action = stop if how == "crash" else lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Stop if how == "crash" else KeyboardInterrupt):
        run(tmp_path / "cut", made(), loss=stops_at(9, action), **common)
    at = 5 if how == "crash" else 9
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [f"step-{at:09d}"]
    resumed, again, lines = run(tmp_path / "cut", made(), **common)
    assert lines[0] == f"resumes at step {at} of 18"
    assert same(whole, resumed)
    assert trained.curve == again.curve
    assert [step for step, _ in trained.curve] == list(range(1, 19))


@pytest.mark.parametrize("what", ["program", "torch", "device", "precision", "training of parent"])
def test_what_another_program_or_device_or_from_another_parent_began_is_not_gone_on_with(
    tmp_path: Path, what: str
) -> None:
    """It begins anew, and its own states, of earlier steps, are those that it goes on from when it is cut in turn."""
    common: dict[str, Any] = {"checkpoint_every": 5, "epochs": 3, "made_from": {"training of parent": "its weights"}}
    whole, _, _ = run(tmp_path / "whole", **common)
    with pytest.raises(Stop):
        run(tmp_path / "cut", loss=stops_at(13, stop), **common)
    [state] = tmp_path.glob("cut/step-*/state.json")
    content = json.loads(state.read_text())
    assert (content["step"], bool(content["made_by"][what])) == (10, True)
    state.write_text(json.dumps(content | {"made_by": content["made_by"] | {what: "other"}}))
    with pytest.raises(Stop):
        run(tmp_path / "cut", loss=stops_at(9, stop), **common)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["step-000000005"]
    state.parent.mkdir()
    state.write_text(json.dumps(content | {"made_by": {}}))
    again, _, lines = run(tmp_path / "cut", **common)
    assert lines[0].startswith("step-000000010: made with another program, python, torch, ")
    assert lines[1] == "resumes at step 5 of 18"
    assert same(whole, again)


def test_the_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, loss=stops_at(3, twice))
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_state_with_an_odd_number_of_floats_is_read(tmp_path: Path) -> None:
    """Its random numbers' state then begins between two multiples of 8, where PyTorch must not be made to read it."""
    model = torch.nn.Linear(1, 1, bias=False)
    training = Training(model, torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False))
    model(torch.ones(1)).backward()
    training.optimizer.step()
    training.save(tmp_path, Progress(step=1), keep=1)
    wanted = torch.rand(5)
    torch.rand(3)
    assert training.resume(tmp_path, print).step == 1
    assert torch.equal(torch.rand(5), wanted)


def test_the_newest_states_are_kept_and_no_others(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path, loss=stops_at(12, stop), checkpoint_every=2, keep_checkpoints=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:09d}" for step in (6, 8, 10)]
    assert not [path for path in tmp_path.rglob("*") if path.suffix not in ("", ".json", ".safetensors")]


@pytest.mark.parametrize("file", ["state.json", "model.safetensors", "optimizer.safetensors"])
def test_a_broken_state_is_passed_over(tmp_path: Path, file: str) -> None:
    whole, _, _ = run(tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(Stop):
        run(cut, loss=stops_at(8, stop), checkpoint_every=3, keep_checkpoints=2)
    broken = cut / "step-000000006" / file
    broken.write_bytes(broken.read_bytes()[:100])
    resumed, _, lines = run(cut)
    assert lines[0].startswith("step-000000006: cannot be read")
    assert lines[1] == "resumes at step 3 of 12"
    assert same(whole, resumed)


def test_a_disk_that_cannot_be_written_costs_the_state_only(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    trained, _, lines = run(tmp_path / "state", checkpoint_every=5)
    assert [line.split(" (")[0] for line in lines] == [
        "the state at step 5 could not be saved",
        "the state at step 10 could not be saved",
    ]
    assert same(trained, run(tmp_path / "other")[0])
