"""Run a backend, or the exported graph as it is, on one batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends import Settings, get_backend
from tests.backends.checkpoints import LENGTH

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Array]


def run_backend(name: str, folder: Path, batch: Batch, cache: Path) -> Array:
    """All logits, those of padding included."""
    session = get_backend(name).prepare(folder, Settings(LENGTH, 8, 1, cache), "cpu")
    try:
        return session.run(batch)
    finally:
        session.close()


def run_real_tokens(name: str, folder: Path, batch: Batch, cache: Path) -> Array:
    return real_tokens(run_backend(name, folder, batch, cache), batch)


def real_tokens(logits: Array, batch: Batch) -> Array:
    """Logits without those of padding, (tokens, 2); those of a classifier as they are."""
    return logits[batch["attention_mask"].astype(bool)] if logits.ndim == 3 else logits


def run_unfused(folder: Path, batch: Batch, path: Path, **export: Any) -> Array:
    """Logits of the real tokens from ONNX Runtime, running the exported graph operator by operator. path: of the new ONNX file."""
    import onnxruntime

    from backends.export import export_onnx

    export_onnx(folder, path, **export)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], dict(batch))
    return real_tokens(logits, batch)
