"""Roughly how long each cell of a run will take on this machine: said beforehand, never recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from harness.measure.flops import encoder_flops
from harness.measure.turns import SECONDS as TURNS
from harness.plan.plan import Plan
from harness.plan.sources import sizes_of
from harness.plan.spec import CORPUS, CheckpointSpec, folder_of
from harness.records.schema import Record
from tasks import DataIdentity

MEAN_TOKENS = {
    "squad_v1": 176,
    "glue/cola": 11,
    "glue/sst2": 13,
    "glue/mrpc": 53,
    "glue/stsb": 28,
    "glue/qqp": 30,
    "glue/mnli": 39,
    "glue/qnli": 52,
    "glue/rte": 67,
}
"""Tokens of a mean sequence before padding, in BERT's uncased pieces; batches of examples of like length are hardly longer."""


RELATIVE = {"torch_bf16": 0.5, "fake_quant_w8a8": 1.5, "onnxruntime_int8": 0.6, "onnxruntime_int8_dynamic": 0.5}
"""Forward time against FP32 on a CPU with VNNI; seen on one machine, used for the guess alone."""


GPU_GAIN = 50.0


BERT_BASE = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072}
"""The guess where nothing here says how large a model is."""


START_SECONDS = 5.0


SEARCH_TESTS = 10
"""Tests of the length of one that a search of the server scenario takes."""


def estimate(
    plan: Plan,
    before: Mapping[str, Record],
    cache: Path,
    identities: Mapping[str, DataIdentity],
    *,
    fresh: bool,
    gpu: bool = False,
) -> Iterator[str]:
    """A line for each checkpoint to be made, on a GPU where there is one, and each cell to be run, and their sum."""
    todo = [cell for cell in plan.cells if not cell.blocked and (fresh or not _done(before.get(cell.key)))]
    if not todo:
        return
    rate = _flops_per_second()
    total, seen = 0.0, set()
    for cell in todo:
        gain = GPU_GAIN if cell.device == "cuda" else 1
        trains = GPU_GAIN if gpu else 1
        per_sequence = _forward_flops(cell.checkpoint, padded=cell.padding == "max_length") / rate / gain
        identity = identities.get(cell.task)
        for spec in _chain(cell.checkpoint):
            if spec.key in seen or spec.recipe in ("load", "pretrained") or folder_of(spec, cache).is_dir():
                continue
            seen.add(spec.key)
            seconds = START_SECONDS + _work(spec) / rate / trains * _trained(spec, identity)
            total += seconds
            yield f"about {_words(seconds)}: {spec.recipe} {spec.model} on {spec.task}, seed {spec.seed}"
        rows = (
            sum(split.rows for name, split in identity.splits.items() if name.startswith("validation"))
            if identity
            else 1000
        )
        rows = min(rows, cell.limit or rows)
        seconds = START_SECONDS + rows * per_sequence * RELATIVE.get(cell.backend, 1.0)
        if cell.backend != "fake_quant_w8a8":
            measure = cell.measure
            runs = len(measure.loads) * sum(
                len(measure.sizes(name, cell.batch_sizes)) * (SEARCH_TESTS if name == "server" else 1)
                for name in measure.scenarios
            )
            turns = len(measure.turns(cell.batch_sizes)) * min(measure.min_duration, TURNS)
            seconds += measure.rounds * (2 * START_SECONDS + 2 * runs * measure.min_duration + 2 * turns)
        total += seconds
        yield f"about {_words(seconds)}: {cell.model} / {cell.task} / {cell.label} / seed {cell.seed}"
    yield f"about {_words(total)} in all, guessed from a matrix product's speed on this machine"


def _done(entry: Record | None) -> bool:
    return entry is not None and entry.measured


def _chain(spec: CheckpointSpec) -> Iterator[CheckpointSpec]:
    for one in spec.needs:
        yield from _chain(one)
    yield spec


def _trained(spec: CheckpointSpec, identity: DataIdentity | None) -> float:
    """Sequences that pass through training or calibration."""
    if spec.recipe == "ptq":
        return (spec.calibration or {}).get("samples", 128)
    known = identity and "train" in identity.splits and spec.task != CORPUS
    rows = identity.splits["train"].rows if identity and known else 10_000
    rows *= 1 + ((spec.distill or {}).get("augment") or {"copies": 0})["copies"]
    train = spec.train or {}
    steps = train.get("max_steps")
    return float(steps * train.get("batch_size", 16) if steps else rows * train.get("epochs", 3))


def _work(spec: CheckpointSpec) -> float:
    """Of one sequence: three passes to train on it, one more of a teacher, one to calibrate with it."""
    own = _forward_flops(spec) * (1 if spec.recipe == "ptq" else 3)
    return own + (_forward_flops(spec.teacher) if spec.teacher else 0)


def _forward_flops(spec: CheckpointSpec, *, padded: bool = False) -> float:
    longest = spec.shape.max_length
    typical = longest // 2 if spec.data.kind == "sample" else longest  # made for a max_length of 128
    sizes = BERT_BASE | sizes_of(spec)
    count = encoder_flops(
        layers=sizes["num_hidden_layers"],
        hidden=sizes["hidden_size"],
        intermediate=sizes["intermediate_size"],
        sequence_length=longest if padded else min(typical, MEAN_TOKENS.get(spec.task, longest)),
        head_outputs=2,
        head="token",
    )
    return float(count.total)


def _flops_per_second() -> float:
    """Of a float32 matrix product of a linear layer's size, best of five."""
    a, b = np.ones((512, 768), np.float32), np.ones((768, 768), np.float32)
    best = min(_timed(a, b) for _ in range(5))
    return 2 * 512 * 768 * 768 / best * 0.6  # layers between the products take their share


def _timed(
    a: np.ndarray[tuple[int, ...], np.dtype[np.float32]], b: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> float:
    start = time.perf_counter()
    a @ b
    return time.perf_counter() - start


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
