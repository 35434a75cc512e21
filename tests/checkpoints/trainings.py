"""Very small trainings of random models on made-up features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
)

from harness.checkpoints.training.loop import Loss, Trained, model_loss, train
from harness.suite.train import TrainSettings
from tasks.base import Features

State = dict[str, torch.Tensor]


def make_settings(**changes: Any) -> TrainSettings:
    """float32 on every machine, as what the tests compare with."""
    common = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 4, "precision": "fp32"}
    return TrainSettings.model_validate(common | changes)


def make_features(rows: int = 21, labels: int | None = None) -> Features:
    rng = np.random.default_rng(3)
    lengths = rng.integers(6, 20, rows)
    inside = np.arange(lengths.max()) < lengths[:, None]
    ids = np.where(inside, rng.integers(5, 60, inside.shape), 0).astype(np.int32)
    types = (np.arange(lengths.max()) > 3) & inside
    targets = (
        {"labels": rng.integers(0, labels, rows)}
        if labels
        else {"start_positions": rng.integers(0, lengths), "end_positions": rng.integers(0, lengths)}
    )
    return Features(ids, types.astype(np.int32), lengths.astype(np.int64), np.arange(rows), labels=targets)


def make_model(dropout: float = 0.0, attention: str = "eager", labels: int | None = None) -> Any:
    torch.manual_seed(5)
    sizes: dict[str, Any] = {"num_labels": labels} if labels else {}
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
        **sizes,
    )
    kind: Any = BertForSequenceClassification if labels else BertForQuestionAnswering
    return kind._from_config(config, attn_implementation=attention)


def run_training(
    folder: Path,
    model: Any = None,
    *,
    rows: Features | None = None,
    loss: Loss | None = None,
    made_from: dict[str, str] | None = None,
    **changes: Any,
) -> tuple[State, Trained, list[str]]:
    model = make_model() if model is None else model
    lines: list[str] = []
    trained = train(
        model,
        make_features() if rows is None else rows,
        make_settings(**changes),
        seed=7,
        states=folder,
        device="cpu",
        loss_of=loss,
        made_from=made_from or {},
        log=lines.append,
    )
    return {name: value.clone() for name, value in model.state_dict().items()}, trained, lines


def same_weights(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Stop(Exception):
    pass


def loss_that_stops(step: int, action: Any) -> Loss:
    """The model's own loss, which calls `action` at a step."""
    calls = 0

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == step:
            action()
        return model_loss(model, batch)

    return loss


def raise_stop() -> None:
    raise Stop
