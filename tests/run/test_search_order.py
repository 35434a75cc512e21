"""What a search tries, and in which order."""

from __future__ import annotations

from typing import Any

from backends import get_backend
from harness.run.search import float_order, others
from harness.run.search_trial import Part


def test_a_step_leaves_out_what_the_backend_cannot_run() -> None:
    """TensorRT has no zero points; and a way that a scheme has already is none."""
    step: list[dict[str, Any]] = [
        {"activations.symmetric": False},
        {"activations.estimator": "output_error"},
        {"smoothing": 0.5},
    ]
    smooth = "engine_int8 with smoothing = 0.5"
    zeros = "engine_int8 with activations.symmetric = false"
    assert list(others("engine_int8", step, get_backend("onnxruntime_int8"))) == [zeros, smooth]
    assert list(others("engine_int8", step, get_backend("tensorrt_int8"))) == [smooth]


def test_parts_become_float_by_what_they_move_for_their_products() -> None:
    parts = [Part("large", 0.4, 0.8), Part("small", 0.2, 0.1), Part("least", 0.01, 0.1)]
    assert float_order(parts) == ["small", "large", "least"]
