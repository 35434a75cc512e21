"""What a suite costs where nothing is left to do: seconds of processor time for 1,000 done cells, and for their plan. And what it
costs to compare files with their hashes in an ordinary run.

The thousand records are copies of committed ones with the keys of a real plan and scores files of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
import pytest

from backends.artefacts import sha256_of
from harness.machine.hardware import describe
from tests.run.test_cluster import two_nodes
from tests.run.test_run import ROOT, Checkout

CELLS = 1000
PLAN_SECONDS, RUN_SECONDS, SMALL_SECONDS, CLUSTER_SECONDS = 2.0, 5.0, 3.0, 60.0
SHARE = 0.01
"""Of a run's time that hashing may take."""
TIMED = """
import functools, os, time
from pathlib import Path
from backends import artefacts

inside, taken = False, 0.0

def timed(function):
    @functools.wraps(function)
    def wrapped(*given, **named):
        global inside, taken
        if inside:
            return function(*given, **named)
        inside, began = True, time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            inside, taken = False, taken + time.perf_counter() - began
            Path(os.environ["HASHING"], str(os.getpid())).write_text(str(taken))
    return wrapped

for name in ("sha256_of", "file_fault", "folder_fault", "seal_folder", "move_sealed", "remember_folder"):
    setattr(artefacts, name, timed(getattr(artefacts, name)))
"""
"""`sitecustomize` of every process of a run: seconds inside the functions that hash, syncing of what they seal included."""
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


def test_a_thousand_done_cells_on_a_cluster(done: Checkout, tmp_path: Path) -> None:
    """Of all processes: the command's, and those of Ray's head and two nodes while it runs."""
    pytest.importorskip("ray")
    with two_nodes(tmp_path) as (cluster, _):
        before, taken = processor_seconds(), dict[int, float]()
        command = done.command("run", "thousand", "--executor", "ray", "--address", cluster.address)
        with subprocess.Popen(
            command, cwd=done.folder, env=done.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr
            finished = 0
            for line in process.stderr:
                finished += "finished earlier" in line
                taken |= processor_seconds() if finished % 100 == 0 else {}
            taken |= processor_seconds()
        assert (process.returncode, finished) == (0, CELLS)
    cpu = sum(seconds - before.get(pid, 0.0) for pid, seconds in taken.items())
    print(f"\n  run --executor ray of {CELLS} done cells: {cpu:.1f} s of CPU")
    assert 1 < cpu < CLUSTER_SECONDS


def processor_seconds() -> dict[int, float]:
    """What each process below this one has taken so far, by its id."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def test_hashing_in_an_ordinary_run(tmp_path: Path) -> None:
    """One task of the suite `sample` on three engines, from nothing to the table; then again, when all is done. A longer run hashes
    a smaller share of its time."""
    checkout = Checkout(tmp_path)
    shutil.copy(ROOT / "suites" / "sample.toml", checkout.folder / "suites")
    hashing, program = tmp_path / "hashing", tmp_path / "program"
    hashing.mkdir()
    program.mkdir()
    (program / "sitecustomize.py").write_text(TIMED)
    plain = dict(checkout.environment)
    checkout.environment |= {"HASHING": str(hashing), "PYTHONPATH": f"{program}{os.pathsep}{plain['PYTHONPATH']}"}
    engines = ("torch_fp32", "onnxruntime_fp32", "onnxruntime_int8")
    words = ("run", "sample", "--task", "glue/rte", *(word for name in engines for word in ("--backend", name)))
    began = time.perf_counter()
    ended = checkout.run(*words)
    took = time.perf_counter() - began
    assert ended.returncode == 0, ended.stderr
    taken = sum(float(file.read_text()) for file in hashing.iterdir())
    processes = len(list(hashing.iterdir()))
    print(
        f"\n  sample: {took:.0f} s, of which {taken:.2f} s ({100 * taken / took:.2f}%) hashing, in {processes} processes"
    )
    checkout.environment = plain
    cpu, wall = seconds(checkout, *words)
    print(f"  the same when it is done: {cpu:.1f} s of CPU, {wall:.1f} s")
    assert 0 < taken < SHARE * took
    assert cpu < SMALL_SECONDS
