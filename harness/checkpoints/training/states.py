"""States that an interrupted training resumes from: weights, AdamW's moments, random number generators, progress.

A state is a folder of safetensors and JSON; nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from backends import artefacts
from harness.checkpoints.training.devices import ProcessGroup
from harness.plan.spec import CheckpointSpec, folder_of


def state_folder(spec: CheckpointSpec, cache: Path) -> Path:
    """Where the training of a checkpoint keeps its states."""
    return folder_of(spec, cache).with_name(f".state-{spec.key}")


@dataclass
class Progress:
    """How far a training has come."""

    step: int = 0
    seconds: float = 0.0
    """Spent in it so far, without interruptions."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean loss since the point before)."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last point of the curve."""

    @property
    def mean_loss(self) -> float:
        """Mean of the losses since the last point."""
        return sum(self.losses) / len(self.losses)

    def add_point(self) -> None:
        self.curve.append((self.step, self.mean_loss))
        self.losses.clear()


@dataclass(frozen=True)
class Training:
    """The parts of a training that change with its steps. The order of batches is not among them: seed and step give it."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    processes: ProcessGroup = field(default_factory=ProcessGroup)
    made_by: dict[str, Any] = field(default_factory=dict)
    """What computes the training (program, PyTorch, device, precision ...). A state that was made by anything else is not
    resumed, so that what origin.json says holds for every step."""

    def save(self, folder: Path, progress: Progress, keep: int) -> None:
        """Write a state below `folder`, completely or not at all, and delete all but the `keep` newest ones. Of several
        processes the first writes.

        Raises OSError, SafetensorError.
        """
        generators = {"rng.cpu": self.processes.gather(torch.get_rng_state())}
        if torch.cuda.is_available():
            generators["rng.cuda"] = self.processes.gather(torch.cuda.get_rng_state())
        if self.processes.rank:
            return
        part = folder / f".part-{os.getpid()}"
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            save_file(_storable(self.model.state_dict()), part / "model.safetensors")
            moments = {
                f"{index}.{name}": value
                for index, parameter_state in self.optimizer.state_dict()["state"].items()
                for name, value in parameter_state.items()
            }
            save_file(_storable(moments | generators), part / "optimizer.safetensors")
            content = vars(progress) | {"scaler": self.scaler.state_dict(), "made_by": self.made_by}
            (part / "state.json").write_text(json.dumps(content, allow_nan=False))
            artefacts.seal_folder(part)
            target = folder / f"step-{progress.step:09d}"
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        states = sorted(folder.glob("step-*"))
        # States of later steps belong to a training that this one did not resume.
        own = [state for state in states if state <= target]
        for old in {*states} - {*own[-keep:]}:
            shutil.rmtree(old, ignore_errors=True)

    def resume(self, folder: Path, log: Callable[[str], None]) -> Progress:
        """Load the newest state that can be read and has the same `made_by`. Returns its progress, or that of a fresh start."""
        for state in sorted(folder.glob("step-*"), reverse=True):
            try:
                if fault := artefacts.folder_fault(state):
                    raise ValueError(fault)
                content = json.loads((state / "state.json").read_text())
                made_by = content.get("made_by", {})
                changed = [name for name in {**made_by, **self.made_by} if made_by.get(name) != self.made_by.get(name)]
                if self.processes.any(bool(changed)):
                    log(f"{state.name}: made with another {', '.join(changed) or 'process'}; this state is not used")
                    continue
                weights = load_file(state / "model.safetensors")
                stored = load_file(state / "optimizer.safetensors")
                curve = [(step, loss) for step, loss in content["curve"]]
                progress = Progress(content["step"], content["seconds"], curve, content["losses"])
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                log(f"{state.name}: cannot be read ({error}); this state is not used")
                continue
            self.model.load_state_dict(weights)
            moments: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in stored.items():
                index, _, moment = name.partition(".")
                if index != "rng":
                    moments.setdefault(int(index), {})[moment] = value
            self.optimizer.load_state_dict(
                {"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]}
            )
            self.scaler.load_state_dict(content["scaler"])
            # PyTorch reads a generator's state at multiples of 8 bytes; in a file it may start anywhere, in a copy it does not.
            torch.set_rng_state(self.processes.own_state(stored["rng.cpu"]).clone())
            if "rng.cuda" in stored and torch.cuda.is_available():
                torch.cuda.set_rng_state(self.processes.own_state(stored["rng.cuda"]).clone())
            return progress
        return Progress()


def _storable(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors on the CPU, each in memory of its own. Tied weights share theirs, which safetensors refuses."""
    copies: dict[str, torch.Tensor] = {}
    addresses: set[int] = set()
    for name, value in tensors.items():
        tensor = value.detach().cpu().contiguous()
        copies[name] = tensor.clone() if tensor.data_ptr() in addresses else tensor
        addresses.add(tensor.data_ptr())
    return copies
