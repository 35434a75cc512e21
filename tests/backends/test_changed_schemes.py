"""Schemes of a user's own: a base with changes, which every process and record knows by its name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backends import BackendError, Settings, get_backend
from backends.checkpoint import Weights, read_architecture
from backends.ranges import read_ranges
from backends.schemes import changed_scheme, describe, get_scheme, scheme_names
from backends.tensor_names import weight_names
from tests.backends.checkpoints import add_ranges, make_batch, make_checkpoint


def test_the_name_says_the_changes_and_gives_the_scheme() -> None:
    changes = {
        "weights": {"granularity": "per_tensor"},
        "activations": {"estimator": "percentile", "percentile": 99.9, "symmetric": False},
        "keep_float": ["*.output.dense"],
    }
    name = changed_scheme("engine_int8", changes)
    assert name == (
        'engine_int8 with activations.estimator = "percentile"; activations.percentile = 99.9; activations.symmetric = false;'
        ' keep_float = ["*.output.dense"]; weights.granularity = "per_tensor"'
    )
    scheme = get_scheme(name)
    assert (scheme.activations.percentile, scheme.activations.symmetric, scheme.name) == (99.9, False, name)
    assert scheme.from_json(json.loads(json.dumps(scheme.to_json()))) == scheme
    assert "percentile 99.9" in describe(scheme)["activations"]
    assert changed_scheme("engine_int8", {}) == "engine_int8"
    assert set(describe(get_scheme("engine_int8"))) == set(describe(scheme))
    assert name not in scheme_names()


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        ("engine_int9", {}, "did you mean 'engine_int8'"),
        ("engine_int8", {"weights": {"estimator": "ema"}}, "for activations only"),
        ("engine_int8", {"weights": {"symmetric": False}}, "'weights.symmetric' cannot be changed"),
        ("q8bert", {"activations": {"estimator": "output_error"}}, "encoder_linears"),
        ("aimet_w8a8", {"keep_float": ["*"]}, "linear layers only"),
        ("vitis_pof2", {"activations": {"symmetric": False}}, "power-of-two"),
    ],
)
def test_changes_that_make_no_scheme_are_refused(base: str, changes: dict[str, object], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        changed_scheme(base, changes)


def test_layers_that_stay_float(tmp_path: Path) -> None:
    """Of a scheme that keeps all layers, ONNX Runtime computes what the float model computes; of one that keeps some, the others
    alone are rounded."""
    folder = make_checkpoint(tmp_path / "model")
    architecture = read_architecture(folder)
    some = changed_scheme("engine_int8", {"keep_float": ["encoder.layer.0.*", "*.key"]})
    assert weight_names(architecture, get_scheme(some)) == [
        f"encoder.layer.1.{name}" for name in ("attention.output.dense", "intermediate.dense", "output.dense")
    ]  # query, key and value read one tensor
    add_ranges(folder, some)
    assert set(read_ranges(folder).tensors) == {
        f"{name}.{part}" for name in weight_names(architecture, get_scheme(some)) for part in ("weight", "input")
    }
    settings = Settings(max_length=48, max_batch=4, threads=1, cache=tmp_path / "cache")
    batch = make_batch(1)
    logits = {}
    for name in ("torch_fp32", "fake_quant_w8a8", "onnxruntime_int8"):
        session = get_backend(name).prepare(folder, settings, "cpu")
        logits[name] = session.run(batch)
        placement = session.placement()
        session.close()
        if name == "onnxruntime_int8":
            linears = architecture.linears()
            macs = sum(
                48 * linears[layer][0] * linears[layer][1] for layer in weight_names(architecture, get_scheme(some))
            )
            assert placement.int8_macs == macs
    rounding = np.abs(logits["fake_quant_w8a8"] - logits["torch_fp32"]).max()
    assert rounding > 1e-3
    assert np.abs(logits["fake_quant_w8a8"] - logits["onnxruntime_int8"]).max() < 0.2 * rounding
    assert len(list(Weights(folder, architecture))) > 0


def test_a_pattern_that_no_layer_has_is_one_line(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    with pytest.raises(
        BackendError, match=r"keep_float: no linear layer is called 'layer.0.\*'; there are encoder.layer.0"
    ):
        add_ranges(folder, changed_scheme("engine_int8", {"keep_float": ["layer.0.*"]}))
