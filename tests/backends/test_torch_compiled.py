"""The compiled model gives the logits of the eager one, and compiles nothing once it is prepared."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import Device, Settings, get_backend
from tests.backends.checkpoints import LENGTH, make_batch, make_checkpoint
from tests.backends.running import real_tokens, run_backend

NAME = "torch_compiled_fp32"


pytestmark = pytest.mark.xdist_group("compiled")  # the tests share what the compiler makes of PyTorch's headers


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    """PyTorch keeps what it compiled by the code of a model's class, for other weights as well."""
    import torch

    torch._dynamo.reset()


def test_it_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    availability = get_backend(NAME).availability({"gpus": []})
    assert not availability.available
    assert "no-such-compiler" in availability.reason
    assert "CXX" in availability.remedy
    assert get_backend(NAME).availability({"gpus": [], "assumed": True}).available


@pytest.mark.parametrize(
    ("name", "machine", "device", "reason"),
    [
        ("torch_compiled_bf16", {"gpus": [], "flags": ["avx2"]}, None, "no bfloat16 arithmetic"),
        ("torch_compiled_bf16", {"gpus": [], "flags": ["amx_bf16"]}, "cpu", ""),
        ("torch_compiled_fp16", {"gpus": [], "flags": ["amx_bf16"]}, None, "no NVIDIA GPU"),
        ("torch_fp16", {"gpus": [], "flags": ["amx_bf16"]}, None, "no NVIDIA GPU"),
        ("torch_compiled_fp16", {"gpus": [{"name": "a"}], "assumed": True}, "cuda", ""),
        ("torch_fp16", {"gpus": [{"name": "a"}], "assumed": True}, "cuda", ""),
    ],
)
def test_types_run_where_they_are_not_emulated(
    name: str, machine: dict[str, Any], device: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", sys.executable)  # a program that is there
    availability = get_backend(name).availability(machine)
    assert availability.available == (device is not None)
    assert reason in availability.reason
    assert device is None or availability.device == device


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_compiled_model_is_the_eager_one_for_all_shapes(tmp_path: Path, cache: Path) -> None:
    from torch._dynamo.utils import counters

    folder = make_checkpoint(tmp_path / "model", num_hidden_layers=1)
    session = get_backend(NAME).prepare(folder, Settings(LENGTH, 8, 1, cache), "cpu")
    assert session.built
    assert session.build_seconds > 0
    graphs = counters["stats"]["unique_graphs"]
    for batch in (
        make_batch(1),
        make_batch(2, rows=1, length=7),
        make_batch(3, rows=8),
        make_batch(4, rows=2, length=9),
    ):
        expected = run_backend("torch_fp32", folder, batch, tmp_path)
        assert np.abs(real_tokens(session.run(batch), batch) - real_tokens(expected, batch)).max() < 1e-4
    assert counters["stats"]["unique_graphs"] == graphs
    placement = session.placement()
    assert placement.notes == ()
    assert set(placement.nodes) == {"cpu float32"}
    session.close()

    program = (
        "from pathlib import Path; from backends import Settings, get_backend\n"
        f"session = get_backend({NAME!r}).prepare(Path({str(folder)!r}), Settings({LENGTH}, 8, 1, Path({str(cache)!r})), 'cpu')\n"
        "print(session.built, session.build_seconds)"
    )
    root = Path(__file__).resolve().parents[2]
    again = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert again.stdout.split() == ["False", "0.0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bound", "device"),
    [("torch_compiled_bf16", 0.1, "cpu"), pytest.param("torch_compiled_fp16", 0.01, "cuda", marks=pytest.mark.gpu)],
)
def test_half_precision_is_the_eager_model(
    name: str, bound: float, device: Device, tmp_path: Path, cache: Path
) -> None:
    if device == "cpu" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    folder = make_checkpoint(tmp_path / "model", num_hidden_layers=1)
    session = get_backend(name).prepare(folder, Settings(LENGTH, 8, 1, cache), device)
    batch = make_batch(3, rows=8)
    expected = real_tokens(run_backend("torch_fp32", folder, batch, tmp_path), batch)
    given = real_tokens(session.run(batch), batch)
    assert 0 < np.abs(given - expected).max() < bound * max(1.0, float(np.abs(expected).max()))
    assert set(session.placement().nodes) == {f"{device} {'bfloat16' if 'bf16' in name else 'float16'}"}
    session.close()
