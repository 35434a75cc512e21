"""States on disk that a training continues from: weights, AdamW's moments, random numbers, how far it got. No pickle."""

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

from harness.checkpoints.training.devices import ProcessGroup
from harness.plan.spec import CheckpointSpec, folder_of


def state_folder(spec: CheckpointSpec, cache: Path) -> Path:
    """Where a training keeps the states that it resumes from."""
    return folder_of(spec, cache).with_name(f".state-{spec.key}")


@dataclass
class Progress:
    """How far a training got. seconds: spent in it so far. curve: (step, mean loss since the point before). losses: of the
    steps since the last point."""

    step: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Of the losses since the last point."""
        return sum(self.losses) / len(self.losses)

    def add_point(self) -> None:
        self.curve.append((self.step, self.mean))
        self.losses.clear()


@dataclass(frozen=True)
class Training:
    """What of a training changes with its steps. The order of batches does not: it follows from seed and step.

    made_by: what computes it (program, PyTorch, device, precision); a state of another is left alone, so that what a
    checkpoint says of its making holds for all of its steps."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    processes: ProcessGroup = field(default_factory=ProcessGroup)
    made_by: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, progress: Progress, keep: int) -> None:
        """One folder a state, whole or not at all; afterwards the `keep` newest are there. Of several processes the first
        writes it. Raises OSError, SafetensorError."""
        random = {"rng.cpu": self.processes.gather(torch.get_rng_state())}
        if torch.cuda.is_available():
            random["rng.cuda"] = self.processes.gather(torch.cuda.get_rng_state())
        if self.processes.rank:
            return
        part = folder / f".part-{os.getpid()}"
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            save_file(_plain(self.model.state_dict()), part / "model.safetensors")
            moments = {
                f"{index}.{name}": value
                for index, entry in self.optimizer.state_dict()["state"].items()
                for name, value in entry.items()
            }
            save_file(_plain(moments | random), part / "optimizer.safetensors")
            content = vars(progress) | {"scaler": self.scaler.state_dict(), "made_by": self.made_by}
            (part / "state.json").write_text(json.dumps(content, allow_nan=False))
            target = folder / f"step-{progress.step:09d}"
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        states = sorted(folder.glob("step-*"))
        # Later ones are of a training that this does not go on with.
        mine = [state for state in states if state <= target]
        for old in {*states} - {*mine[-keep:]}:
            shutil.rmtree(old, ignore_errors=True)

    def resume(self, folder: Path, say: Callable[[str], None]) -> Progress:
        """Load the newest state that can be read and was made as this goes on; a fresh start without one."""
        for state in sorted(folder.glob("step-*"), reverse=True):
            try:
                content = json.loads((state / "state.json").read_text())
                before = content.get("made_by", {})
                others = [name for name in {**before, **self.made_by} if before.get(name) != self.made_by.get(name)]
                if self.processes.any(bool(others)):
                    what = ", ".join(others) or "process"
                    say(f"{state.name}: made with another {what}; goes on from the state before it, or anew")
                    continue
                weights = load_file(state / "model.safetensors")
                stored = load_file(state / "optimizer.safetensors")
                curve = [(at, loss) for at, loss in content["curve"]]
                progress = Progress(content["step"], content["seconds"], curve, content["losses"])
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                say(f"{state.name}: cannot be read ({error}); goes on from the state before it, or from the start")
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
            # Copies: a file's bytes may lie at any address, PyTorch reads a generator's state at multiples of 8 alone.
            torch.set_rng_state(self.processes.own(stored["rng.cpu"]).clone())
            if "rng.cuda" in stored and torch.cuda.is_available():
                torch.cuda.set_rng_state(self.processes.own(stored["rng.cuda"]).clone())
            return progress
        return Progress()


def _plain(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    """On the processor, each with memory of its own, which tied weights have not: safetensors refuses those."""
    found: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, value in tensors.items():
        one = value.detach().cpu().contiguous()
        found[name] = one.clone() if one.data_ptr() in places else one
        places.add(one.data_ptr())
    return found
