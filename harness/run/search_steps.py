"""The program inside a search's processes: `python -m harness.run.search_steps JOB.json`. The mode of a job is one of

  sensitivity  how far each part of the encoder, quantized alone, moves the logits
  score        the accuracy of a cell on the slice

Both read a slice of the training rows that the ranges were not calibrated on: `number` rows of it, as the job says. No split that is
evaluated is read.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends import BackendError, Batch, Session
from backends.schemes import changed_scheme, changes_of, get_scheme
from harness.checkpoints.labels import label_names
from harness.checkpoints.training.calibration import slice_rows
from harness.machine.processes import USER_FAULT, die_with_parent
from harness.measure.inference import make_batch, run_features
from harness.run.cell import prepare
from harness.run.features import SAMPLES, write_samples
from harness.run.job import Job
from tasks import TaskError, open_task

SLICE = 512
"""Rows that candidates are scored on unless the user says another number, or as many as there are."""
PROBE, PROBE_BATCH = 64, 16
"""Of these, the sequences that sensitivity is measured on."""
SPLIT = "train"


def main(arguments: Sequence[str]) -> int:
    die_with_parent()
    job = Job.read(Path(arguments[0]))
    try:
        results = {"sensitivity": sensitivity, "score": score}[job.mode](job)
    except (TaskError, BackendError) as error:
        print(error, flush=True)
        return USER_FAULT
    job.out.write_text(json.dumps(results))
    return 0


def _slice(job: Job) -> tuple[Any, list[Any], Any]:
    """The task, the examples of the slice, and their features."""
    from tasks.tokens import load_tokenizer

    cell = job.cell
    task = open_task(cell.task, cell.data)
    examples = task.examples(SPLIT)
    rows = slice_rows(cell.checkpoint, len(examples), job.number or SLICE)
    if len(rows) < 2:
        raise TaskError(
            f"{cell.task}: {len(examples)} training rows are too few: calibration takes {len(examples) - len(rows)} of them, and"
            " a search needs others; give more, or lower calibration.samples in the suite"
        )
    chosen = [examples[index] for index in rows]
    return task, chosen, task.features(chosen, load_tokenizer(job.checkpoint), cell.shape)


def score(job: Job) -> dict[str, Any]:
    """The metrics of the cell's engine, and in files the scores of each example, the logits, and the sequences that speed is measured
    with."""
    from harness.records.scores import save_scores

    cell = job.cell
    task, examples, features = _slice(job)
    session, _ = prepare(job)
    inference = run_features(
        session, features, batch_size=max(cell.batch_sizes), padding=cell.padding, max_length=cell.shape.max_length
    )
    session.close()
    scores = task.score(examples, task.decode(examples, features, inference.outputs, label_names(job.checkpoint, task)))
    save_scores(job.scores, {SPLIT: scores})
    np.save(outputs_file(job.scores), inference.outputs, allow_pickle=False)
    write_samples(job.samples, features, SAMPLES)
    return {
        "statistics": {name: [one.kind, list(one.columns)] for name, one in scores.statistics.items()},
        "metrics": dict(scores.metrics),
        "primary": task.primary_metric,
        "examples": len(examples),
    }


def outputs_file(scores: Path) -> Path:
    """Beside the scores of a cell: its logits."""
    return scores.with_name("outputs.npy")


def sensitivity(job: Job) -> list[dict[str, Any]]:
    """The fields of `search_trial.Part`, of each part; the largest error first."""
    import torch

    from backends.checkpoint import read_architecture
    from backends.fake_quant.simulate import simulate
    from backends.ranges import read_ranges
    from backends.torch_eager import TorchSession
    from backends.torch_models import load_model

    torch.set_num_threads(job.threads)  # a forked process has it imported with its environment's number
    architecture, ranges = read_architecture(job.checkpoint), read_ranges(job.checkpoint)
    _, _, features = _slice(job)
    batches = list(_probes(features))
    length = job.cell.shape.max_length
    exact = _logits(TorchSession(load_model(job.checkpoint, architecture), architecture, length, 0), batches)
    found, products = [], parts(architecture, ranges.scheme.name)
    for pattern, number in products.items():
        alone = get_scheme(keeping(ranges.scheme.name, [other for other in products if other != pattern]))
        model = simulate(load_model(job.checkpoint, architecture), ranges.only(alone, architecture))
        logits = _logits(TorchSession(model, architecture, length, 0), batches)
        error = float(np.mean((logits - exact) ** 2) / exact.var())
        found.append({"pattern": pattern, "error": error, "share": number / sum(products.values())})
    return sorted(found, key=lambda one: -one["error"])


def keeping(scheme: str, patterns: Sequence[str]) -> str:
    """The name of a scheme that keeps these layers in float, besides those that it keeps already."""
    base, changes = changes_of(scheme)
    kept = [*changes.get("keep_float", []), *patterns]
    return changed_scheme(base, changes | ({"keep_float": kept} if kept else {}))


def parts(architecture: Any, scheme: str) -> dict[str, int]:
    """Patterns of `keep_float` that split the quantized layers: query, key and value of a layer together, since they read one
    tensor, and each other linear layer; and how many products of two numbers each has for a token. Raises BackendError for a scheme that does not quantize linear layers alone."""
    from backends.tensor_names import weight_names

    found = get_scheme(scheme)
    if found.tensors == "op_outputs":
        raise BackendError(
            f"scheme '{scheme}' rounds every operator's output, and a search chooses among linear layers; take engine_int8 or q8bert"
        )
    products: dict[str, int] = {}
    for name in weight_names(architecture, found):
        pattern = f"{name.rpartition('.')[0]}.*" if ".self." in name else name
        products[pattern] = products.get(pattern, 0) + math.prod(architecture.linears()[name])
    return products


def _probes(features: Any) -> Iterator[Batch]:
    order = np.argsort(-features.lengths[:PROBE], kind="stable")
    for first in range(0, len(order), PROBE_BATCH):
        rows = order[first : first + PROBE_BATCH]
        yield make_batch(features, rows, int(features.lengths[rows].max()))


def _logits(session: Session, batches: Sequence[Batch]) -> np.ndarray[Any, Any]:
    """All logits of real tokens, flat."""
    found = []
    for batch in batches:
        logits = session.run(batch)
        found.append((logits[batch["attention_mask"].astype(bool)] if logits.ndim == 3 else logits).reshape(-1))
    return np.concatenate(found).astype(np.float64)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
