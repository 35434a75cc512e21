"""Batches that quantization ranges are calibrated on: training examples that are drawn with the seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.schemes import Scheme
from harness.plan.spec import CheckpointSpec
from tasks import Features, Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def calibration_batches(
    spec: CheckpointSpec, scheme: Scheme, task: Task, tokenizer: Tokenizer
) -> Iterator[dict[str, Any]]:
    """Batches as `Session.run` takes them, int64 arrays of (batch, length). Each is padded to its longest sequence, or to the
    maximum length where padding takes part in what the scheme computes.

    `spec.calibration` holds `samples`, the number of examples, and `batch_size`.
    """
    examples = task.examples("train")
    drawn = np.sort(_draw(spec, len(examples))[: _samples(spec)])
    features = task.features([examples[index] for index in drawn], tokenizer, spec.shape)
    return _batches(features, (spec.calibration or {}).get("batch_size", 16), padded_length(scheme, spec))


def slice_rows(spec: CheckpointSpec, count: int, rows: int) -> np.ndarray[Any, Any]:
    """The places of up to `rows` among `count` training examples, in order: those that follow calibration's in the draw."""
    samples = _samples(spec)
    return np.sort(_draw(spec, count)[samples : samples + rows])


def _samples(spec: CheckpointSpec) -> int:
    return (spec.calibration or {}).get("samples", 128)


def _draw(spec: CheckpointSpec, count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(spec.seed).permutation(count)


def padded_length(scheme: Scheme, spec: CheckpointSpec) -> int | None:
    """The number of tokens that every sequence is padded to; None for the longest of its batch."""
    return spec.shape.max_length if scheme.computes_padding else None


def _batches(features: Features, size: int, width: int | None) -> Iterator[dict[str, Any]]:
    for start in range(0, len(features), size):
        rows = slice(start, start + size)
        lengths = features.lengths[rows]
        length = width or int(lengths.max())
        ids = _padded(features.input_ids[rows], length, features.pad_id)
        types = _padded(features.token_type_ids[rows], length, 0)
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
        yield {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def _padded(values: np.ndarray[Any, Any], width: int, padding: int) -> np.ndarray[Any, Any]:
    """Cut, or filled with `padding`, to (rows, width)."""
    cut = values[:, :width].astype(np.int64)
    return np.pad(cut, ((0, 0), (0, width - cut.shape[1])), constant_values=padding)
