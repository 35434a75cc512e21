"""Fine-tuning is as fast as transformers' own Trainer with the same model, settings and rows, at MiniLM's size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from harness.checkpoints.training.cpu import prepare_process
from harness.checkpoints.training.finetune import build_model
from harness.checkpoints.training.loop import native_precision, train
from harness.machine.hardware import cores
from harness.suite.train import TrainSettings
from tasks.base import Features
from tests.backends.checkpoints import MINILM

BATCH, STEPS, TURNS = 16, 12, 3
LONGEST, TYPICAL = 128, 53
"""Tokens; MRPC's mean."""


def rows() -> Features:
    rng = np.random.default_rng(0)
    count = BATCH * STEPS
    lengths = np.clip(np.round(rng.lognormal(np.log(TYPICAL) - 0.05, 0.3, count)), 12, LONGEST).astype(np.int64)
    ids = np.where(np.arange(LONGEST) < lengths[:, None], rng.integers(1000, 30_000, (count, LONGEST)), 0)
    types = np.zeros_like(ids)
    return Features(
        ids.astype(np.int32),
        types.astype(np.int32),
        lengths,
        np.arange(count),
        labels={"labels": rng.integers(0, 2, count)},
    )


def config() -> Any:
    kind: Any = BertConfig
    return kind(**MINILM, num_labels=2)


def by_trainer(features: Features, folder: Path, precision: str) -> float:
    """Seconds of `Trainer.train`, with eager attention, its fastest on a processor, and batches grouped by length."""
    torch.manual_seed(0)
    kind: Any = BertForSequenceClassification
    model = kind._from_config(config(), attn_implementation="eager")
    items = [
        {
            "input_ids": features.input_ids[row, :length].astype(np.int64),
            "token_type_ids": features.token_type_ids[row, :length].astype(np.int64),
            "labels": int(features.labels["labels"][row]),
        }
        for row, length in enumerate(features.lengths.tolist())
    ]

    def pad(chosen: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(item["input_ids"]) for item in chosen)
        padded = {
            name: torch.from_numpy(np.stack([np.pad(item[name], (0, width - len(item[name]))) for item in chosen]))
            for name in ("input_ids", "token_type_ids")
        }
        mask = torch.tensor([[1] * len(item["input_ids"]) + [0] * (width - len(item["input_ids"])) for item in chosen])
        return {**padded, "attention_mask": mask, "labels": torch.tensor([item["labels"] for item in chosen])}

    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=5e-5,
        warmup_steps=2,
        train_sampling_strategy="group_by_length",
        bf16=precision == "bf16",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, train_dataset=items, data_collator=pad)
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started


def by_us(features: Features, folder: Path, precision: str) -> float:
    settings = TrainSettings(
        learning_rate=5e-5,
        epochs=1,
        batch_size=BATCH,
        warmup_ratio=0.1,
        precision=precision,  # type: ignore[arg-type]
    )
    model = build_model("classification", None, config(), 0, "cpu")
    started = time.perf_counter()
    train(model, features, settings, seed=0, states=folder, device="cpu", log=lambda line: None)
    return time.perf_counter() - started


@pytest.mark.parametrize("precision", sorted({"fp32", native_precision("cpu")}))
def test_as_fast_as_transformers_trainer(tmp_path: Path, precision: str) -> None:
    """Alternately, the best of each, since other processes only ever add time. 5% is left to chance."""
    prepare_process(cores())
    features = rows()
    theirs, ours = [], []
    for turn in range(TURNS):
        theirs.append(by_trainer(features, tmp_path / f"theirs-{turn}", precision))
        ours.append(by_us(features, tmp_path / f"ours-{turn}", precision))
    print(f"{precision}: Trainer {STEPS / min(theirs):.2f} steps/s, ours {STEPS / min(ours):.2f} steps/s")
    assert min(ours) < 1.05 * min(theirs)
