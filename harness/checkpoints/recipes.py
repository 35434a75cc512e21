"""The recipes on a task: each writes a checkpoint's files into a folder and returns what origin.json says of it.

Heavy libraries are imported inside the functions: not every recipe needs transformers.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends import BackendError, artefacts
from backends.architecture import Architecture, Encoder, Pooling
from harness.checkpoints import distill
from harness.checkpoints.base_model import (
    copy_model,
    copy_onnx,
    load_config,
    source_folder,
    write_config,
    write_tokenizer,
)
from harness.checkpoints.labels import label_names
from harness.checkpoints.origin import TRAINING_FIELDS
from harness.checkpoints.training.devices import prepare_training
from harness.checkpoints.training.states import state_folder
from harness.errors import CheckpointError
from harness.plan.fit import FINETUNE, Wanted, why_unfit
from harness.plan.spec import CORPUS, CheckpointSpec, folder_of
from harness.suite.train import TrainSettings
from tasks import Features, Task, TaskError, open_task, task_definition
from tasks.tokens import load_tokenizer


def run_recipe(spec: CheckpointSpec, cache: Path, output: Path) -> dict[str, Any]:
    """Run the recipe of `spec` in this process; it writes into the folder `output`.

    Returns what origin.json says of the training or calibration. Raises CheckpointError, TaskError, BackendError.
    """
    task = task_of(spec)
    if task is None:
        text_recipes = {
            "distill": distill.distill_on_text,
            "pretrained": distill.pretrained,
            "masked_lm": distill.masked_lm,
        }
        return text_recipes[spec.recipe](spec, cache, output)
    task_recipes = {
        "load": load,
        "finetune": finetune,
        "random": random,
        "ptq": ptq,
        "qat": qat,
        "distill": distill.distill_on_task,
    }
    return task_recipes[spec.recipe](spec, task, cache, output)


def task_of(spec: CheckpointSpec) -> Task | None:
    """The task that the checkpoint is made for; None for one that is made from plain text."""
    return None if spec.task == CORPUS else open_task(spec.task, spec.data)


def load(spec: CheckpointSpec, task: Task, cache: Path, output: Path) -> dict[str, Any]:
    """Recipe `load`: the weights as they are. Their head must fit the task."""
    from backends.ranges import read_ranges

    source = source_folder(spec, cache)
    if source is None:
        return random(spec, task, cache, output)
    encoder = _check_fits_task(spec, source, task)
    write_tokenizer(spec, source, load_config(spec, source), output)
    if spec.source.startswith("onnx:"):
        copy_onnx(Path(spec.source.removeprefix("onnx:")), output)
        write_config(source, output, spec.labels or ())
    else:
        copy_model(source, output, spec.labels or ())
    if encoder.pooling:
        _make_sentence_encoder(output, encoder)
    if spec.scheme:
        shutil.copyfile(source / "ranges.json", output / "ranges.json")
        try:
            read_ranges(source)
        except BackendError as error:
            raise CheckpointError(f"{spec.model}: {error}") from None
    return {}


def _make_sentence_encoder(folder: Path, encoder: Encoder) -> None:
    """Write into a model's folder that it is an encoder, and how its states become one vector."""
    from backends.checkpoint import read_config, read_family
    from backends.pooling import write_pooling

    config = read_config(folder) | {"architectures": [read_family(folder).classes["encoder"]]}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_pooling(folder, encoder.pooling or "mean", encoder.labels)


def _pooling(spec: CheckpointSpec, source: Path, task: Task) -> Pooling | None:
    """How the model's states become one vector: as the suite says, else as its folder does, else the mean. None where the task
    needs no vector. Raises BackendError."""
    from backends.pooling import read_pooling

    if task.kind != "similarity":
        return None
    declared = (spec.identity or {}).get("pooling")
    return "cls" if declared == "cls" else "mean" if declared == "mean" else read_pooling(source) or "mean"


def _check_fits_task(spec: CheckpointSpec, source: Path, task: Task) -> Encoder:
    """What a source computes. Raises CheckpointError where its weights cannot be used for the task: broken, another head,
    other classes."""
    from backends.checkpoint import Weights, read_encoder
    from backends.torch_models import try_model

    definition = task_definition(spec.task, spec.data)
    wanted = Wanted(spec.task, task.kind, definition, spec.shape)
    unfit = why_unfit(source, wanted, loads=True, labels=spec.labels or ())
    try:
        if unfit is None:
            encoder = read_encoder(source, _pooling(spec, source, task))
            if isinstance(encoder, Architecture) and not spec.source.startswith("onnx:"):
                Weights(source, encoder)  # all are there, with the sizes of config.json
            elif not spec.source.startswith("onnx:"):
                try_model(source, encoder, spec.shape.max_length)
            if definition is None and task.kind not in ("question_answering", "similarity"):
                _decode_nothing(task, encoder, spec.labels or label_names(source, task))
    except (BackendError, TaskError) as error:
        unfit = str(error), FINETUNE
    if unfit:
        raise CheckpointError(f"{spec.model}: {spec.root.source} does not fit {spec.task}: {unfit[0]}; {unfit[1]}")
    return encoder


def _decode_nothing(task: Task, encoder: Encoder, names: Sequence[str]) -> None:
    """Raises TaskError where the model's classes are not the task's: decoding checks them."""
    import numpy as np

    no_tokens = np.zeros((0, 1), np.int32)
    no_features = Features(no_tokens, no_tokens, np.zeros(0, np.int64), np.zeros(0, np.int64))
    no_logits = np.zeros((0, *([1] if task.kind == "token_classification" else []), encoder.labels), np.float32)
    task.decode([], no_features, no_logits, names)


def random(spec: CheckpointSpec, task: Task, cache: Path, output: Path) -> dict[str, Any]:
    """Recipe `random`: a model of the source's family with the task's head, the sizes of the spec, or else the source's, and
    weights as transformers initialises them, drawn with the seed."""
    from backends.checkpoint import read_architecture
    from backends.families import get_family
    from harness.checkpoints.training.finetune import random_model, set_head

    source = source_folder(spec, cache)
    config = load_config(spec, source)
    family = get_family(config.model_type)
    for name, size in (spec.architecture or {}).items():
        setattr(config, family.key(name), size)
    write_tokenizer(spec, source, config, output)
    set_head(config, task)
    random_model(config, task, spec.seed).save_pretrained(output, max_shard_size="1TB")
    read_architecture(output)  # refuses sizes and families that no engine here can run
    return {}


def finetune(spec: CheckpointSpec, task: Task, cache: Path, output: Path) -> dict[str, Any]:
    """Recipe `finetune`: pretrained weights, or random ones, trained on the task."""
    from harness.checkpoints.training.finetune import configure_for_task, finetune_model

    source = source_folder(spec, cache)
    device = prepare_training()
    settings = TrainSettings.model_validate(dict(spec.train or {}))
    config = load_config(spec, source)
    tokenizer = write_tokenizer(spec, source, config, output)
    try:
        configure_for_task(config, task, settings, output)
    except BackendError as error:
        reason = str(error).removeprefix(f"{output / 'config.json'}: ")
        raise CheckpointError(f"{spec.model}: {spec.root.source}: {reason}") from None
    model, facts = finetune_model(source, config, task, tokenizer, spec, settings, state_folder(spec, cache), device)
    model.save_pretrained(output, max_shard_size="1TB")
    return facts


def qat(spec: CheckpointSpec, task: Task, cache: Path, output: Path) -> dict[str, Any]:
    """Recipe `qat`: the parent trained with quantizers. Writes float weights, and the trained ranges as ranges.json."""
    from backends.ranges import write_ranges
    from harness.checkpoints.training.finetune import configure_for_task
    from harness.checkpoints.training.qat import train_quantized

    if spec.parent is None or spec.scheme is None:
        raise ValueError("a qat checkpoint needs a parent and a scheme")
    parent = folder_of(spec.parent, cache)
    device = prepare_training()
    settings = TrainSettings.model_validate(dict(spec.train or {}))
    config = load_config(spec, parent)
    tokenizer = write_tokenizer(spec, parent, config, output)
    configure_for_task(config, task, settings, output)
    model, facts, ranges = train_quantized(
        parent, config, task, tokenizer, spec, settings, state_folder(spec, cache), device
    )
    model.save_pretrained(output, max_shard_size="1TB")
    write_ranges(output, ranges)
    return facts


def ptq(spec: CheckpointSpec, task: Task, cache: Path, output: Path) -> dict[str, Any]:
    """Recipe `ptq`: the parent's weights, and ranges for a post-training scheme, calibrated on training examples that are
    drawn with the seed."""
    import torch

    from backends import Device
    from backends.fake_quant.calibrate import calibrate
    from backends.ranges import write_ranges
    from backends.schemes import get_scheme
    from harness.checkpoints.training.calibration import calibration_batches
    from harness.machine.hardware import cores

    if spec.parent is None or spec.scheme is None:
        raise ValueError("a ptq checkpoint needs a parent and a scheme")
    parent = folder_of(spec.parent, cache)
    for file in sorted(parent.iterdir()):
        if file.is_dir():  # of sentence-transformers' layout
            shutil.copytree(file, output / file.name)
        elif file.name not in ("origin.json", "ranges.json", artefacts.SUMS):
            artefacts.copy_file(file, output / file.name)
    torch.set_num_threads(min(cores(), torch.get_num_threads()))
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    batches = calibration_batches(spec, get_scheme(spec.scheme), task, load_tokenizer(parent))
    start = time.monotonic()
    write_ranges(output, calibrate(parent, batches, spec.scheme, spec.seed, device))
    parent_origin = json.loads((parent / "origin.json").read_text())
    return {name: parent_origin[name] for name in TRAINING_FIELDS if name in parent_origin} | {
        "calibration_seconds": time.monotonic() - start
    }
