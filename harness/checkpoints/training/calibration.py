"""Batches on which quantization ranges are found: training examples drawn with the seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.fake_quant.schemes import Scheme
from harness.plan.spec import CheckpointSpec
from tasks import Features, Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def calibration_batches(
    spec: CheckpointSpec, scheme: Scheme, task: Task, tokenizer: Tokenizer
) -> Iterator[dict[str, Any]]:
    """As `Session.run` takes them, each padded to its own longest, or to the maximum where the scheme asks for it."""
    settings = {"samples": 128, "batch_size": 16, **(spec.calibration or {})}
    examples = task.examples("train")
    drawn = np.sort(np.random.default_rng(spec.seed).permutation(len(examples))[: settings["samples"]])
    features = task.features([examples[index] for index in drawn], tokenizer, spec.shape)
    return _batches(features, settings["batch_size"], padded_length(scheme, spec))


def padded_length(scheme: Scheme, spec: CheckpointSpec) -> int | None:
    """Tokens that every sequence is padded to; None for the longest of its batch."""
    return spec.shape.max_length if scheme.computes_padding else None


def _batches(features: Features, size: int, width: int | None) -> Iterator[dict[str, Any]]:
    for at in range(0, len(features), size):
        rows = slice(at, at + size)
        lengths = features.lengths[rows]
        tokens = width or int(lengths.max())
        ids, types = (_padded(values[rows], tokens) for values in (features.input_ids, features.token_type_ids))
        mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
        yield {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def _padded(values: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
    """The padding token of every BERT vocabulary, and of types, is 0."""
    cut = values[:, :width].astype(np.int64)
    return np.pad(cut, ((0, 0), (0, width - cut.shape[1])))
