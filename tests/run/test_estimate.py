"""Estimated durations, compared with ones computed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.plan.spec import folder_of
from harness.run import estimate
from tests.plan.test_plan import Make, identity, make

__all__ = ["make"]

RATE = 1e6


def tiny_flops(tokens: int) -> float:
    """Of a forward pass through two layers, 128 wide and 512 inside: a multiplication and an addition a weight."""
    return 2 * 2 * (tokens * (4 * 128**2 + 2 * 128 * 512) + 2 * tokens**2 * 128)


def estimates(make: Make, monkeypatch: pytest.MonkeyPatch, cache: Path, *, gpu: bool = False) -> list[str]:
    monkeypatch.setattr(estimate, "flops_per_second", lambda: RATE)
    plan = make()
    cells = [cell for cell in plan.cells if cell.model == "tiny" and cell.backend == "torch_fp32" and cell.seed == 1]
    cells = [replace(cell, blocked=None) for cell in cells]  # random weights are not trained on real data
    assert len(cells) == 2
    plan = type(plan)(plan.suite, tuple(cells), on_sample=True)
    return list(estimate.estimate(plan, {}, cache, identity(), fresh=False, gpu=gpu))


def minutes(line: str) -> float:
    number, unit = line.removeprefix("about ").split(":")[0].split()[:2]
    return float(number) * {"s": 1 / 60, "min": 1, "h": 60}[unit]


def test_typical_lengths_of_each_task(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    squad, _, cola, _, whole = estimates(make, monkeypatch, tmp_path)
    by_hand = {"squad_v1": 9 * 3 * 3 * tiny_flops(176), "glue/cola": 9 * 10 * 3 * tiny_flops(11)}
    for line, task in ((squad, "squad_v1"), (cola, "glue/cola")):
        assert f"finetune tiny on {task}, seed 1" in line
        assert minutes(line) * 60 == pytest.approx(5 + by_hand[task] / RATE, rel=0.05)
    assert "in all" in whole


def test_a_checkpoint_in_the_cache_costs_nothing(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cell = next(cell for cell in make().cells if cell.model == "tiny" and cell.task == "glue/cola")
    folder_of(cell.checkpoint, tmp_path).mkdir(parents=True)
    lines = estimates(make, monkeypatch, tmp_path)
    assert [line for line in lines if "finetune" in line] == [lines[0]] and "squad_v1" in lines[0]


def test_a_gpu_trains_checkpoints_of_cells_on_the_cpu(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    squad, on_cpu, *_ = estimates(make, monkeypatch, tmp_path)
    faster, still_on_cpu, *_ = estimates(make, monkeypatch, tmp_path, gpu=True)
    assert minutes(faster) < minutes(squad) / 2
    assert still_on_cpu == on_cpu


def test_a_backend_without_a_relative_cost_counts_as_fp32(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends of installed packages may be older than the attribute."""
    cell = next(cell for cell in make().cells if cell.backend == "torch_fp32" and cell.task == "squad_v1")
    fp32 = estimate.cell_seconds(cell, None, RATE)
    monkeypatch.setattr(estimate, "get_backend", lambda name: SimpleNamespace(simulated=False))
    assert estimate.cell_seconds(cell, None, RATE) == fp32
    monkeypatch.setattr(estimate, "get_backend", lambda name: SimpleNamespace(simulated=False, relative_cost=2.0))
    assert estimate.cell_seconds(cell, None, RATE) > 1.5 * fp32


def test_a_slow_model_takes_the_fewest_calls(make: Make) -> None:
    """A round times sixteen single sequences and two full batches three times each, after one pass that warms up."""
    cell = next(cell for cell in make().cells if (cell.model, cell.task) == ("tiny", "squad_v1"))
    measure = replace(cell.measure, scenarios=("interleaved",), loads=("fixed",), rounds=3)
    cell = replace(cell, measure=measure, batch_sizes=(1, 2), limit=1)
    calls = 4 * (16 * 1 + 2 * 2)
    by_hand = 5 + tiny_flops(176) / RATE + 3 * (2.5 + calls * tiny_flops(384) / RATE)
    assert estimate.cell_seconds(cell, identity()["squad_v1"], RATE) == pytest.approx(by_hand, rel=0.02)
