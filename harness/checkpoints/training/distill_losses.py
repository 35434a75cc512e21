"""What makes a student like its teacher: TinyBERT's losses (Jiao et al. 2020, arXiv 1909.10351).

Layer m of a student of M layers is made like layer g(m) = m x N / M of its teacher's N; layer 0, the embeddings, like the
teacher's. The general and the intermediate stage compare what goes on inside, the prediction stage what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import dropout as plain_dropout
from torch.nn.functional import log_softmax, mse_loss

from harness.checkpoints.training.cpu import attention_scores, drop, register_attention
from harness.checkpoints.training.loop import Loss
from harness.errors import CheckpointError
from harness.suite.train import no_uniform_map
from tasks import Task

ATTENTION = "quantboard_scores"
"""Name of `attention` in transformers' registry."""


NOTHING = -100.0
"""Attention scores at most this low stand for padding and count as 0 in both, as in the authors' code."""


INPUTS = ("input_ids", "attention_mask", "token_type_ids")


Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Inside:
    """What an encoder computed. scores: of each layer, (batch, heads, length, length), before softmax, the mask added.
    hidden: output of the embeddings and of each layer, (batch, length, width)."""

    scores: Sequence[torch.Tensor]
    hidden: Sequence[torch.Tensor]


def layer_map(model: str, student: int, teacher: int, whose: str = "the teacher's") -> tuple[int, ...]:
    """g(1) ... g(M). Raises CheckpointError where N is no multiple of M."""
    if teacher % student:
        reason, remedy = no_uniform_map(model, student, teacher, whose)
        raise CheckpointError(f"{reason}; {remedy}")
    return tuple(m * (teacher // student) for m in range(1, student + 1))


def attention_loss(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over layers of the mean squared error of attention scores before softmax; those of padding are 0."""
    pairs = zip(student, teacher, strict=True)
    return torch.stack([mse_loss(_no_padding(mine), _no_padding(theirs)) for mine, theirs in pairs]).sum()


def _no_padding(scores: torch.Tensor) -> torch.Tensor:
    scores = scores.float()
    return torch.where(scores <= NOTHING, 0.0, scores)


def hidden_loss(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], projection: nn.Module
) -> torch.Tensor:
    """Sum over layers, the embeddings among them, of the mean squared error of projected hidden states."""
    pairs = zip(student, teacher, strict=True)
    return torch.stack([mse_loss(projection(mine).float(), theirs.float()) for mine, theirs in pairs]).sum()


def soft_cross_entropy(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy of the teacher's softened distribution over the last axis, a mean over all other axes."""
    wanted = (teacher.float() / temperature).softmax(-1)
    return -(wanted * log_softmax(student.float() / temperature, -1)).sum(-1).mean()


class StudentWithProjection(nn.Module):
    """A student's encoder and the one projection of its hidden states to its teacher's width, which its losses need and the
    student does not. Calling it gives the intermediate losses of a batch."""

    def __init__(self, encoder: nn.Module, width: int, layers: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.layers = encoder, tuple(layers)
        own = width_of(encoder)
        self.projection = nn.Linear(own, width)
        with torch.no_grad():
            if own == width:  # a student cut out of its teacher already is like it
                self.projection.weight.copy_(torch.eye(width))
            else:
                self.projection.weight.normal_(0.0, 0.02)
            self.projection.bias.zero_()
        if (pooler := getattr(encoder, "pooler", None)) is not None:
            pooler.requires_grad_(False)  # no loss here reads it

    def forward(self, inputs: Batch, teacher: Inside) -> torch.Tensor:
        mine = look_inside(self.encoder, inputs)
        scores = [teacher.scores[layer - 1] for layer in self.layers]
        hidden = [teacher.hidden[layer] for layer in (0, *self.layers)]
        return attention_loss(mine.scores, scores) + hidden_loss(mine.hidden, hidden, self.projection)


def look_inside(encoder: nn.Module, inputs: Batch) -> Inside:
    """Run a BertModel that was loaded with `ATTENTION` for its attention."""
    hidden = encoder(**inputs, output_hidden_states=True).hidden_states
    layers = [layer.attention.self for layer in encoder.encoder.layer]  # type: ignore[union-attr]
    return Inside([layer.__dict__.pop("scores") for layer in layers], hidden)


def width_of(model: nn.Module) -> int:
    return int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]


def intermediate_loss(teacher: nn.Module) -> Loss:
    """The loss of a `StudentWithProjection`: `teacher` is a BertModel."""

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        inputs = _inputs(batch)
        with torch.no_grad():
            seen = look_inside(teacher, inputs)
        found: torch.Tensor = model(inputs, seen)
        return found

    return loss


def prediction_loss(teacher: nn.Module, task: Task, order: Sequence[int], temperature: float) -> Loss:
    """The loss of a student with the task's head: soft cross-entropy with its teacher's classes, or with its distributions
    of an answer's start and end (mean of both), or squared error to its teacher's scores. (The authors' code takes the
    labels for scores: that is the stage `labels`.) order: the teacher's column of each class of the task."""

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        inputs = _inputs(batch)
        with torch.no_grad():
            wanted = teacher(**inputs)
        mine = model(**inputs)
        if task.kind == "question_answering":
            padding = batch["attention_mask"] == 0
            return torch.stack(
                [
                    soft_cross_entropy(
                        mine[name].float().masked_fill(padding, -1e4),
                        wanted[name].float().masked_fill(padding, -1e4),
                        temperature,
                    )
                    for name in ("start_logits", "end_logits")
                ]
            ).mean()
        if task.kind == "regression":
            return mse_loss(mine.logits.float(), wanted.logits.float())
        return soft_cross_entropy(mine.logits, wanted.logits[:, list(order)], temperature)

    return loss


def _inputs(batch: Batch) -> Batch:
    return {name: batch[name] for name in INPUTS}


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eager attention as transformers computes it that leaves its scores in `module.scores`. Shapes as `cpu.attention`."""
    module.scores = scores = attention_scores(query, key, attention_mask, scaling)
    cheap = drop if scores.device.type == "cpu" else plain_dropout
    probabilities = cheap(scores.softmax(-1), dropout if module.training else 0.0)
    return torch.matmul(probabilities, value).transpose(1, 2).contiguous(), probabilities


def register_scores_attention() -> str:
    """Make `attention` known to transformers; returns the name that models are loaded with."""
    return register_attention(ATTENTION, attention)
