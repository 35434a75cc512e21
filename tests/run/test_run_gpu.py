"""The steps of tests/run/test_run.py on a machine with an NVIDIA GPU: training and engines find it by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.test_run import Checkout


@pytest.mark.gpu
@pytest.mark.slow
def test_training_and_engines_take_the_gpu(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    ended = checkout.run("run", "small")
    assert ended.returncode == 0, ended.stderr
    records = {record["label"]: record for record in checkout.records()}
    plain = records["torch_fp32"]
    assert plain["device"] == "cuda"
    assert plain["checkpoint"]["train_device"] == "cuda"
    assert plain["memory"]["peak_device_bytes"] > plain["checkpoint"]["weights_bytes"]
    assert records["fake_quant_w8a8"]["device"] == "cuda"
    for label in ("torch_fp32", "fake_quant_w8a8", "onnxruntime_int8", "onnxruntime_int8_dynamic"):
        assert records[label]["status"] in ("ok", "invalid"), records[label]["reason"]
