"""The language of quantizer choices: what it holds, what it refuses, and that it costs nothing to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends import BackendError
from backends.fake_quant.schemes import Quantizer, Scheme, get_scheme, scheme_names


@pytest.mark.parametrize(
    ("quantizer", "ends"),
    [
        (Quantizer(), (-128, 127)),
        (Quantizer(narrow=True), (-127, 127)),
        (Quantizer(symmetric=False), (-128, 127)),
        (Quantizer(bits=4), (-8, 7)),
        (Quantizer(bits=2, narrow=True), (-1, 1)),
    ],
)
def test_integer_grids(quantizer: Quantizer, ends: tuple[int, int]) -> None:
    assert (quantizer.low, quantizer.high) == ends


def test_presets_are_what_engines_take() -> None:
    engine = get_scheme("engine_int8")
    assert engine.activation_symmetric
    assert (engine.weights.granularity, engine.weights.narrow, engine.weights.symmetric) == ("per_channel", True, True)
    assert (engine.activations.granularity, engine.activations.narrow) == ("per_tensor", False)
    assert not get_scheme("engine_int8_asymmetric").activation_symmetric


def test_an_unknown_scheme_is_one_line_with_a_suggestion() -> None:
    with pytest.raises(BackendError, match=r"^unknown scheme 'engine_int'; did you mean 'engine_int8'\?$"):
        get_scheme("engine_int")
    with pytest.raises(BackendError, match=r"^unknown scheme 'zzz'; known: engine_int8, engine_int8_asymmetric$"):
        get_scheme("zzz")


@pytest.mark.parametrize("name", scheme_names())
def test_a_scheme_survives_json(name: str) -> None:
    scheme = get_scheme(name)
    assert Scheme.from_json(json.loads(json.dumps(scheme.to_json()))) == scheme


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"bits": 1}, "bits"),
        ({"bits": 16}, "bits"),
        ({"rounding": "up"}, "half_even, half_up"),
        ({"granularity": "per_row"}, "per_tensor, per_channel"),
        ({"estimator": "guess"}, "min_max"),
        ({"narrow": True, "symmetric": False}, "narrow"),
        ({"estimator": "percentile", "percentile": 0.99}, "percentile"),
    ],
)
def test_impossible_quantizers(choices: dict[str, Any], told: str) -> None:
    with pytest.raises(BackendError, match=told):
        Quantizer(**choices)


def test_impossible_schemes() -> None:
    with pytest.raises(BackendError, match="per_tensor"):
        Scheme("x", Quantizer(), Quantizer(granularity="per_channel"))
    with pytest.raises(BackendError, match="output_error"):
        Scheme("x", Quantizer(estimator="output_error"), Quantizer())


@pytest.mark.parametrize(
    "change", [{"colour": 1}, {"weights": {"bits": 8, "colour": 1}}, {"weights": 3}, {"name": None}]
)
def test_a_broken_scheme_object(change: dict[str, Any]) -> None:
    value = get_scheme("engine_int8").to_json() | change
    with pytest.raises(BackendError):
        Scheme.from_json({key: part for key, part in value.items() if part is not None})


def test_importing_it_imports_no_array_library() -> None:
    program = (
        "import sys, backends.fake_quant.schemes; print({'numpy', 'torch', 'transformers', 'onnx'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
