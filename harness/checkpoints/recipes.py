"""The recipes: each writes a checkpoint's files into a folder and says how it went.

Heavy modules are imported inside: planning reads names from here.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from harness.checkpoints.base_model import config_of, copy_model, source_of, write_tokenizer
from harness.checkpoints.labels import label_names
from harness.checkpoints.origin import OF_TRAINING, root
from harness.checkpoints.training.devices import begin_training
from harness.checkpoints.training.states import state_of
from harness.errors import CheckpointError
from harness.plan.spec import CORPUS, CheckpointSpec, folder_of
from harness.suite.train import TrainSettings
from tasks import Features, Task, open_task
from tasks.tokens import load_tokenizer


def _task(spec: CheckpointSpec) -> Task | None:
    return None if spec.task == CORPUS else open_task(spec.task, spec.data)


def follow_here(spec: CheckpointSpec, cache: Path, part: Path) -> dict[str, Any]:
    """The recipe in this process."""
    task = _task(spec)
    if task is None:
        from harness.checkpoints import distill

        on_text = {"distill": distill.general, "pretrained": distill.pretrained, "masked_lm": distill.masked_lm}
        return on_text[spec.recipe](spec, cache, part)
    if spec.recipe == "distill":
        from harness.checkpoints import distill

        return distill.distill(spec, task, cache, part)
    make = {"load": load, "finetune": finetune, "ptq": calibrate, "qat": qat}
    return make[spec.recipe](spec, task, cache, part)


def load(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `load`: the weights as they are. Their head must fit the task."""
    import numpy as np

    from backends import BackendError
    from backends.bert import Weights, read_architecture
    from backends.ranges import read_ranges
    from tasks import TaskError

    source = source_of(spec, cache)
    if source is None:
        config = config_of(spec, None)
        write_tokenizer(spec, None, config, part)
        from harness.checkpoints.training.finetune import fit_head, untrained

        fit_head(config, task)
        untrained(config, task, spec.seed).save_pretrained(part)
        return {}
    try:
        architecture = read_architecture(source)
        weights = Weights(source, architecture)
        for name in weights:
            weights[name]  # reads it: an engine would answer NaN, and be scored for it
        if architecture.head != ("question_answering" if task.kind == "question_answering" else "classification"):
            raise BackendError(f"it has a head for {architecture.head.replace('_', ' ')}")
        if task.kind != "question_answering":  # are the classes the task's, by name?
            none = np.zeros((0, 1), np.int32)
            nothing = Features(none, none, np.zeros(0, np.int64), np.zeros(0, np.int64))
            task.decode([], nothing, np.zeros((0, architecture.labels), np.float32), label_names(source, task))
        if (made_for := _made_for(source)) not in (None, spec.task):
            raise BackendError(f"its origin.json says that it was made for {made_for}")
    except (BackendError, TaskError) as error:
        why = str(error).removesuffix("; fine-tune it first")
        raise CheckpointError(
            f"{spec.model}: {root(spec).source} does not fit {spec.task}: {why}; fine-tune it (recipe = 'finetune') or load one"
            " that was"
        ) from None
    write_tokenizer(spec, source, config_of(spec, source), part)
    copy_model(source, part)
    if spec.scheme:
        shutil.copyfile(source / "ranges.json", part / "ranges.json")
        try:
            read_ranges(source)
        except BackendError as error:
            raise CheckpointError(f"{spec.model}: {error}") from None
    return {}


def _made_for(source: Path) -> str | None:
    """The task of a checkpoint of ours, which may have the classes of another; None of any other folder."""
    try:
        found = json.loads((source / "origin.json").read_text())["task"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def finetune(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `finetune`: pretrained weights, or random ones, trained on the task."""
    from backends import BackendError
    from harness.checkpoints.training.finetune import finetune, fit_to_task

    source = source_of(spec, cache)
    device = begin_training()
    settings = TrainSettings.model_validate(dict(spec.train or {}))
    config = config_of(spec, source)
    tokenizer = write_tokenizer(spec, source, config, part)
    try:
        fit_to_task(config, task, settings, part)
    except BackendError as error:
        why = str(error).removeprefix(f"{part / 'config.json'}: ")
        raise CheckpointError(f"{spec.model}: {root(spec).source}: {why}") from None
    model, facts = finetune(source, config, task, tokenizer, spec, settings, state_of(spec, cache), device)
    model.save_pretrained(part, max_shard_size="1TB")
    return facts


def qat(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `qat`: the parent trained with quantizers; their ranges stand beside the folded weights."""
    from backends.ranges import write_ranges
    from harness.checkpoints.training.finetune import fit_to_task
    from harness.checkpoints.training.qat import qat

    if spec.parent is None or spec.scheme is None:
        raise ValueError("a qat checkpoint has a parent and a scheme")
    parent = folder_of(spec.parent, cache)
    device = begin_training()
    settings = TrainSettings.model_validate(dict(spec.train or {}))
    config = config_of(spec, parent)
    tokenizer = write_tokenizer(spec, parent, config, part)
    fit_to_task(config, task, settings, part)
    model, facts, ranges = qat(parent, config, task, tokenizer, spec, settings, state_of(spec, cache), device)
    model.save_pretrained(part, max_shard_size="1TB")
    write_ranges(part, ranges)
    return facts


def calibrate(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `ptq`: ranges for a post-training scheme, from training examples drawn with the seed; weights are the parent's."""
    import torch

    from backends import Device
    from backends.fake_quant.calibrate import calibrate as find_ranges
    from backends.fake_quant.schemes import get_scheme
    from backends.ranges import write_ranges
    from harness.checkpoints.training.calibration import calibration_batches
    from harness.machine.hardware import cores

    if spec.parent is None or spec.scheme is None:
        raise ValueError("a ptq checkpoint has a parent and a scheme")
    parent = folder_of(spec.parent, cache)
    for file in sorted(parent.iterdir()):
        if file.name not in ("origin.json", "ranges.json"):
            _link(file, part / file.name)
    torch.set_num_threads(min(cores(), torch.get_num_threads()))
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    batches = calibration_batches(spec, get_scheme(spec.scheme), task, load_tokenizer(parent))
    start = time.monotonic()
    write_ranges(part, find_ranges(parent, batches, spec.scheme, spec.seed, device))
    inherited = json.loads((parent / "origin.json").read_text())
    return {name: inherited[name] for name in OF_TRAINING if name in inherited} | {
        "calibration_seconds": time.monotonic() - start
    }


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
