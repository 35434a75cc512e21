"""Fine-tuning: a task's features, a model with the task's head, the loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.cells import CheckpointSpec
from harness.errors import CheckpointError
from harness.training.cpu import register_attention, replace_dropout
from harness.training.loop import Trained, train
from harness.training.settings import TrainSettings
from tasks import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


def auto_class(task: Task) -> Any:
    from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

    return AutoModelForQuestionAnswering if task.kind == "question_answering" else AutoModelForSequenceClassification


def head_config(task: Task) -> dict[str, Any]:
    """What a config says of the task's head."""
    if task.kind == "question_answering":
        return {}
    labels = {
        "id2label": dict(enumerate(task.labels)),
        "label2id": {name: index for index, name in enumerate(task.labels)},
    }
    kind = "regression" if task.kind == "regression" else "single_label_classification"
    return labels | {"problem_type": kind}


def dropout_config(dropout: float | None) -> Mapping[str, float]:
    if dropout is None:
        return {}
    return dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"), dropout)


def finetune(
    source: Path | None, config: Any, task: Task, tokenizer: Tokenizer, spec: CheckpointSpec, state: Path, device: str
) -> tuple[PreTrainedModel, Trained, int]:
    """The trained model (FP32, on the CPU), how training went, and on how many examples.

    `source` is the folder of the weights to start from, None for random ones. Raises CheckpointError, TaskError.
    """
    settings = TrainSettings.model_validate(dict(spec.train or {}))
    examples = task.examples("train")
    if not examples:
        raise CheckpointError(f"{task.name}: no training examples; give --data with a train split")
    features = task.features(examples, tokenizer, spec.shape, training=True)
    torch.manual_seed(spec.seed)  # a new head's weights
    how = {"attn_implementation": register_attention() if device == "cpu" else "sdpa", "dtype": torch.float32}
    if source is None:
        model = auto_class(task).from_config(config, **how)
    else:
        model = pretrained(source, config, task, how)
    if device == "cpu":
        replace_dropout(model)
    try:
        trained = train(model, features, settings, seed=spec.seed, state=state, device=device)
    except torch.OutOfMemoryError:
        raise CheckpointError(
            f"{spec.model}: the GPU's memory does not hold a batch of {settings.batch_size}; lower train.batch_size"
        ) from None
    return model.cpu(), trained, len(examples)


def pretrained(source: Path, config: Any, task: Task, how: Mapping[str, Any]) -> PreTrainedModel:
    """A pretrained encoder with a new head for the task, or the old one where it fits. Raises CheckpointError where it lacks
    weights of the encoder: transformers would train random ones without a word."""
    model, report = auto_class(task).from_pretrained(
        source, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **how
    )
    changed = [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]
    head = ("qa_outputs.", "classifier.", "bert.pooler.")
    lacking = sorted(name for name in changed if not name.startswith(head))
    if lacking:
        raise CheckpointError(
            f"{source.name}: model.safetensors has no fitting {lacking[0]}"
            + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
            + "; it holds another model than its config.json says"
        )
    fine_tuned: PreTrainedModel = model
    return fine_tuned
