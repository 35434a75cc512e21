"""The compiled model gives the logits of the eager one, and compiles nothing once it is prepared."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backends import Settings, get_backend
from tests.backends.checkpoints import LENGTH, make_batch, make_checkpoint
from tests.backends.running import real_tokens, run_backend

NAME = "torch_compiled_fp32"


def test_it_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    availability = get_backend(NAME).availability({"gpus": []})
    assert not availability.available
    assert "no-such-compiler" in availability.reason
    assert "CXX" in availability.remedy
    assert get_backend(NAME).availability({"gpus": [], "assumed": True}).available


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_compiled_model_is_the_eager_one_for_all_shapes(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    folder = make_checkpoint(tmp_path / "model", num_hidden_layers=1)
    session = get_backend(NAME).prepare(folder, Settings(LENGTH, 8, 1, tmp_path), "cpu")
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
        f"session = get_backend({NAME!r}).prepare(Path({str(folder)!r}), Settings({LENGTH}, 8, 1, Path({str(tmp_path)!r})), 'cpu')\n"
        "print(session.built, session.build_seconds)"
    )
    root = Path(__file__).resolve().parents[2]
    again = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert again.stdout.split() == ["False", "0.0"]
