"""A whole evaluation split through a session: sorted by length, so that little is padding."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends import Session
from tasks import Features

PAST_THE_END = -1e9
"""Logits of positions that a sequence does not have."""


@dataclass(frozen=True)
class Inference:
    """outputs: float32 (n, longest, 2) or (n, labels), in the features' order. forward_seconds: in session.run alone.
    tokens: fed to the model, padding included."""

    outputs: np.ndarray[Any, Any]
    forward_seconds: float
    tokens: int
    batch_formation: str


def run_features(session: Session, features: Features, *, batch_size: int, padding: str, max_length: int) -> Inference:
    """`padding`: `longest` pads a batch to its own longest sequence, `max_length` always to max_length."""
    order = np.argsort(-features.lengths, kind="stable")
    longest = features.input_ids.shape[1]
    outputs: np.ndarray[Any, Any] | None = None
    seconds, tokens = 0.0, 0
    for at in range(0, len(order), batch_size):
        rows = order[at : at + batch_size]
        batch = make_batch(features, rows, max_length if padding == "max_length" else int(features.lengths[rows].max()))
        start = time.perf_counter()
        logits = session.run(batch)
        seconds += time.perf_counter() - start
        tokens += batch["input_ids"].size
        if outputs is None:
            per_token = logits.ndim == 3
            shape = (len(order), longest, logits.shape[2]) if per_token else (len(order), logits.shape[1])
            outputs = np.full(shape, PAST_THE_END, np.float32)
        if logits.ndim == 3:
            width = min(longest, logits.shape[1])
            outputs[rows, :width] = logits[:, :width]
        else:
            outputs[rows] = logits
    formation = f"sorted by length, longest first, {batch_size} a batch, padded to {'the longest of the batch' if padding == 'longest' else 'max_length'}"
    if outputs is None:
        outputs = np.zeros((0, 0), np.float32)
    return Inference(outputs, seconds, tokens, formation)


def make_batch(features: Features, rows: np.ndarray[Any, Any], width: int) -> dict[str, np.ndarray[Any, Any]]:
    """int64 arrays (rows, width), C-contiguous; the pad id is 0 in every BERT vocabulary and masked in any case."""
    lengths = features.lengths[rows]
    stored = min(width, features.input_ids.shape[1])
    batch = {name: np.zeros((len(rows), width), np.int64) for name in ("input_ids", "token_type_ids")}
    for name, target in batch.items():
        target[:, :stored] = getattr(features, name)[rows, :stored]
    batch["attention_mask"] = (np.arange(width) < lengths[:, None]).astype(np.int64)
    return batch
