"""Fine-tuning: a task's features, a model with the task's head, and the training loop."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from backends.architecture import TOKEN_CLASSIFIER
from backends.base import BackendError
from backends.checkpoint import check_finite, read_architecture
from backends.families import Family, Part, get_family
from backends.torch_models import auto_class, disable_cudnn_attention, find_module, part_of, take_all_inputs
from harness.checkpoints.labels import class_columns, label_names
from harness.checkpoints.origin import read_origin
from harness.checkpoints.training.calibration import slice_rows
from harness.checkpoints.training.cpu import register_attention, replace_dropout
from harness.checkpoints.training.devices import process_group
from harness.checkpoints.training.loop import Loss, train
from harness.errors import MOVE_CACHE, CheckpointError, disk_fault
from harness.plan.heads import HEADS
from harness.plan.spec import CheckpointSpec
from harness.suite.train import TrainSettings, own_attention, unlike_layers
from tasks import Features, Task, TaskError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "regression": "regression",
    "multi_label": "multi_label_classification",
}
"""What transformers calls each kind of task, which decides its loss: cross-entropy, squared error, binary cross-entropy."""
HEAD_MODULES = ("qa_outputs", "classifier", TOKEN_CLASSIFIER, "pooler", "pooler.dense", "pooler.LayerNorm")
"""Canonical names of the modules whose tensors may be missing in the source: training then starts with new ones."""


def finetune_model(
    source: Path | None,
    config: Any,
    task: Task,
    tokenizer: Tokenizer,
    spec: CheckpointSpec,
    settings: TrainSettings,
    states: Path,
    device: str,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Train a model on a task. Returns it (FP32, on the CPU) and what origin.json says of the training.

    source: folder of the weights to start from; None for random ones. states: folder of the states that the training
    resumes from. Raises CheckpointError, TaskError.
    """
    features, examples = training_features(task, tokenizer, spec)
    model = build_model(head_of(task), source, config, spec.seed, device)
    if source is not None:
        with suppress(TaskError):  # the source has other classes: its head is only a starting point
            if len(label_names(source, task)) == len(task.labels):
                reorder_classes(model, task, source)
    facts = train_model(model, features, spec, settings, states, device)
    return model.cpu(), {"train_examples": examples, **facts}


def training_features(task: Task, tokenizer: Tokenizer, spec: CheckpointSpec) -> tuple[Features, int]:
    """The training sequences with their targets, and the number of examples that they come from: all but those that the settings
    hold out.

    Raises CheckpointError, TaskError.
    """
    examples = task.examples("train")
    if not examples:
        raise CheckpointError(f"{task.name}: there are no training examples; give --data a folder with a train split")
    if held := (spec.train or {}).get("hold_out", 0):
        out = set(slice_rows(spec, len(examples), held).tolist())
        examples = [example for index, example in enumerate(examples) if index not in out]
    if not examples:
        raise CheckpointError(f"{task.name}: train.hold_out leaves no example to train on; lower it")
    return task.features(examples, tokenizer, spec.shape, training=True), len(examples)


def build_model(
    part: Part,
    source: Path | None,
    config: Any,
    seed: int,
    device: str,
    *,
    attention: str | None = None,
    new_head: bool = True,
) -> PreTrainedModel:
    """A model with the head `part`, or an encoder alone, to be trained on `device` ("cpu" or "cuda"), in FP32 on the CPU.

    source: folder of the weights; None for random ones. seed: of new weights. attention: its name in transformers'
    registry; default: the fastest on the device. new_head: whether the source may lack the head's weights. Raises
    CheckpointError.
    """
    torch.manual_seed(seed)
    default_attention = register_attention() if device == "cpu" else "sdpa"
    if device != "cpu":
        disable_cudnn_attention()
    family = get_family(config.model_type)
    if (family.own_attention or not family.layers_alike) and attention not in (None, "sdpa"):
        raise CheckpointError("; ".join((own_attention if family.own_attention else unlike_layers)(config.model_type)))
    if family.own_attention:
        attention = "eager"
    options = {"attn_implementation": attention or default_attention, "dtype": torch.float32}
    if part == "encoder":
        options |= family.encoder_arguments
    model: PreTrainedModel = (
        auto_class(part).from_config(config, trust_remote_code=False, **options)
        if source is None
        else _load_pretrained(part, source, config, new_head, options)
    )
    take_all_inputs(model)
    if device == "cpu":
        replace_dropout(model)
    return model


def _load_pretrained(
    part: Part, source: Path, config: Any, new_head: bool, options: Mapping[str, Any]
) -> PreTrainedModel:
    """A pretrained encoder with its own head where that fits, else with a new one.

    Raises CheckpointError where weights of the encoder are missing (transformers would silently train random ones) or
    not finite.
    """
    try:
        check_finite(source)
    except BackendError as error:
        raise CheckpointError(str(error)) from None
    loaded: tuple[PreTrainedModel, Any] = auto_class(part).from_pretrained(
        source, config=config, output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True,
        trust_remote_code=False, **options,
    )  # fmt: skip
    model, report = loaded
    new_tensors = [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]
    head = _head_prefixes(part, get_family(config.model_type)) if new_head else ()
    missing = sorted(name for name in new_tensors if not name.startswith(head))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{source}: model.safetensors has no fitting {missing[0]}{more}: it holds another model than config.json"
            " describes; save both files from the same model"
        )
    return model


def _head_prefixes(part: Part, family: Family) -> tuple[str, ...]:
    """How the names of a head's tensors start."""
    paths = family.masked_lm if part == "masked_lm" else [family.path(name) for name in HEAD_MODULES]
    return tuple(f"{path}." for path in paths if path)


def reorder_classes(model: PreTrainedModel, task: Task, source: Path) -> None:
    """Put a classifier's outputs into the task's order. A published model may number its classes differently; they are
    matched by name. Raises TaskError where the classes are not the task's."""
    order = list(class_columns(source, task))
    if not order:
        return
    head = find_module(model, TOKEN_CLASSIFIER if task.kind == "token_classification" else "classifier")
    with torch.no_grad():
        head.weight.copy_(head.weight[order].clone())
        head.bias.copy_(head.bias[order].clone())


def train_model(
    model: torch.nn.Module,
    features: Features,
    spec: CheckpointSpec,
    settings: TrainSettings,
    states: Path,
    device: str,
    loss_of: Loss | None = None,
    width: int | None = None,
) -> dict[str, Any]:
    """Train `model` in place; returns what origin.json says of it. `loss_of`, `width`: as `loop.train` takes them.

    Raises CheckpointError.
    """
    _check_free_space(states.parent, model, settings)
    made_from = {
        f"training of {needed.model} ({needed.recipe})": read_origin(states.with_name(needed.key))["weights_sha256"]
        for needed in spec.needs
    }
    try:
        trained = train(
            model,
            features,
            settings,
            seed=spec.seed,
            states=states,
            device=device,
            loss_of=loss_of,
            width=width,
            made_from=made_from,
        )
    except torch.OutOfMemoryError:
        raise CheckpointError(
            f"{spec.model}: a batch of {settings.batch_size} does not fit into the GPU's memory; lower train.batch_size"
        ) from None
    return {
        "train_seconds": trained.seconds,
        "train_device": device,
        "train_devices": process_group().size,
        "train_threads": torch.get_num_threads(),
        "train_windows": len(features),
        "train_steps": trained.steps,
        "train_precision": trained.precision,
        "loss_curve": trained.curve,
    }


def _check_free_space(folder: Path, model: torch.nn.Module, settings: TrainSettings) -> None:
    """A state holds the weights and AdamW's two moments. A new state is written before the oldest is deleted, and the
    result is one more copy of the weights."""
    weight_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    needed = weight_bytes * (3 * (settings.keep_checkpoints + 1) + 1)
    free = shutil.disk_usage(folder).free
    if free < needed:
        full = OSError(
            errno.ENOSPC,
            f"training needs {needed / 1e6:,.0f} MB for its states and its result, {free / 1e6:,.0f} MB are free",
        )
        raise CheckpointError(disk_fault(full, folder, MOVE_CACHE))


def configure_for_task(config: Any, task: Task, settings: TrainSettings, output: Path) -> None:
    """Set the head, class names and dropout in a configuration and write it to the folder `output`.

    Raises BackendError for an architecture that no backend could run, before any time is spent on training.
    """
    set_head(config, task)
    set_dropout(config, settings)
    config.save_pretrained(output)
    read_architecture(output)


def set_head(config: Any, task: Task) -> None:
    """Set the task's head and classes in a configuration."""
    config.architectures = [get_family(config.model_type).class_of(head_of(task))]
    if task.kind == "question_answering":
        config.num_labels = 2  # start and end; a source that was a classifier has another number
    else:
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {name: index for index, name in enumerate(task.labels)}
        config.problem_type = PROBLEM_TYPES.get(task.kind)


def set_dropout(config: Any, settings: TrainSettings) -> None:
    """Set the dropout of the training settings in a configuration, where they have one."""
    if settings.dropout is not None:
        for name in get_family(config.model_type).dropouts:
            setattr(config, name, settings.dropout)


def random_model(config: Any, task: Task, seed: int) -> PreTrainedModel:
    """A model of random weights with the task's head."""
    torch.manual_seed(seed)
    model: PreTrainedModel = auto_class(head_of(task)).from_config(config, trust_remote_code=False, dtype=torch.float32)
    return model


def head_of(task: Task) -> Part:
    """The model, with its head, that is trained for a task."""
    return part_of(HEADS[task.kind])
