"""Interrupted trainings compared with uninterrupted ones."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from backends import artefacts
from harness.checkpoints.training.cpu import register_attention, replace_dropout
from harness.checkpoints.training.states import Progress, Training
from tests.checkpoints.trainings import Stop, loss_that_stops, make_model, raise_stop, run_training, same_weights


@pytest.mark.parametrize("cause", ["crash", "interrupt"])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path, cause: str) -> None:
    """With dropout and weight decay, stopped in the second epoch: weights and loss curve are those of an uninterrupted one."""

    def new_model() -> Any:
        model = make_model(dropout=0.1, attention=register_attention())
        replace_dropout(model)
        return model

    common: dict[str, Any] = {"checkpoint_every": 5, "weight_decay": 0.1, "warmup_ratio": 0.1, "epochs": 3}
    whole, trained, _ = run_training(tmp_path / "whole", new_model(), **common)
    action = raise_stop if cause == "crash" else lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Stop if cause == "crash" else KeyboardInterrupt):
        run_training(tmp_path / "cut", new_model(), loss=loss_that_stops(9, action), **common)
    step = 5 if cause == "crash" else 9
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [f"step-{step:09d}"]
    resumed, again, lines = run_training(tmp_path / "cut", new_model(), **common)
    assert lines[0] == f"resumes at step {step} of 18"
    assert same_weights(whole, resumed)
    assert trained.curve == again.curve
    assert [step for step, _ in trained.curve] == list(range(1, 19))


@pytest.mark.parametrize("what", ["program", "torch", "device", "precision", "training of parent"])
def test_a_state_of_another_program_device_or_parent_is_not_resumed(tmp_path: Path, what: str) -> None:
    """The training starts again. When it is interrupted it resumes from its own states, though their steps are earlier."""
    common: dict[str, Any] = {"checkpoint_every": 5, "epochs": 3, "made_from": {"training of parent": "its weights"}}
    whole, _, _ = run_training(tmp_path / "whole", **common)
    with pytest.raises(Stop):
        run_training(tmp_path / "cut", loss=loss_that_stops(13, raise_stop), **common)
    [state] = tmp_path.glob("cut/step-*/state.json")
    content = json.loads(state.read_text())
    assert (content["step"], bool(content["made_by"][what])) == (10, True)
    state.write_text(json.dumps(content | {"made_by": content["made_by"] | {what: "other"}}))
    artefacts.seal_folder(state.parent)
    with pytest.raises(Stop):
        run_training(tmp_path / "cut", loss=loss_that_stops(9, raise_stop), **common)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["step-000000005"]
    state.parent.mkdir()
    state.write_text(json.dumps(content | {"made_by": {}}))
    artefacts.seal_folder(state.parent)
    again, _, lines = run_training(tmp_path / "cut", **common)
    assert lines[0].startswith("step-000000010: made with another program, python, torch, ")
    assert lines[1] == "resumes at step 5 of 18"
    assert same_weights(whole, again)


def test_the_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path, loss=loss_that_stops(3, twice))
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_state_with_an_odd_number_of_floats_is_read(tmp_path: Path) -> None:
    """The random generator's state then starts at no multiple of 8 bytes, where PyTorch cannot read it in place."""
    model = torch.nn.Linear(1, 1, bias=False)
    training = Training(model, torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False))
    model(torch.ones(1)).backward()
    training.optimizer.step()
    training.save(tmp_path, Progress(step=1), keep=1)
    expected = torch.rand(5)
    torch.rand(3)
    assert training.resume(tmp_path, print).step == 1
    assert torch.equal(torch.rand(5), expected)


def test_the_newest_states_are_kept_and_no_others(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run_training(tmp_path, loss=loss_that_stops(12, raise_stop), checkpoint_every=2, keep_checkpoints=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:09d}" for step in (6, 8, 10)]
    assert not [path for path in tmp_path.rglob("*") if path.suffix not in ("", ".json", ".safetensors")]


@pytest.mark.parametrize("file", ["state.json", "model.safetensors", "optimizer.safetensors"])
def test_a_broken_state_is_not_used(tmp_path: Path, file: str) -> None:
    whole, _, _ = run_training(tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(Stop):
        run_training(cut, loss=loss_that_stops(8, raise_stop), checkpoint_every=3, keep_checkpoints=2)
    broken = cut / "step-000000006" / file
    broken.write_bytes(broken.read_bytes()[:100])
    resumed, _, lines = run_training(cut)
    assert lines[0].startswith("step-000000006: cannot be read")
    assert lines[1] == "resumes at step 3 of 12"
    assert same_weights(whole, resumed)


def test_a_state_that_cannot_be_saved_does_not_stop_the_training(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    trained, _, lines = run_training(tmp_path / "state", checkpoint_every=5)
    assert [line.split(" (")[0] for line in lines] == [
        "the state at step 5 could not be saved",
        "the state at step 10 could not be saved",
    ]
    assert same_weights(trained, run_training(tmp_path / "other")[0])
