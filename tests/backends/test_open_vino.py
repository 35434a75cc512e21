"""OpenVINO gives the logits of the same model, from the same files as ONNX Runtime, and says what its products ran in."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import BackendError, Placement, Settings, get_backend
from backends.checkpoint import read_architecture
from backends.processor import saturates_integer_products
from harness.machine.hardware import describe
from tests.backends.checkpoints import LENGTH, add_ranges, make_batch, make_checkpoint
from tests.backends.running import real_tokens, run_backend, run_real_tokens

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")

LINEAR = 2 * LENGTH * (4 * 64 * 64 + 2 * 64 * 128)
"""Multiply-accumulates of the encoder's linear layers: 2 layers x 48 tokens x (4 x 64 x 64 + 2 x 64 x 128)."""


def placement_of(name: str, folder: Path, cache: Path) -> Placement:
    session = get_backend(name).prepare(folder, Settings(LENGTH, 8, 1, cache), "cpu")
    try:
        return session.placement()
    finally:
        session.close()


def seven_bit_weights(folder: Path) -> Path:
    """A checkpoint whose integer products saturate on no processor: 2 x 255 x 63 < 2 ** 15."""
    from backends.fake_quant.calibrate import calibrate_model
    from backends.ranges import Ranges, write_ranges
    from backends.schemes import get_scheme
    from backends.torch_models import load_model

    made = make_checkpoint(folder)
    scheme = get_scheme("engine_int8")
    scheme = replace(scheme, weights=replace(scheme.weights, bits=7))
    model = load_model(made, read_architecture(made))
    tensors, facts = calibrate_model(model, [make_batch(seed) for seed in range(100, 104)], scheme)
    write_ranges(made, Ranges(scheme, tensors, facts))
    return made


@pytest.mark.parametrize(
    "sizes",
    [{}, {"labels": 3}, {"hidden_act": "gelu_new"}, {"hidden_act": "relu", "labels": 1}, {"num_attention_heads": 1}],
)
def test_float32_agrees_with_pytorch_and_onnx_runtime_to_1e_4(tmp_path: Path, sizes: dict[str, Any]) -> None:
    folder = make_checkpoint(tmp_path / "model", **sizes)
    for batch in (make_batch(1), make_batch(2, rows=1, length=7), make_batch(3, rows=8)):
        ours = run_backend("openvino_fp32", folder, batch, tmp_path)
        assert ours.dtype == np.float32
        for name in ("torch_fp32", "onnxruntime_fp32"):
            expected = run_backend(name, folder, batch, tmp_path)
            assert ours.shape == expected.shape
            assert np.abs(real_tokens(ours, batch) - real_tokens(expected, batch)).max() < 1e-4


def test_float32_has_nothing_narrower(tmp_path: Path) -> None:
    placement = placement_of("openvino_fp32", make_checkpoint(tmp_path / "model"), tmp_path)
    assert placement.int8_macs == 0
    assert placement.total_macs > LINEAR
    assert not {"CPU bf16", "CPU f16", "CPU u8", "CPU i8"} & set(placement.nodes)
    assert placement.nodes["CPU f32"] > 14
    assert placement.notes == ()


def test_int8_is_the_simulation_where_no_product_saturates(tmp_path: Path) -> None:
    """As ONNX Runtime is: they differ by float32 rounding, quantization changes the logits a hundred times as much."""
    folder, batch = seven_bit_weights(tmp_path / "model"), make_batch(4)
    simulated, exact = (run_real_tokens(name, folder, batch, tmp_path) for name in ("fake_quant_w8a8", "torch_fp32"))
    moved = np.abs(simulated - exact).max()
    assert moved > 1e-3
    for name in ("openvino_int8", "onnxruntime_int8"):
        assert np.abs(run_real_tokens(name, folder, batch, tmp_path) - simulated).max() < moved / 100


def test_products_that_saturate_are_said_to(tmp_path: Path) -> None:
    """With 8-bit weights the engine is the simulation on processors with VNNI; on others it is not, which a note says."""
    folder, batch = make_checkpoint(tmp_path / "model"), make_batch(4)
    add_ranges(folder)
    simulated, exact, engine = (
        run_real_tokens(name, folder, batch, tmp_path) for name in ("fake_quant_w8a8", "torch_fp32", "openvino_int8")
    )
    moved, apart = np.abs(simulated - exact).max(), np.abs(engine - simulated).max()
    notes = " ".join(placement_of("openvino_int8", folder, tmp_path).notes)
    assert (apart > moved / 100) == saturates_integer_products() == ("saturate" in notes)
    assert np.abs(engine - exact).max() < 10 * moved


@pytest.mark.parametrize(
    ("scheme", "labels", "integer"),
    [
        ("engine_int8", None, LINEAR),
        ("engine_int8_asymmetric", None, LINEAR),
        ("q8bert", None, LINEAR + LENGTH * 64 * 2),
        ("q8bert", 3, LINEAR + 64 * 64 + 64 * 3),
    ],
)
def test_integer_products_are_counted_as_by_hand(tmp_path: Path, scheme: str, labels: int | None, integer: int) -> None:
    folder = make_checkpoint(tmp_path / "model", labels=labels)
    add_ranges(folder, scheme)
    placement = placement_of("openvino_int8", folder, tmp_path)
    assert placement.int8_macs == placement.promised_macs == integer
    assert placement.int8_macs == placement_of("onnxruntime_int8", folder, tmp_path).int8_macs
    assert placement.total_macs == placement_of("torch_fp32", folder, tmp_path).total_macs


def test_attention_that_a_scheme_rounds_is_promised_in_integers(tmp_path: Path) -> None:
    """Without VNNI, OpenVINO runs it in float32: by `promised_macs` such a cell is invalid."""
    folder = make_checkpoint(tmp_path / "model")
    add_ranges(folder, "aimet_w8a8")
    placement = placement_of("openvino_int8", folder, tmp_path)
    linear, attention = LINEAR + LENGTH * 64 * 2, 2 * 2 * LENGTH * LENGTH * 64
    assert placement.promised_macs == placement.total_macs == linear + attention
    assert placement.int8_macs in (linear, linear + attention)


def test_both_engines_load_one_file(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    add_ranges(folder)
    sessions = [
        get_backend(name).prepare(folder, Settings(LENGTH, 8, 1, tmp_path), "cpu")
        for name in ("onnxruntime_int8", "openvino_int8")
    ]
    assert [session.built for session in sessions] == [True, False]
    assert sessions[0].artifact_bytes == sessions[1].artifact_bytes
    assert len(list((tmp_path / "onnx").glob("*.onnx"))) == 1


def test_logits_are_not_overwritten_by_the_next_batch(tmp_path: Path) -> None:
    session = get_backend("openvino_fp32").prepare(
        make_checkpoint(tmp_path / "model"), Settings(LENGTH, 8, 1, tmp_path), "cpu"
    )
    first = session.run(make_batch(1))
    kept = first.copy()
    session.run(make_batch(2))
    assert (first == kept).all()


def test_bfloat16_is_unavailable_without_it() -> None:
    for name in ("openvino_bf16", "openvino_int8_bf16"):
        availability = get_backend(name).availability({"flags": ["avx2", "avx512_vnni"], "gpus": []})
        assert not availability.available
        assert "no bfloat16" in availability.reason
        assert availability.remedy
        assert get_backend(name).availability({"flags": ["avx512_bf16"], "gpus": []}).available


def test_bfloat16_is_never_replaced_silently(tmp_path: Path) -> None:
    """Whatever a machine's description says."""
    folder, flags = make_checkpoint(tmp_path / "model"), set(describe().flags)
    if {"avx512_bf16", "amx_bf16"} & flags:
        assert placement_of("openvino_bf16", folder, tmp_path).nodes["CPU bf16"]
    elif "avx512f" not in flags:  # with it, OpenVINO may do without
        with pytest.raises(BackendError, match="computes in f32 on this processor, not in bf16"):
            placement_of("openvino_bf16", folder, tmp_path)


def test_a_file_that_is_no_graph_is_an_error_of_one_line(tmp_path: Path) -> None:
    """One whose hash is right; any other is made again."""
    from backends.artefacts import move_sealed
    from backends.export import export_cached

    folder = make_checkpoint(tmp_path / "model")
    path, _ = export_cached(folder, tmp_path)
    (part := tmp_path / "part").write_bytes(b"no graph")
    move_sealed(part, path)
    with pytest.raises(BackendError, match=r"OpenVINO cannot load it \(.*\); delete the file") as raised:
        run_backend("openvino_fp32", folder, make_batch(1), tmp_path)
    assert "\n" not in str(raised.value)


def test_a_process_imports_no_torch_and_reports_to_nobody(tmp_path: Path) -> None:
    """OpenVINO's converter would send an event over the network, and leave an identity in the home folder."""
    folder = make_checkpoint(tmp_path / "model")
    program = (
        "import sys; from pathlib import Path; from backends import Settings, get_backend\n"
        f"get_backend('openvino_fp32').prepare(Path({str(folder)!r}), Settings(48, 8, 1, Path({str(tmp_path)!r})), 'cpu')\n"
        "unwanted = ('torch', 'transformers', 'openvino_telemetry', 'openvino.tools.ovc')\n"
        "print([name for name in unwanted if name in sys.modules])"
    )
    home = tmp_path / "home"
    home.mkdir()
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert list(home.iterdir()) == []
