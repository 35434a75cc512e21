"""The share of the ceiling, against arithmetic by hand, and in the records of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backends import backend_names, get_backend
from harness.plan.spec import Cell
from harness.records.figure import Figure
from harness.records.speed_schema import Ceiling, Speed, SpeedRound, TurnRound, Turns
from harness.run import roofline as module
from harness.run.context import Run, work_folder
from harness.run.features import write_samples
from harness.run.roofline import float_precision, roofline
from tasks import Features

CEILINGS = [
    Ceiling(precision="fp32", operations_a_second=100e9, how="made up"),
    Ceiling(precision="int8", operations_a_second=400e9, how="made up"),
]


def operations(length: int) -> int:
    """Of a made-up model, with a part that grows with the square, as attention does."""
    return 10**9 * length + 10**8 * length**2


def offer(run: Run, cell: Cell) -> Cell:
    """Sequences of two and four tokens, and ceilings that need no process."""
    ids = np.ones((2, 4), np.int64)
    write_samples(
        work_folder(cell, run) / "samples.npz", Features(ids, ids, np.array([2, 4]), np.arange(2)), count=1024
    )
    run.ceilings[cell.measure.threads] = CEILINGS
    return cell


def speed(load: str, qps: float, **changes: object) -> Speed:
    rounds = [SpeedRound(qps=qps, queries=1, duration_seconds=1.0, warmup_seconds=0.0, warmup_ended="steady")]
    fields = {
        "scenario": "offline", "load": load, "batch_size": 8, "sequence_length": 10, "mean_tokens": 3.5,
        "qps": Figure(value=qps), "rounds": rounds, "timed": "run",
    }  # fmt: skip
    return Speed(**(fields | changes))  # type: ignore[arg-type]


def turns(load: str, *seconds: float) -> Turns:
    rounds = [
        TurnRound(
            together=str(number), work="w", seconds=one, samples=6, tokens=21, batches=1, passes=1, affinity=[0],
            other_cpu_percent=0.0, steal_percent=0.0,
        )
        for number, one in enumerate(seconds)
    ]  # fmt: skip
    return Turns(load=load, batch_size=8, sequence_length=10, rounds=rounds)  # type: ignore[arg-type]


def test_shares_are_as_by_hand(cell: Cell, run: Run) -> None:
    """Two and four tokens take 2.4e9 and 5.6e9 operations: 8e9 for 6 tokens, 4/3 e9 a token. `max_length` tokens take
    operations(max_length)."""
    cell = offer(run, replace(cell, backend="torch_fp32", scheme=None))
    longest = operations(cell.shape.max_length)
    found = roofline(
        cell, run, [speed("real", 3.0), speed("fixed", 2.0)], [turns("real", 2.0, 4.0, 1.0)], operations, 0.0
    )
    assert found is not None
    assert found.floats == "fp32" and found.operations_a_second == pytest.approx(100e9)
    by_hand = {
        ("interleaved", "real"): 21 / 2.0 * 4 / 3 * 1e9,
        ("offline", "real"): 3.0 * 3.5 * 4 / 3 * 1e9,
        ("offline", "fixed"): 2.0 * longest,
    }
    assert {(one.scenario, one.load): one.operations_a_second for one in found.shares} == pytest.approx(by_hand)
    assert {(one.scenario, one.load): one.share for one in found.shares} == pytest.approx(
        {key: rate / 100e9 for key, rate in by_hand.items()}
    )


def test_the_ceiling_of_integer_and_float_products_is_by_their_times(cell: Cell, run: Run) -> None:
    """Of 100 operations 80 run at 400 a second and 20 at 100: 0.2 + 0.2 s."""
    cell = offer(run, replace(cell, backend="onnxruntime_int8"))
    found = roofline(cell, run, [speed("real", 1.0)], [], operations, 0.8)
    assert found is not None
    assert found.operations_a_second == pytest.approx(100e9 / (0.2 + 0.2))


def test_there_is_none_without_speed_on_a_gpu_or_without_a_ceiling(cell: Cell, run: Run) -> None:
    cell = offer(run, replace(cell, backend="torch_fp32"))
    real = [speed("real", 1.0)]
    assert roofline(cell, run, [], [], operations, 0.0) is None
    assert roofline(replace(cell, device="cuda"), run, real, [], operations, 0.0) is None
    assert roofline(replace(cell, backend="torch_bf16"), run, real, [], operations, 0.0) is None
    server = roofline(cell, run, [speed("real", 1.0, scenario="server")], [], operations, 0.0)
    assert server is not None and server.shares == []


def test_ceilings_that_cannot_be_taken_are_said_once(cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    run = replace(run, say=said.append)
    cell = offer(run, replace(cell, backend="torch_fp32"))
    run.ceilings.clear()
    monkeypatch.setattr(module, "TIMEOUT", 0.0)
    for _ in range(2):
        assert roofline(cell, run, [speed("real", 1.0)], [], operations, 0.0) is None
    assert said == ["no ceilings of matrix products: took longer than 0 s and was stopped"]


def test_every_backend_says_what_its_floats_are() -> None:
    kinds = {name: float_precision(get_backend(name)) for name in backend_names()}
    assert {name for name, kind in kinds.items() if kind == "bf16"} == {
        "torch_bf16", "torch_compiled_bf16", "torch_int8_bf16", "openvino_bf16", "openvino_int8_bf16",
    }  # fmt: skip
    assert {name for name, kind in kinds.items() if kind == "fp16"} == {
        "torch_fp16",
        "torch_compiled_fp16",
        "torch_int8_fp16",
        *(name for name in kinds if name.startswith("tensorrt")),
    }
