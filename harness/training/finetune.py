"""Fine-tuning: a task's features, a model with the task's head, the loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.cells import CheckpointSpec
from harness.errors import CheckpointError
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
    labels = {"id2label": dict(enumerate(task.labels)), "label2id": {name: index for index, name in enumerate(task.labels)}}
    kind = "regression" if task.kind == "regression" else "single_label_classification"
    return labels | {"problem_type": kind}


def dropout_config(dropout: float | None) -> Mapping[str, float]:
    if dropout is None:
        return {}
    return {name: dropout for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")}


def finetune(
    source: Path | None, config: Any, task: Task, tokenizer: Tokenizer, spec: CheckpointSpec, state: Path, device: str
) -> tuple[PreTrainedModel, Trained, int]:
    """The trained model (FP32, on the CPU), how training went, and on how many examples.

    `source` is the folder of the weights to start from, None for random ones. Attention is computed eagerly: the backward
    pass of PyTorch's fused attention is slow on CPUs in bf16.
    """
    settings = TrainSettings.model_validate(dict(spec.train or {}))
    torch.manual_seed(spec.seed)  # a new head's weights
    if source is None:
        model = auto_class(task).from_config(config, attn_implementation="eager", dtype=torch.float32)
    else:
        model = auto_class(task).from_pretrained(source, config=config, attn_implementation="eager", dtype=torch.float32)
    examples = task.examples("train")
    if not examples:
        raise CheckpointError(f"{task.name}: no training examples")
    features = task.features(examples, tokenizer, spec.shape, training=True)
    trained = train(model, features, settings, seed=spec.seed, state=state, device=device)
    return model.cpu(), trained, len(examples)
