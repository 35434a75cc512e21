"""The same checks on the CPU and, with `-m gpu`, on an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from onnxruntime import get_available_providers

from backends import BackendError, Placement, Settings, get_backend
from backends.fake_quant.calibrate import calibrate
from tests.backends.checkpoints import LENGTH, add_ranges, make_batch, make_checkpoint

Array = np.ndarray[Any, Any]
Device = Literal["cpu", "cuda"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module", params=[None, 3], ids=["question_answering", "classification"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_checkpoint(tmp_path_factory.mktemp("model"), labels=request.param)
    add_ranges(folder)
    return folder


def run(name: str, folder: Path, device: Device, cache: Path) -> tuple[Array, Placement]:
    """Logits of the real tokens (of each row, for a classifier), and the placement."""
    batch = make_batch(6)
    session = get_backend(name).prepare(folder, Settings(LENGTH, 8, 1, cache), device)
    try:
        logits = session.run(batch)
        return logits[batch["attention_mask"].astype(bool)] if logits.ndim == 3 else logits, session.placement()
    finally:
        session.close()


def exact(folder: Path) -> Array:
    """Logits of transformers' own model in double precision on the CPU."""
    from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, BertConfig

    asks = "ForQuestionAnswering" in str(BertConfig.from_pretrained(folder).architectures)
    factory: Any = AutoModelForQuestionAnswering if asks else AutoModelForSequenceClassification
    model = factory.from_pretrained(folder).double().train(False)
    batch = make_batch(6)
    with torch.inference_mode():
        outputs = model(**{name: torch.from_numpy(values) for name, values in batch.items()})
    if not asks:
        return np.asarray(outputs.logits)
    both = torch.stack((outputs.start_logits, outputs.end_logits), -1).numpy()
    return np.asarray(both[batch["attention_mask"].astype(bool)])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("name", "bound"), [("torch_fp32", 1e-4), ("torch_bf16", 0.1), ("torch_fp16", 0.01), ("onnxruntime_fp32", 1e-4)]
)
def test_floating_point_is_the_model(checkpoint: Path, tmp_path: Path, device: Device, name: str, bound: float) -> None:
    """float32 must not be TF32, which keeps 10 bits of the fraction and would be wrong by about 1e-3."""
    if name.startswith("onnxruntime") and f"{device.upper()}ExecutionProvider" not in get_available_providers():
        pytest.skip(f"this ONNX Runtime has nothing for {device}")
    logits, placement = run(name, checkpoint, device, tmp_path)
    reference = exact(checkpoint)
    assert np.abs(logits - reference).max() < bound * max(1.0, float(np.abs(reference).max()))
    assert name.startswith("onnxruntime") or set(placement.nodes) == {placement.claimed}
    assert placement.claimed.lower().startswith(device)


def test_a_provider_that_does_not_load_is_an_error_and_no_fall_back(checkpoint: Path, tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in get_available_providers():
        pytest.skip("this ONNX Runtime has the provider")
    with pytest.raises(BackendError, match="CUDAExecutionProvider does not load"):
        run("onnxruntime_fp32", checkpoint, "cuda", tmp_path)


@pytest.mark.parametrize("device", DEVICES)
def test_the_simulation_does_not_depend_on_the_device(checkpoint: Path, tmp_path: Path, device: Device) -> None:
    """It differs from ONNX Runtime's integers by float32 rounding; quantization changes the logits a hundred times as much."""
    simulated, placement = run("fake_quant_w8a8", checkpoint, device, tmp_path)
    integers, _ = run("onnxruntime_int8", checkpoint, "cpu", tmp_path)
    moved = np.abs(simulated - exact(checkpoint)).max()
    assert np.abs(simulated - integers).max() < moved / 100
    assert device in placement.claimed


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_calibration_finds_the_same_ranges(checkpoint: Path, device: Device) -> None:
    """Of a symmetric scheme. An estimator that searches may stop one step earlier or later."""
    batches = [make_batch(seed) for seed in range(100, 104)]
    on_cpu = calibrate(checkpoint, batches, "engine_int8", 1, "cpu")
    on_device = calibrate(checkpoint, batches, "engine_int8", 1, device)
    assert list(on_cpu.tensors) == list(on_device.tensors)
    for name, tensor in on_cpu.tensors.items():
        ratio = on_device.tensors[name].scale / tensor.scale
        assert np.all((ratio > 0.9) & (ratio < 1.1)), name


@pytest.mark.gpu
def test_memory_of_the_device_is_read(checkpoint: Path, tmp_path: Path) -> None:
    from harness.measure.memory import device_peak_bytes

    run("torch_fp32", checkpoint, "cuda", tmp_path)
    peak = device_peak_bytes()
    weights = (checkpoint / "model.safetensors").stat().st_size
    assert peak is not None
    assert peak > weights
