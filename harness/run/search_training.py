"""The last step of a search: training with quantizers for a few minutes, where no way to quantize afterwards keeps enough.

It is the recipe `qat` on the task's training rows but for the slice that candidates are scored on (`hold_out`), from the model that
the candidates were made of. A first training of PROBE steps tells how many fit. The training ends at the last of them, or at the end of
the step in which the minutes are over; both limits are in the suite that is written.
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
from tasks import open_task

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


def rows_to_choose(cell: Cell, rows: int) -> int:
    """Of so many rows those that a search with a training chooses by: half of what calibration leaves at most, so that it can learn
    from the others."""
    split = open_task(cell.task, cell.data).identity.splits.get("train")
    left = (split.rows if split else 0) - (cell.checkpoint.calibration or {}).get("samples", 128)
    return max(2, min(rows, left // 2))


def trainable(scheme: str) -> bool:
    """Whether a model can be trained with the quantizers of a scheme."""
    found = get_scheme(scheme)
    return not (found.smoothing or found.bias_correction)


def train(trial: Trial, scheme: str, minutes: float) -> tuple[Cell, dict[str, Any], int]:
    """The cell with a model that was trained for so many minutes at most, and the settings of its training as a suite has them, and the steps that
    ran. Raises QuantboardError where they are too few, and where the training fails."""
    start = time.monotonic()
    probe = trained(trial.cell, scheme, SETTINGS | {"max_steps": PROBE, "hold_out": trial.rows})
    trial.make(probe.checkpoint)
    spent = time.monotonic() - start
    origin = read_origin(folder_of(probe.checkpoint, trial.run.cache))
    steps, seconds = steps_within(60 * minutes, spent, origin)
    settings = SETTINGS | {"max_steps": steps, "max_minutes": max(0.01, round(seconds / 60, 2)), "hold_out": trial.rows}
    trial.run.say(
        f"trains for {steps:,} steps of {origin['train_seconds'] / PROBE:.2f} s, which fit {minutes:g} minutes"
    )
    cell = trained(trial.cell, scheme, settings)
    trial.make(cell.checkpoint)
    ran = read_origin(folder_of(cell.checkpoint, trial.run.cache))["train_steps"]
    if ran < steps:
        trial.run.say(f"the minutes were over after {ran:,} of {steps:,} steps; the model is that of step {ran:,}")
    return trial.own(cell), settings, ran


def steps_within(seconds: float, spent: float, origin: Mapping[str, Any]) -> tuple[int, float]:
    """How many steps fit what is left of `seconds`, three epochs at most, and what is left for them. spent: on the probe, whose
    origin.json is given. Raises QuantboardError where hardly any do."""
    one = origin["train_seconds"] / PROBE
    start = max(spent - origin["train_seconds"], origin["calibration_seconds"])
    left = seconds - spent - start
    fit = int(left / one)
    if fit < FEWEST:
        least = math.ceil((spent + start + FEWEST * one) / 60)
        raise QuantboardError(
            f"{seconds / 60:g} minutes are too few: calibration and a trial took {spent:.0f} s, a step takes {one:.2f} s; give"
            f" --qat-minutes {least} or more"
        )
    epoch: int = math.ceil(origin["train_windows"] / SETTINGS["batch_size"])
    most: int = math.ceil(SETTINGS["epochs"] * epoch)
    return min(fit, most), left


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
            train=TrainSettings.model_validate(dict(settings)).to_json(),
            scheme=scheme,
        ),
    )
