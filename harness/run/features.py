from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from tasks import Features, Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer
from harness.run.job import Job

SAMPLES = 1024
"""How many sequences of the evaluation set speed rounds draw from (LoadGen's performance sample count)."""


MLPERF_SAMPLES = 10_833
"""The same of MLPerf's BERT: all of SQuAD dev at 384 tokens."""


def load_tokenizer(checkpoint: Path) -> tuple[Tokenizer, str]:
    """The fast tokenizer of a checkpoint folder, and a hash of it."""
    from tokenizers import Tokenizer

    path = checkpoint / "tokenizer.json"
    return Tokenizer.from_file(str(path)), hashlib.sha256(path.read_bytes()).hexdigest()


def cached_features(
    job: Job, task: Task, split: str, examples: Sequence[Any], tokenizer: Tokenizer, fingerprint: str
) -> Features:
    """Features of a split; seven cells of a model share them, so they are made once and kept."""
    cell = job.cell
    content = [
        task.name,
        task.version,
        task.identity.splits[split].sha256,
        split,
        fingerprint,
        vars(cell.shape),
        cell.limit,
    ]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    path = job.cache / "features" / f"{key}.npz"
    if path.exists():
        try:
            return _read_features(path)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            path.unlink(missing_ok=True)  # cut short by a crash of the machine: made again below
    features = task.features(examples, tokenizer, cell.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.npz")
    try:
        _write_features(part, features)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)  # a full disk costs the cache, not the cell
    return features


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


def write_samples(path: Path, features: Features, count: int) -> None:
    """A seeded draw of `count` sequences, small enough that a speed round holds nothing else."""
    chosen = np.sort(np.random.default_rng(SAMPLES).permutation(len(features))[:count])
    lengths = features.lengths[chosen]
    width = int(lengths.max())
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_features(
        path,
        Features(
            features.input_ids[chosen, :width],
            features.token_type_ids[chosen, :width],
            lengths,
            features.example_index[chosen],
        ),
    )


def read_samples(path: Path) -> Features:
    return _read_features(path)
