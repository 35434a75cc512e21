"""The tokenized rows of a split, kept in the cache, and the sequences that speed rounds draw from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import artefacts
from harness.run.job import Job
from tasks import Features, Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLES = 1024
"""How many sequences of the evaluation set speed rounds draw from (LoadGen's performance sample count)."""


MLPERF_SAMPLES = 10_833
"""The same number in MLPerf's BERT: all of SQuAD dev at 384 tokens."""


def cached_features(job: Job, task: Task, split: str, examples: Sequence[Any], tokenizer: Tokenizer) -> Features:
    """Features of a split. All cells of a model share them, so they are made once and kept in the cache."""
    path = job.cache / "features" / f"{_features_key(job, task, split)}.npz"
    with suppress(OSError):
        if artefacts.usable(path, job.cache):
            return _read_features(path)
    features = task.features(examples, tokenizer, job.cell.shape)
    part = path.with_suffix(f".{os.getpid()}.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_features(part, features)
        artefacts.move_sealed(part, path, job.cache / "hashes")
    except OSError:
        part.unlink(missing_ok=True)  # the cell does not need the cache: a full disk is no reason to fail
    return features


def _features_key(job: Job, task: Task, split: str) -> str:
    content = [
        task.name,
        task.version,
        task.identity.splits[split].sha256,
        split,
        hashlib.sha256((job.checkpoint / "tokenizer.json").read_bytes()).hexdigest(),
        vars(job.cell.shape),
        job.cell.limit,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _write_features(path: Path, features: Features) -> None:
    arrays = {name: getattr(features, name) for name in ("input_ids", "token_type_ids", "lengths", "example_index")}
    extra = {f"extra.{name}": values for name, values in features.extra.items()}
    np.savez(path, allow_pickle=False, **arrays, **extra)


def _read_features(path: Path) -> Features:
    with np.load(path, allow_pickle=False) as stored:
        extra = {name.removeprefix("extra."): stored[name] for name in stored.files if name.startswith("extra.")}
        return Features(
            stored["input_ids"], stored["token_type_ids"], stored["lengths"], stored["example_index"], extra
        )


def longest(features: Features, count: int) -> Features:
    """The `count` longest sequences."""
    return _chosen(features, np.argsort(-features.lengths, kind="stable")[:count])


def write_samples(path: Path, features: Features, count: int) -> None:
    """Write a seeded draw of `count` sequences: small enough that the process of a speed round holds nothing else."""
    chosen = np.sort(np.random.default_rng(SAMPLES).permutation(len(features))[:count])
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_features(path, _chosen(features, chosen))


def _chosen(features: Features, rows: np.ndarray[Any, Any]) -> Features:
    """Some of the sequences, padded to the longest of them, without what `decode` needs."""
    lengths = features.lengths[rows]
    width = int(lengths.max())
    return Features(
        features.input_ids[rows, :width],
        features.token_type_ids[rows, :width],
        lengths,
        features.example_index[rows],
    )


def read_samples(path: Path) -> Features:
    return _read_features(path)
