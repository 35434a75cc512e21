"""What a suite costs where nothing is left to do: seconds of processor time for 1,000 done cells, and for their plan.

The records are copies of committed ones with the keys of a real plan and scores files of their own.
"""

from __future__ import annotations

import json
import resource
import shutil
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from backends.artefacts import sha256_of
from harness.machine.hardware import describe
from tests.run.test_run import ROOT, Checkout

CELLS = 1000
PLAN_SECONDS, RUN_SECONDS = 2.0, 5.0
HEAD = """
title = "A thousand cells"
data = "sample"
tasks = ["squad_v1"]
baseline = "torch_fp32"
seeds = [1, 2, 3, 4, 5]
[shape]
max_length = 64
doc_stride = 24
"""
MODEL = """
[models.m{number}]
source = "scratch"
recipe = "finetune"
[models.m{number}.architecture]
num_hidden_layers = {layers}
hidden_size = 32
num_attention_heads = 2
intermediate_size = 64
[models.m{number}.train]
learning_rate = 1e-3
epochs = 1
"""
BACKENDS = ("torch_fp32", "onnxruntime_fp32", "onnxruntime_int8_dynamic")
SCHEMES = ("engine_int8", "engine_int8_asymmetric")


def thousand_cells() -> str:
    """40 models, 5 seeds, 5 backends."""
    models = [MODEL.format(number=number, layers=number + 1) for number in range(CELLS // 25)]
    backends = [f'\n[[backends]]\nname = "{name}"\n' for name in BACKENDS]
    backends += [f'\n[[backends]]\nname = "onnxruntime_int8"\nscheme = "{name}"\n' for name in SCHEMES]
    return "".join([HEAD, *models, *backends])


def templates() -> list[tuple[dict[str, Any], Path]]:
    """Committed records of the same task, with their scores files."""
    found = []
    for file in sorted((ROOT / "results" / "squad_minilm").glob("*.jsonl")):
        for record in map(json.loads, file.read_text().splitlines()):
            if record["status"] == "ok" and record["task"] == "squad_v1":
                found.append((record, file.parent / record["accuracy"][0]["scores_file"]))
    return found


def make_done(checkout: Checkout) -> None:
    """A record for every cell of the plan, each with its scores."""
    planned = checkout.run("plan", "thousand", "--json")
    assert planned.returncode == 0, planned.stderr
    cells = json.loads(planned.stdout)["cells"]
    assert len(cells) == CELLS and not any(cell["blocked"] for cell in cells)
    folder = checkout.folder / "results" / "sample" / "thousand"
    (folder / "scores").mkdir(parents=True)
    machine = describe().as_dict()
    lines = []
    for number, (cell, (template, scores)) in enumerate(zip(cells, cycle(templates()), strict=False)):
        name = f"scores/{number}.npz"
        shutil.copy(scores, folder / name)
        kept = {"scores_file": name, "scores_sha256": sha256_of(folder / name)}
        changes = {
            **{field: cell[field] for field in ("key", "model", "seed", "backend", "label", "scheme", "baseline")},
            **{"record_id": f"20261101T000000Z-0000-{cell['key']}", "run_id": "20261101T000000Z-0000"},
            **{"suite": "thousand", "suite_title": "A thousand cells", "machine": machine, "settings": cell},
            "accuracy": [part | kept for part in template["accuracy"]],
        }
        lines.append(json.dumps(template | changes) + "\n")
    (folder / "20261101T000000Z-0000.jsonl").write_text("".join(lines))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("thousand"))
    (checkout.folder / "suites" / "thousand.toml").write_text(thousand_cells())
    make_done(checkout)
    return checkout


def seconds(checkout: Checkout, *words: str) -> tuple[float, float]:
    """The least processor and wall time of three calls; the first fills caches."""
    taken = []
    for _ in range(4):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        ended = checkout.run(*words)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ended.returncode == 0, ended.stderr
        taken.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall))
    return min(taken[1:])


@pytest.mark.parametrize(("verb", "limit"), [("plan", PLAN_SECONDS), ("run", RUN_SECONDS)])
def test_a_thousand_done_cells(done: Checkout, verb: str, limit: float) -> None:
    folder = done.folder / "results" / "sample" / "thousand"
    before = sorted(folder.iterdir())
    cpu, wall = seconds(done, verb, "thousand")
    print(f"\n  {verb} of {CELLS} done cells: {cpu:.1f} s of CPU, {wall:.1f} s")
    assert sorted(folder.iterdir()) == before
    assert cpu < limit
