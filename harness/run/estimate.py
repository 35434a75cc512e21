"""Roughly how long each cell of a run will take on this machine. It is printed before the run and never recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from backends import get_backend
from harness.measure.flops import encoder_flops
from harness.measure.turns import MIN_BATCHES, MIN_PASSES, MIN_QUERIES, SECONDS
from harness.plan.plan import Plan
from harness.plan.sources import sizes_of
from harness.plan.spec import CORPUS, Cell, CheckpointSpec, folder_of
from harness.records.schema import Record
from tasks import DataIdentity, task_facts

GPU_GAIN = 50.0
"""How many times as fast a GPU is as this machine's processors."""


BERT_BASE = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072}
"""The sizes of a model that are not known without the network."""


START_SECONDS = 5.0
"""For starting a process."""


SEARCH_TESTS = 10
"""How many tests a search of the server scenario takes."""


def estimate(
    plan: Plan,
    previous: Mapping[str, Record],
    cache: Path,
    identities: Mapping[str, DataIdentity],
    *,
    fresh: bool,
    gpu: bool = False,
) -> Iterator[str]:
    """A line for each checkpoint that has to be made and each cell that has to be run, and one for their sum.

    previous: the last record of each cell key. gpu: whether checkpoints are made on a GPU.
    """
    todo = [cell for cell in plan.cells if not cell.blocked and (fresh or not _finished(previous.get(cell.key)))]
    if not todo:
        return
    rate = flops_per_second()
    total, made = 0.0, set()
    for cell in todo:
        identity = identities.get(cell.task)
        for spec in _with_parents(cell.checkpoint):
            if spec.key in made or spec.recipe in ("load", "pretrained", "random") or folder_of(spec, cache).is_dir():
                continue
            made.add(spec.key)
            seconds = _checkpoint_seconds(spec, identity, rate * GPU_GAIN if gpu else rate)
            total += seconds
            yield f"about {_words(seconds)}: {spec.recipe} {spec.model} on {spec.task}, seed {spec.seed}"
        seconds = cell_seconds(cell, identity, rate)
        total += seconds
        yield f"about {_words(seconds)}: {cell.model} / {cell.task} / {cell.label} / seed {cell.seed}"
    yield f"about {_words(total)} in all, estimated from the speed of a matrix product on this machine"


def _finished(record: Record | None) -> bool:
    return record is not None and record.measured


def _with_parents(spec: CheckpointSpec) -> Iterator[CheckpointSpec]:
    """All checkpoints that have to be made for this one, itself last."""
    for needed in spec.needs:
        yield from _with_parents(needed)
    yield spec


def _checkpoint_seconds(spec: CheckpointSpec, identity: DataIdentity | None, rate: float) -> float:
    """rate: FLOPs a second. Training takes three passes a sequence, calibration one; a teacher adds one more."""
    flops = _forward_flops(spec) * (1 if spec.recipe == "ptq" else 3)
    flops += _forward_flops(spec.teacher) if spec.teacher else 0
    return START_SECONDS + flops * _sequences(spec, identity) / rate


def _sequences(spec: CheckpointSpec, identity: DataIdentity | None) -> float:
    """How many pass through training or calibration."""
    if spec.recipe == "ptq":
        return (spec.calibration or {}).get("samples", 128)
    known = identity and "train" in identity.splits and spec.task != CORPUS
    rows = identity.splits["train"].rows if identity and known else 10_000
    rows *= 1 + ((spec.distill or {}).get("augment") or {"copies": 0})["copies"]
    train = spec.train or {}
    steps = train.get("max_steps")
    return float(steps * train.get("batch_size", 16) if steps else rows * train.get("epochs", 3))


def cell_seconds(cell: Cell, identity: DataIdentity | None, rate: float, tokens: int | None = None) -> float:
    """Accuracy and, unless it is a simulation, all speed rounds. tokens: of a typical sequence, where that is known."""
    backend = get_backend(cell.backend)
    splits = identity.splits.items() if identity else ()
    rows = sum(split.rows for name, split in splits if name.startswith("validation")) if identity else 1000
    rows = max(cell.batch_sizes) if cell.checkpoint.speed_only else min(rows, cell.limit or rows)
    flops = _forward_flops(cell.checkpoint, padded=cell.padding == "max_length", tokens=tokens)
    gain = GPU_GAIN if cell.device == "cuda" else 1
    start = START_SECONDS + getattr(backend, "start_seconds", 0.0)
    cost = getattr(backend, "relative_cost", 1.0) / gain
    seconds = start + rows * flops / rate * cost
    if backend.simulated:
        return seconds
    measure = cell.measure
    for number in range(1, measure.rounds + 1):
        tests = len(measure.loads) * sum(
            len(measure.sizes(name, cell.batch_sizes)) * (SEARCH_TESTS if name == "server" else 1)
            for name in measure.loadgen_scenarios(number)
        )
        if tests:
            seconds += start + 2 * tests * measure.min_duration
        # Processes of interleaved cells start side by side, and most cells are faster than the slowest, which has the whole time,
        # or what the fewest calls take.
        interleaved = 0.0
        for load, size in measure.turns(cell.batch_sizes):
            call = (
                size * _forward_flops(cell.checkpoint, padded=load == "fixed" or cell.pads, tokens=tokens) * cost / rate
            )
            fewest = (MIN_QUERIES if size == 1 else MIN_BATCHES) * (1 + MIN_PASSES)  # one pass warms up
            interleaved += max(min(measure.min_duration, SECONDS), fewest * call)
        seconds += start - START_SECONDS / 2 + interleaved
    return seconds


def _forward_flops(spec: CheckpointSpec, *, padded: bool = False, tokens: int | None = None) -> float:
    """FLOPs of one sequence of typical length, or of max_length where it is padded."""
    longest = spec.shape.max_length
    limit = longest // 2 if spec.data.kind == "sample" else longest  # the sample is made for a max_length of 128
    facts = task_facts(spec.task)
    typical = tokens or (facts.typical_tokens if facts and facts.typical_tokens else longest)
    sizes = BERT_BASE | sizes_of(spec)
    count = encoder_flops(
        layers=sizes["num_hidden_layers"],
        hidden=sizes["hidden_size"],
        intermediate=sizes["intermediate_size"],
        sequence_length=longest if padded else min(limit, typical),
        head_outputs=2,
        head="token",
    )
    return float(count.total)


def flops_per_second() -> float:
    """Of a float32 matrix product of a linear layer's size, the best of five; other layers slow a model down by two fifths."""
    a, b = np.ones((512, 768), np.float32), np.ones((768, 768), np.float32)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 0.6 * 2 * 512 * 768 * 768 / min(seconds)


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
