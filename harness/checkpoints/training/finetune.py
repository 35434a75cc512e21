"""Fine-tuning: a task's features, a model with the task's head, the loop."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from backends.base import BackendError
from backends.bert import check_finite, read_architecture
from backends.torch_eager import no_plan_for_every_shape
from harness.checkpoints.labels import columns_of, label_names
from harness.checkpoints.origin import read_origin
from harness.checkpoints.training.cpu import register_attention, replace_dropout
from harness.checkpoints.training.devices import crew
from harness.checkpoints.training.loop import Loss, train
from harness.errors import MOVE_CACHE, CheckpointError, disk_fault
from harness.plan.spec import CheckpointSpec
from harness.suite.train import TrainSettings
from tasks import Features, Task, TaskError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


HEADS = ("qa_outputs.", "classifier.", "bert.pooler.")
"""Tensors that a fine-tuning may begin with new ones of."""


def fit_to_task(config: Any, task: Task, settings: TrainSettings, folder: Path) -> None:
    """Make a configuration the task's (head, names of classes, dropout) and write it to `folder`.

    Raises BackendError for an architecture that no backend could run afterwards: better before the training than after.
    """
    fit_head(config, task)
    set_dropout(config, settings)
    config.save_pretrained(folder)
    read_architecture(folder)


def set_dropout(config: Any, settings: TrainSettings) -> None:
    if settings.dropout is not None:
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            setattr(config, name, settings.dropout)


def fit_head(config: Any, task: Task) -> None:
    """Make a configuration name the task's head and classes."""
    config.architectures = [model_class(task).__name__]
    if task.kind == "question_answering":
        config.num_labels = 2  # start and end; a source that was a classifier brings its own number
    else:
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {name: index for index, name in enumerate(task.labels)}
        config.problem_type = "regression" if task.kind == "regression" else "single_label_classification"


def finetune(
    source: Path | None,
    config: Any,
    task: Task,
    tokenizer: Tokenizer,
    spec: CheckpointSpec,
    settings: TrainSettings,
    state: Path,
    device: str,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The trained model (FP32, on the CPU) and what origin.json says of the training.

    `source`: folder of the weights to start from, None for random ones. Raises CheckpointError, TaskError.
    """
    features, examples = training_features(task, tokenizer, spec)
    model = begin(model_class(task), source, config, spec.seed, device)
    if source is not None:
        with suppress(TaskError):  # a head of other classes is no more than a beginning
            if len(label_names(source, task)) == len(task.labels):
                order_classes(model, task, source)
    facts = run(model, features, spec, settings, state, device)
    return model.cpu(), {"train_examples": examples, **facts}


def order_classes(model: PreTrainedModel, task: Task, source: Path) -> None:
    """Put a classifier's outputs into the task's order: a published model may have its own, told by the names of its classes,
    and what is trained has the task's. Raises TaskError where its classes are not the task's."""
    order = list(columns_of(source, task))
    if not order:
        return
    head: Any = model.get_submodule("classifier")
    with torch.no_grad():
        head.weight.copy_(head.weight[order].clone())
        head.bias.copy_(head.bias[order].clone())


def training_features(task: Task, tokenizer: Tokenizer, spec: CheckpointSpec) -> tuple[Features, int]:
    """Sequences with their targets, and the number of examples that they were made of. Raises CheckpointError, TaskError."""
    examples = task.examples("train")
    if not examples:
        raise CheckpointError(f"{task.name}: there are no training examples; give --data with a train split")
    return task.features(examples, tokenizer, spec.shape, training=True), len(examples)


def begin(
    kind: Any,
    source: Path | None,
    config: Any,
    seed: int,
    device: str,
    *,
    attention: str | None = None,
    heads: tuple[str, ...] = HEADS,
    **how: Any,
) -> PreTrainedModel:
    """A model of the class `kind` to be trained on `device`: the weights of the folder `source`, random ones where there is
    none. attention: its name in transformers' registry; default: the device's fastest. heads: beginnings of names of
    tensors that the source may lack. how: for the model's constructor. Raises CheckpointError."""
    torch.manual_seed(seed)  # a new head's weights
    default = register_attention() if device == "cpu" else "sdpa"
    if device != "cpu":
        no_plan_for_every_shape()
    how |= {"attn_implementation": attention or default, "dtype": torch.float32}
    model: PreTrainedModel = (
        kind._from_config(config, **how) if source is None else _read(kind, source, config, heads, how)
    )
    if device == "cpu":
        replace_dropout(model)
    return model


def run(
    model: torch.nn.Module,
    features: Features,
    spec: CheckpointSpec,
    settings: TrainSettings,
    state: Path,
    device: str,
    loss_of: Loss | None = None,
    width: int | None = None,
) -> dict[str, Any]:
    """Train `model` in place; returns what origin.json says of it. `loss_of`, `width`: as `train` takes them. Raises
    CheckpointError."""
    _check_room(state.parent, model, settings)
    made_from = {
        f"training of {one.model} ({one.recipe})": read_origin(state.with_name(one.key))["weights_sha256"]
        for one in spec.needs
    }
    how: dict[str, Any] = {"loss_of": loss_of, "width": width, "made_from": made_from}
    try:
        trained = train(model, features, settings, seed=spec.seed, state=state, device=device, **how)
    except torch.OutOfMemoryError:
        raise CheckpointError(
            f"{spec.model}: the GPU's memory does not hold a batch of {settings.batch_size}; lower train.batch_size"
        ) from None
    return {
        "train_seconds": trained.seconds,
        "train_device": device,
        "train_devices": crew().size,
        "train_threads": torch.get_num_threads(),
        "train_windows": len(features),
        "train_steps": trained.steps,
        "train_precision": trained.precision,
        "loss_curve": trained.curve,
    }


def untrained(config: Any, task: Task, seed: int) -> PreTrainedModel:
    """A model of random weights with the task's head."""
    torch.manual_seed(seed)
    model: PreTrainedModel = model_class(task)._from_config(config, dtype=torch.float32)
    return model


def model_class(task: Task) -> Any:
    """transformers' class with the task's head."""
    from transformers import BertForQuestionAnswering, BertForSequenceClassification

    return BertForQuestionAnswering if task.kind == "question_answering" else BertForSequenceClassification


def _read(kind: Any, source: Path, config: Any, heads: tuple[str, ...], how: Mapping[str, Any]) -> PreTrainedModel:
    """A pretrained encoder with a new head, or its old one where that fits. Raises CheckpointError where it lacks
    weights of the encoder, since transformers would train random ones without a word, or where some are not finite."""
    try:
        check_finite(source)
    except BackendError as error:
        raise CheckpointError(str(error)) from None
    model, report = kind.from_pretrained(
        source, config=config, output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True, **how
    )
    changed = [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]
    lacking = sorted(name for name in changed if not name.startswith(heads))
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise CheckpointError(
            f"{source}: model.safetensors has no fitting {lacking[0]}{more}; it holds another model than its config.json says"
        )
    loaded: PreTrainedModel = model
    return loaded


def _check_room(folder: Path, model: torch.nn.Module, settings: TrainSettings) -> None:
    """States hold weights and AdamW's two moments; one is written before the oldest goes; the result comes on top."""
    weights = sum(value.numel() * value.element_size() for value in model.parameters())
    needed = weights * (3 * (settings.keep_checkpoints + 1) + 1)
    free = shutil.disk_usage(folder).free
    if free < needed:
        full = OSError(
            errno.ENOSPC,
            f"training needs {needed / 1e9:.1f} GB for its states and its result, {free / 1e9:.1f} GB are free",
        )
        raise CheckpointError(disk_fault(full, folder, MOVE_CACHE))
