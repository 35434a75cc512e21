"""The last step of a search: training with quantizers for a few minutes, where no way to quantize afterwards keeps enough.

It is the recipe `qat` on the task's training rows, from the model that the candidates were made of. Those rows hold the slice that
candidates are scored on, so that a trained candidate's share on it is that of rows that it has seen; the evaluation split is not read.
A first training of PROBE steps tells how many fit; the steps, not the minutes, are then in the suite that is written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backends.schemes import get_scheme
from harness.checkpoints.origin import read_origin
from harness.errors import QuantboardError
from harness.plan.fit import why_not_trained
from harness.plan.sources import local_folder
from harness.plan.spec import Cell, CheckpointSpec, folder_of
from harness.run.search_trial import Trial
from harness.suite.train import TrainSettings

SETTINGS: dict[str, Any] = {"learning_rate": 2e-5, "epochs": 3.0, "batch_size": 16, "warmup_ratio": 0.1}
"""As of the suites' own QAT models."""
PROBE = 8
FEWEST = 20
"""Steps of a training that is worth its row."""


def why_untrained(cell: Cell, kind: str | None, *, on_sample: bool) -> str:
    """Why the cell's model cannot be trained with quantizers; empty where it can. kind: of the cell's task."""
    if kind == "similarity":
        return f"{cell.task} compares vectors of a model as it is; there is no label that a head could learn"
    if on_sample:
        return "sample data: its stand-ins have trainings of their own; give --data DIR"
    source = cell.checkpoint.root.source
    if source.startswith("onnx:"):
        return "an ONNX file cannot be trained; name the model that it was made from"
    folder = local_folder(source)
    why = why_not_trained(folder) if folder else None
    return "; ".join(why) if why else ""


def trainable(scheme: str) -> bool:
    """Whether a model can be trained with the quantizers of a scheme."""
    found = get_scheme(scheme)
    return not (found.smoothing or found.bias_correction)


def train(trial: Trial, scheme: str, minutes: float) -> tuple[Cell, dict[str, Any]]:
    """The cell with a model that was trained for about so many minutes, and the settings of its training as a suite has them. Raises
    QuantboardError where they are too few, and where the training fails."""
    start = time.monotonic()
    probe = trained(trial.cell, scheme, _settings(PROBE))
    trial.make(probe.checkpoint)
    spent = time.monotonic() - start
    origin = read_origin(folder_of(probe.checkpoint, trial.run.cache))
    steps = steps_within(60 * minutes, spent, origin)
    settings = _settings(steps)
    trial.run.say(
        f"trains for {steps:,} steps of {origin['train_seconds'] / PROBE:.2f} s, which fit {minutes:g} minutes"
    )
    cell = trained(trial.cell, scheme, settings)
    trial.make(cell.checkpoint)
    return trial.own(cell), settings


def steps_within(seconds: float, spent: float, origin: Mapping[str, Any]) -> int:
    """How many steps fit what is left of `seconds`, three epochs at most. spent: on the probe, whose origin.json is given. Raises
    QuantboardError where hardly any do."""
    one = origin["train_seconds"] / PROBE
    start = max(spent - origin["train_seconds"], origin["calibration_seconds"])
    fit = int((seconds - spent - start) / one)
    if fit < FEWEST:
        least = math.ceil((spent + start + FEWEST * one) / 60)
        raise QuantboardError(
            f"{seconds / 60:g} minutes are too few: calibration and a trial took {spent:.0f} s, a step takes {one:.2f} s; give"
            f" --qat-minutes {least} or more"
        )
    epoch: int = math.ceil(origin["train_windows"] / SETTINGS["batch_size"])
    most: int = math.ceil(SETTINGS["epochs"] * epoch)
    return min(fit, most)


def trained(cell: Cell, scheme: str, settings: Mapping[str, Any]) -> Cell:
    """A post-training cell with the model trained instead, whose checkpoint is that of a suite's model with these settings."""
    spec: CheckpointSpec = cell.checkpoint
    return replace(
        cell,
        scheme=scheme,
        checkpoint=replace(
            spec,
            recipe="qat",
            source=f"model:{cell.model}",
            train=TrainSettings.model_validate(dict(settings)).model_dump(),
            scheme=scheme,
        ),
    )


def _settings(steps: int) -> dict[str, Any]:
    return SETTINGS | {"max_steps": steps}
