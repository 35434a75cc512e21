"""Activations that few encoders have, against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from backends import Settings, get_backend
from tests.backends.checkpoints import add_ranges, make_batch, make_checkpoint


@pytest.mark.parametrize("activation", ["silu", "swish", "quick_gelu"])
def test_logits_are_those_of_transformers(tmp_path: Path, activation: str) -> None:
    folder = make_checkpoint(tmp_path / "model", labels=3, hidden_act=activation)
    batch = make_batch(1)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(values) for name, values in batch.items()}).logits.numpy()
    add_ranges(folder, "aimet_w8a8")
    settings = Settings(max_length=48, max_batch=4, threads=1, cache=tmp_path / "cache")
    logits = {}
    for backend in ("torch_fp32", "onnxruntime_fp32", "fake_quant_w8a8", "onnxruntime_int8"):
        session = get_backend(backend).prepare(folder, settings, "cpu")
        logits[backend] = session.run(batch)
        session.close()
    for backend in ("torch_fp32", "onnxruntime_fp32"):
        np.testing.assert_allclose(logits[backend], expected, atol=1e-4)
    rounding = np.abs(logits["fake_quant_w8a8"] - expected).max()
    assert np.abs(logits["onnxruntime_int8"] - logits["fake_quant_w8a8"]).max() < rounding
