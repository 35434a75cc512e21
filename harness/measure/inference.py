"""Runs a whole evaluation split through a session, sorted by length so that batches hold little padding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends import BackendError, Batch, Session
from tasks import Features

PAST_THE_END = -1e9
"""Logit of positions past a sequence's end: too low for any softmax or n-best list."""


@dataclass(frozen=True)
class Inference:
    """outputs: float32 (n, longest, 2) or (n, labels), in the features' order. forward_seconds: in session.run alone.
    tokens: fed to the model, padding included. batch_formation: how batches were formed, for the record."""

    outputs: np.ndarray[Any, Any]
    forward_seconds: float
    tokens: int
    batch_formation: str


def run_features(session: Session, features: Features, *, batch_size: int, padding: str, max_length: int) -> Inference:
    """Run every sequence once. Padding `longest` pads a batch to its longest sequence, `max_length` always to max_length.

    A batch has `batch_size` sequences, the last one what is left. The longest go first, so that memory peaks in the first
    batch. Which sequences share a batch depends on their lengths alone: two engines, or two runs, see the same batches.
    """
    order = np.argsort(-features.lengths, kind="stable")
    count, longest = features.input_ids.shape
    outputs = np.zeros((0, 0), np.float32)
    seconds, tokens = 0.0, 0
    for first in range(0, count, batch_size):
        rows = order[first : first + batch_size]
        batch = make_batch(features, rows, max_length if padding == "max_length" else int(features.lengths[rows].max()))
        start = time.perf_counter()
        logits = session.run(batch)
        seconds += time.perf_counter() - start
        tokens += batch["input_ids"].size
        check_outputs(logits, batch, outputs if first else None)
        if first == 0:
            shape = (count, longest, logits.shape[2]) if logits.ndim == 3 else (count, logits.shape[1])
            outputs = np.full(shape, PAST_THE_END, np.float32)
        if logits.ndim == 3:
            width = min(longest, logits.shape[1])
            inside = np.arange(width) < features.lengths[rows, None]
            outputs[rows, :width] = np.where(inside[:, :, None], logits[:, :width], PAST_THE_END)
        else:
            outputs[rows] = logits
    width_name = "the longest of the batch" if padding == "longest" else f"max_length, {max_length}"
    formation = f"sorted by length, longest first, {batch_size} a batch, padded to {width_name}"
    return Inference(outputs, seconds, tokens, formation)


def check_outputs(logits: Any, batch: Batch, earlier: np.ndarray[Any, Any] | None) -> None:
    """Raises BackendError unless the engine gave one row of numbers for each sequence, (batch, classes) or (batch, length, 2),
    with as many classes as in `earlier` batches. NumPy would spread a single row over the whole batch."""
    size, width = batch["input_ids"].shape
    shape: tuple[int, ...] = getattr(logits, "shape", ())
    right = isinstance(logits, np.ndarray) and np.issubdtype(logits.dtype, np.floating) and logits.ndim in (2, 3)
    right = right and shape[0] == size and (logits.ndim == 2 or shape[1] == width)
    if right and earlier is not None:
        right = logits.ndim == earlier.ndim and shape[-1] == earlier.shape[-1]
    if not right:
        raise BackendError(
            f"the engine returned {getattr(logits, 'dtype', type(logits).__name__)} of shape {shape} for a batch of"
            f" {size} sequences of {width} tokens; expected floats, ({size}, classes) or ({size}, {width}, outputs)"
        )


def make_batch(features: Features, rows: np.ndarray[Any, Any], width: int) -> dict[str, np.ndarray[Any, Any]]:
    """`input_ids`, `attention_mask` and `token_type_ids` of these sequences, each (rows, width) int64 and C-contiguous."""
    stored = min(width, features.input_ids.shape[1])
    ids = np.full((len(rows), width), features.pad_id, np.int64)
    types = np.zeros((len(rows), width), np.int64)
    ids[:, :stored] = features.input_ids[rows, :stored]
    types[:, :stored] = features.token_type_ids[rows, :stored]
    mask = (np.arange(width) < features.lengths[rows, None]).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


LIMIT_SEED = 20_261_121


def limited(examples: Sequence[Any], limit: int | None) -> Sequence[Any]:
    """All examples of a split, or `limit` of them: a seeded draw that is the same every time, in file order."""
    if limit is None or limit >= len(examples):
        return examples
    chosen = np.sort(np.random.default_rng(LIMIT_SEED).permutation(len(examples))[:limit])
    return [examples[index] for index in chosen]
