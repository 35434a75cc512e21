"""Quantizers and schemes: their values, what they reject, and that importing them is cheap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends import BackendError
from backends.schemes import Quantizer, Scheme, get_scheme, scheme_names
from harness.machine.digests import digest
from harness.plan.spec import SCHEME_VERSIONS


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


def test_schemes_are_those_of_their_versions() -> None:
    """Raise SCHEME_VERSIONS with every change, or ranges and weights of the old scheme are taken for those of the new one."""
    assert {
        name: (SCHEME_VERSIONS.get(name, 1), digest(get_scheme(name).to_json())[:12]) for name in scheme_names()
    } == {
        "engine_int8": (1, "aa6819c074cf"),
        "engine_int8_asymmetric": (1, "996e3df13e11"),
        "q8bert": (2, "650dac81622d"),
        "aimet_w8a8": (1, "adb59bd42fef"),
        "vitis_pof2": (1, "04dc877080b9"),
    }


def test_an_unknown_scheme_is_one_line_with_a_suggestion() -> None:
    with pytest.raises(BackendError, match=r"^unknown scheme 'engine_int'; did you mean 'engine_int8'\?$"):
        get_scheme("engine_int")
    with pytest.raises(
        BackendError, match=r"^unknown scheme 'zzz'; known: engine_int8, engine_int8_asymmetric, q8bert, "
    ):
        get_scheme("zzz")


@pytest.mark.parametrize("name", scheme_names())
def test_a_scheme_survives_json(name: str) -> None:
    scheme = get_scheme(name)
    assert Scheme.from_json(json.loads(json.dumps(scheme.to_json()))) == scheme


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"bits": 1}, "bits"),
        ({"bits": 16}, "bits"),
        ({"rounding": "up"}, "half_even, half_up"),
        ({"granularity": "per_row"}, "per_tensor, per_channel"),
        ({"estimator": "guess"}, "min_max"),
        ({"narrow": True, "symmetric": False}, "narrow"),
        ({"estimator": "percentile", "percentile": 0.99}, "percentile"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"training": "hope"}, "learn, follow"),
        ({"power_of_two": True, "symmetric": False}, "power-of-two"),
        ({"estimator": "mode"}, "power_of_two"),
    ],
)
def test_impossible_quantizers(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        Quantizer(**choices)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"activations": Quantizer(granularity="per_channel")}, "per_tensor"),
        ({"weights": Quantizer(estimator="output_error")}, "output_error"),
        ({"weights": Quantizer(estimator="ema")}, "ema is an estimator for activations"),
        ({"weights": Quantizer(symmetric=False)}, "symmetric"),
        ({"tensors": "all"}, "encoder_linears, linears, op_outputs"),
        ({"padding": "none"}, "longest, max_length"),
        ({"activations": Quantizer(estimator="output_error"), "tensors": "linears"}, "encoder_linears"),
        ({"biases": Quantizer(granularity="per_channel")}, "per_tensor"),
        ({"biases": "int32", "tensors": "op_outputs"}, "int32 biases"),
        ({"mask": -6.0}, "op_outputs"),
        ({"mask": 6.0, "tensors": "op_outputs"}, "negative"),
    ],
)
def test_impossible_schemes(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=rf"scheme 'x': .*{message}"):
        Scheme("x", **{"weights": Quantizer(), "activations": Quantizer(), **parts})


def test_older_schemes_keep_their_json() -> None:
    """The bytes of `ranges.json` are part of the keys under which engines cache what they build."""
    assert json.dumps(get_scheme("engine_int8").to_json()) == (
        '{"name": "engine_int8", "weights": {"bits": 8, "symmetric": true, "narrow": true, "granularity": "per_channel",'
        ' "power_of_two": false, "rounding": "half_even", "estimator": "min_max", "percentile": 100.0}, "activations":'
        ' {"bits": 8, "symmetric": true, "narrow": false, "granularity": "per_tensor", "power_of_two": false, "rounding":'
        ' "half_even", "estimator": "output_error", "percentile": 100.0}, "tensors": "encoder_linears"}'
    )


def test_published_schemes_are_what_was_published() -> None:
    q8bert, aimet, vitis = (get_scheme(name) for name in ("q8bert", "aimet_w8a8", "vitis_pof2"))
    assert (q8bert.weights.low, q8bert.activations.low, q8bert.activations.ema_decay) == (-127, -127, 0.9999)
    assert (q8bert.biases, q8bert.embeddings, q8bert.tensors) == ("int32", True, "linears")
    assert q8bert.weights.training == q8bert.activations.training == "follow"
    assert (aimet.mask, aimet.padding, aimet.biases, aimet.activations.symmetric) == (-6.0, "max_length", None, False)
    assert aimet.activations.training == "learn"
    assert vitis.weights.power_of_two
    assert isinstance(vitis.biases, Quantizer)
    assert vitis.biases.power_of_two
    assert (vitis.activations.rounding, vitis.weights.rounding, vitis.activations.estimator) == (
        "half_up", "half_even", "mode",
    )  # fmt: skip
    assert not q8bert.simulation_only
    assert not aimet.simulation_only
    assert "ties up" in vitis.simulation_only


@pytest.mark.parametrize(
    "change", [{"colour": 1}, {"weights": {"bits": 8, "colour": 1}}, {"weights": 3}, {"name": None}]
)
def test_a_broken_scheme_object(change: dict[str, Any]) -> None:
    value = get_scheme("engine_int8").to_json() | change
    with pytest.raises(BackendError):
        Scheme.from_json({key: part for key, part in value.items() if part is not None})


def test_importing_it_imports_no_array_library() -> None:
    program = "import sys, backends.schemes; print({'numpy', 'torch', 'transformers', 'onnx'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
