"""The integer layers compute what integers give, by NumPy's 64-bit sums, and a model of them what the simulation gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends import BackendError, Settings, get_backend
from backends.checkpoint import read_architecture
from backends.fake_quant.calibrate import calibrate
from backends.fake_quant.simulate import simulate
from backends.integer_linear import IntegerLinear, Products, install
from backends.processor import saturates_integer_products
from backends.ranges import TensorRange, read_ranges, write_ranges
from backends.schemes import Quantizer
from backends.torch_models import load_model
from harness.plan.fit import why_scheme_unfit
from tests.backends.checkpoints import LENGTH, make_batch
from tests.backends.family_checkpoints import make_family_checkpoint
from tests.backends.running import real_tokens

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("products", ["onednn", "int_mm"])
@pytest.mark.parametrize(("zero_point", "narrow"), [(0, True), (-40, False)])
@pytest.mark.parametrize("shape", [(1, 24), (3, 5, 24)])
def test_a_layer_multiplies_integers(products: Products, zero_point: int, narrow: bool, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(-60, 60, (10, 24)).astype(
        np.int8
    )  # a pair with uint8 fits 16 bits: exact without VNNI as well
    scales, bias = rng.uniform(0.01, 0.1, 10).astype(np.float32), rng.normal(size=10).astype(np.float32)
    grid = Quantizer(symmetric=narrow, narrow=narrow)
    inputs = TensorRange("activation", np.array([0.02], np.float32), np.array([zero_point], np.int32), None, grid)
    values = rng.normal(0, 2, shape).astype(np.float32)
    with torch.inference_mode():
        given = IntegerLinear(codes, scales, inputs, bias, products)(torch.from_numpy(values)).numpy()
    steps = np.clip(np.rint(values * (np.float32(1) / np.float32(0.02))) + zero_point, grid.low, grid.high)
    sums = (steps.astype(np.int64) - zero_point) @ codes.T.astype(np.int64)
    expected = sums * (scales.astype(np.float64) * np.float64(np.float32(0.02))) + bias
    assert given.shape == (*shape[:-1], 10)
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-4)


def logits(folder: Path, change: Callable[[Any], object]) -> Array:
    """Of the real tokens."""
    model: Any = load_model(folder, read_architecture(folder))
    change(model)
    batch = make_batch(4, rows=8)
    with torch.inference_mode():
        out = model(**{name: torch.from_numpy(values) for name, values in batch.items()})
    given: Array = torch.stack((out.start_logits, out.end_logits), -1).numpy()
    return real_tokens(given, batch)


@pytest.mark.parametrize(
    ("model_type", "scheme"),
    [
        ("bert", "engine_int8"),
        ("bert", "engine_int8_asymmetric"),
        ("bert", "q8bert"),
        ("bert", 'engine_int8 with keep_float = ["*.0.output.dense"]; smoothing = 0.5'),
        ("distilbert", "engine_int8"),
        ("modernbert", "engine_int8"),
    ],
)
def test_a_model_equals_its_simulation(model_type: str, scheme: str, tmp_path: Path) -> None:
    """A sum in another order may move a value over a tie: few logits then differ, and less than rounding itself changes them."""
    folder = make_family_checkpoint(tmp_path / "model", model_type, None)
    write_ranges(folder, calibrate(folder, [make_batch(1, rows=8)], scheme, 1))
    ranges = read_ranges(folder)
    plain = logits(folder, lambda model: None)
    simulated = logits(folder, lambda model: simulate(model, ranges))
    integer = logits(folder, lambda model: install(model, ranges, "int_mm"))
    rounding, difference = np.abs(simulated - plain).max(), np.abs(integer - simulated)
    assert rounding > 1e-3
    assert (difference > 1e-5).mean() < 0.1
    assert difference.max() < 0.7 * rounding


@pytest.mark.parametrize(
    ("name", "machine", "device", "reason"),
    [
        ("torch_int8", {"gpus": [], "flags": ["avx2"]}, None, "no VNNI"),
        ("torch_int8", {"gpus": [], "flags": ["avx512_vnni"]}, "cpu", ""),
        ("torch_int8_bf16", {"gpus": [], "flags": ["avx512_vnni"]}, None, "no bfloat16"),
        ("torch_int8_bf16", {"gpus": [], "flags": ["amx_int8", "amx_bf16"]}, "cpu", ""),
        ("torch_int8_fp16", {"gpus": [], "flags": ["amx_int8"]}, None, "no NVIDIA GPU"),
        ("torch_int8_fp16", {"gpus": [{"name": "a"}], "flags": ["avx2"], "assumed": True}, "cuda", ""),
    ],
)
def test_it_runs_where_integer_products_are_exact(
    name: str, machine: dict[str, Any], device: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "python3")  # a program that is there
    availability = get_backend(name).availability(machine)
    assert availability.available == (device is not None)
    assert reason in availability.reason
    assert device is None or availability.device == device


def test_plan_and_run_refuse_what_it_cannot_have(tmp_path: Path) -> None:
    from harness.suite.backend_checks import why_unsupported

    backend = get_backend("torch_int8")
    assert "every operator" in why_unsupported(backend, "aimet_w8a8")
    assert not why_unsupported(backend, "q8bert")
    folder = make_family_checkpoint(tmp_path / "model", "deberta-v2", None)
    write_ranges(folder, calibrate(folder, [make_batch(1, rows=2)], "engine_int8", 1))
    unfit = why_scheme_unfit(folder, "engine_int8", "question_answering", linears_only=True)
    assert unfit is not None
    with pytest.raises(BackendError, match=unfit[0]):
        backend.prepare(folder, Settings(LENGTH, 8, 1, tmp_path), "cpu")
    assert why_scheme_unfit(folder, "engine_int8", "question_answering") is None


@pytest.mark.slow
@pytest.mark.xdist_group("compiled")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_compiled_model_is_the_eager_one(tmp_path: Path) -> None:
    torch._dynamo.reset()
    folder = make_family_checkpoint(tmp_path / "model", "bert", None, num_hidden_layers=1)
    write_ranges(folder, calibrate(folder, [make_batch(1, rows=8)], "engine_int8", 1))
    session = get_backend("torch_int8").prepare(folder, Settings(LENGTH, 8, 1, tmp_path / "cache"), "cpu")
    batch = make_batch(4, rows=8)
    given = real_tokens(session.run(batch), batch)
    eager = logits(folder, lambda model: install(model, read_ranges(folder), "onednn"))
    np.testing.assert_allclose(given, eager, atol=1e-4)
    placement = session.placement()
    assert placement.nodes["cpu int8"] == 6  # the linear layers of one layer
    architecture = read_architecture(folder)
    attention = sum(architecture.attention_macs(LENGTH).values())
    head = architecture.linear_macs("qa_outputs", LENGTH)
    assert placement.int8_macs == placement.total_macs - attention - head == placement.promised_macs
    assert any("no VNNI" in note for note in placement.notes) == saturates_integer_products()
    session.close()


@pytest.mark.gpu
@pytest.mark.slow
def test_on_a_gpu(tmp_path: Path) -> None:
    folder = make_family_checkpoint(tmp_path / "model", "bert", None)
    write_ranges(folder, calibrate(folder, [make_batch(1, rows=8)], "engine_int8", 1))
    session = get_backend("torch_int8_fp16").prepare(folder, Settings(LENGTH, 8, 1, tmp_path / "cache"), "cuda")
    batch = make_batch(4, rows=8)
    given = real_tokens(session.run(batch), batch)
    ranges = read_ranges(folder)
    plain = logits(folder, lambda model: None)
    rounding = np.abs(logits(folder, lambda model: simulate(model, ranges)) - plain).max()
    assert np.abs(given - plain).max() < 4 * rounding + 0.01 * np.abs(plain).max()
    session.close()
