"""TinyBERT's losses (Jiao et al. 2020, arXiv 1909.10351), which train a student towards its teacher.

Layer m of a student with M layers learns from layer g(m) = m x N / M of a teacher with N, and its embeddings (layer 0) from the
teacher's. The stages `general` and `intermediate` compare attention scores and hidden states; `prediction` compares outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, mse_loss
from torch.nn.functional import dropout as plain_dropout

from backends.base import INPUTS
from backends.torch_models import find_module
from harness.checkpoints.training.cpu import attention_scores, drop, register_attention
from harness.checkpoints.training.loop import Loss
from harness.errors import CheckpointError
from harness.suite.train import depth_mismatch
from tasks import Task

ATTENTION = "quantboard_scores"
"""Name of `attention_with_scores` in transformers' registry."""

PADDING_SCORE = -100.0
"""Attention scores up to this value belong to padding and count as 0 in student and teacher, as in the authors' code."""

Batch = dict[str, torch.Tensor]


def layer_map(model: str, student: int, teacher: int, whose: str = "the teacher's") -> tuple[int, ...]:
    """g(1) ... g(M) for a student of `student` layers and a teacher of `teacher`; layers count from 1. model, whose: for the
    message. Raises CheckpointError where `student` does not divide `teacher`."""
    if teacher % student:
        reason, remedy = depth_mismatch(model, student, teacher, whose)
        raise CheckpointError(f"{reason}; {remedy}")
    return tuple(m * (teacher // student) for m in range(1, student + 1))


def intermediate_loss(teacher: nn.Module) -> Loss:
    """The loss of a `StudentWithProjection`; `teacher` is an encoder that was loaded with the attention `ATTENTION`."""

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        inputs = _inputs(batch)
        with torch.no_grad():
            teacher_states = run_encoder(teacher, inputs)
        student_loss: torch.Tensor = model(inputs, teacher_states)
        return student_loss

    return loss


def prediction_loss(teacher: nn.Module, task: Task, columns: Sequence[int], temperature: float) -> Loss:
    """The loss of a student with the task's head.

    Classification: soft cross-entropy with the teacher's classes, or with its yes and no of each (multi-label). Question answering: the same with its distributions of start
    and end, the mean of both. Regression: squared error to the teacher's scores. (The authors' code trains regression on the
    labels; that is stage `labels` here.) columns: the teacher's logit of each of the task's classes.
    """

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        inputs = _inputs(batch)
        with torch.no_grad():
            target = teacher(**inputs)
        output = model(**inputs)
        if task.kind == "question_answering":
            padding = batch["attention_mask"] == 0
            return torch.stack(
                [
                    soft_cross_entropy(
                        output[name].float().masked_fill(padding, -1e4),
                        target[name].float().masked_fill(padding, -1e4),
                        temperature,
                    )
                    for name in ("start_logits", "end_logits")
                ]
            ).mean()
        if task.kind == "regression":
            return mse_loss(output.logits.float(), target.logits.float())
        logits = target.logits[:, list(columns)]
        if task.kind == "multi_label":
            shares = (logits.float() / temperature).sigmoid()
            return binary_cross_entropy_with_logits(output.logits.float() / temperature, shares)
        return soft_cross_entropy(output.logits, logits, temperature)

    return loss


def soft_cross_entropy(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy of the student's logits with the teacher's, both divided by the temperature: over the last axis, the mean
    over all others."""
    target = (teacher.float() / temperature).softmax(-1)
    return -(target * log_softmax(student.float() / temperature, -1)).sum(-1).mean()


@dataclass(frozen=True)
class EncoderStates:
    """What an encoder computes on the way to its output."""

    scores: Sequence[torch.Tensor]
    """Of each layer: (batch, heads, length, length), before the softmax, with the additive mask."""
    hidden: Sequence[torch.Tensor]
    """Output of the embeddings and of each layer: (batch, length, width)."""


class StudentWithProjection(nn.Module):
    """A student's encoder, and a projection of its hidden states to its teacher's width, which only the loss needs. Calling it
    gives the intermediate loss of a batch. layers: the teacher's layer of each of the student's, from 1."""

    def __init__(self, encoder: nn.Module, teacher_width: int, layers: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.layers = encoder, tuple(layers)
        width = int(encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.projection = nn.Linear(width, teacher_width)
        with torch.no_grad():
            if width == teacher_width:  # layers that were kept from the teacher need no projection
                self.projection.weight.copy_(torch.eye(teacher_width))
            else:
                self.projection.weight.normal_(0.0, 0.02)
            self.projection.bias.zero_()
        if (pooler := find_module(encoder, "pooler")) is not None:
            pooler.requires_grad_(False)  # the loss does not depend on it

    def forward(self, inputs: Batch, teacher: EncoderStates) -> torch.Tensor:
        student = run_encoder(self.encoder, inputs)
        scores = [teacher.scores[layer - 1] for layer in self.layers]
        hidden = [teacher.hidden[layer] for layer in (0, *self.layers)]
        return attention_loss(student.scores, scores) + hidden_loss(student.hidden, hidden, self.projection)


def attention_loss(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean squared error of attention scores before the softmax, summed over layers; scores of padding are 0."""
    pairs = zip(student, teacher, strict=True)
    return torch.stack([mse_loss(_without_padding(own), _without_padding(target)) for own, target in pairs]).sum()


def _without_padding(scores: torch.Tensor) -> torch.Tensor:
    scores = scores.float()
    return torch.where(scores <= PADDING_SCORE, 0.0, scores)


def hidden_loss(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], projection: nn.Module
) -> torch.Tensor:
    """The mean squared error of projected hidden states, summed over the embeddings and all layers."""
    pairs = zip(student, teacher, strict=True)
    return torch.stack([mse_loss(projection(own).float(), target.float()) for own, target in pairs]).sum()


def run_encoder(encoder: nn.Module, inputs: Batch) -> EncoderStates:
    """Run an encoder that was loaded with the attention `ATTENTION`."""
    hidden = encoder(**inputs, output_hidden_states=True).hidden_states
    layers = [find_module(encoder, f"encoder.layer.{layer}.attention.self") for layer in range(len(hidden) - 1)]
    return EncoderStates([layer.__dict__.pop("scores") for layer in layers], hidden)


def _inputs(batch: Batch) -> Batch:
    return {name: batch[name] for name in INPUTS}


def attention_with_scores(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' eager attention, which also leaves its scores in `module.scores`. Shapes: as those of `cpu.attention`."""
    module.scores = scores = attention_scores(query, key, attention_mask, scaling)
    dropout_function = drop if scores.device.type == "cpu" else plain_dropout
    probabilities = dropout_function(scores.softmax(-1), dropout if module.training else 0.0)
    return torch.matmul(probabilities, value).transpose(1, 2).contiguous(), probabilities


def register_scores_attention() -> str:
    """Register `attention_with_scores` in transformers; returns the name to load models with."""
    return register_attention(ATTENTION, attention_with_scores)
