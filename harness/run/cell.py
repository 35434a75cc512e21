"""The program inside a cell's process: `python -m harness.run.cell JOB.json`.

It imports one engine and no other. The mode of a job is one of

  build     prepare the session, so that what the engine builds is in the cache
  accuracy  run the whole evaluation set, decode and score it; write per-example scores and the samples for speed rounds;
            of random weights run one batch, and score nothing
  speed     one speed round: prepare, warm up, and let LoadGen offer every scenario and load
  turns     prepare, then run batches when the runner asks for them, interleaved with other cells' processes

Its results are written to the job's `out` as JSON.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from backends import BackendError, Device, Session, Settings, get_backend
from harness.checkpoints.labels import label_names
from harness.errors import MOVE_CACHE, disk_fault
from harness.machine.processes import REPLIES, USER_FAULT, die_with_parent
from harness.measure.inference import limited, run_features
from harness.measure.memory import device_peak_bytes, peak_rss_bytes, rss_bytes
from harness.run.features import MLPERF_SAMPLES, SAMPLES, cached_features, longest, read_samples, write_samples
from harness.run.job import Job
from tasks import Scores, TaskError, open_task


def main(arguments: Sequence[str]) -> int:
    die_with_parent()
    job = Job.read(Path(arguments[0]))
    try:
        results = {"build": build, "accuracy": accuracy, "speed": speed, "turns": turns}[job.mode](job)
        part = job.out.with_suffix(".part")
        part.write_text(json.dumps(results))
        part.replace(job.out)
    except (TaskError, BackendError) as error:
        print(error, flush=True)
        return USER_FAULT
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(disk_fault(error, error.filename or job.cache, MOVE_CACHE), flush=True)
        return USER_FAULT
    return 0


def prepare(job: Job) -> tuple[Session, dict[str, Any]]:
    """The cell's session, and the memory, size and build time of loading it."""
    cell = job.cell
    before = rss_bytes()
    session = get_backend(cell.backend).prepare(
        job.checkpoint,
        Settings(
            cell.shape.max_length,
            max(cell.batch_sizes),
            job.threads,
            job.cache / "engines",
            cell.options,
            takes_turns=job.mode == "turns",
        ),
        cast(Device, cell.device),
    )
    return session, {
        "import_rss_bytes": before,
        "artifact_bytes": session.artifact_bytes,
        "build_seconds": session.build_seconds if session.built else None,
    }


def build(job: Job) -> dict[str, Any]:
    """Prepare the session and close it again."""
    session, facts = prepare(job)
    session.close()
    return facts


def accuracy(job: Job) -> dict[str, Any]:
    """Predictions and scores of every evaluation split; none of random weights, which answer one batch."""
    from harness.records.scores import save_scores
    from tasks.tokens import load_tokenizer

    cell = job.cell
    session, facts = prepare(job)
    task = open_task(cell.task, cell.data)
    tokenizer = load_tokenizer(job.checkpoint)
    names = label_names(job.checkpoint, task)
    splits: list[dict[str, Any]] = []
    scored: dict[str, Scores] = {}
    for number, split in enumerate(task.eval_splits):
        examples = task.examples(split)
        whole = len(examples)
        examples = limited(examples, cell.limit)
        features = cached_features(job, task, split, examples, tokenizer)
        if number == 0:
            write_samples(job.samples, features, MLPERF_SAMPLES if cell.measure.profile == "mlperf" else SAMPLES)
        if cell.checkpoint.speed_only:
            features = longest(features, max(cell.batch_sizes))
        inference = run_features(
            session, features, batch_size=max(cell.batch_sizes), padding=cell.padding, max_length=cell.shape.max_length
        )
        if cell.checkpoint.speed_only:
            if not np.isfinite(inference.outputs).all():
                raise BackendError("the engine returned no finite numbers for random weights; choose a wider precision")
            break
        predictions = task.decode(examples, features, inference.outputs, names)
        scores = task.score(examples, predictions)
        scored[split] = scores
        splits.append(
            {
                "split": split,
                "statistics": {
                    name: [statistic.kind, list(statistic.columns)] for name, statistic in scores.statistics.items()
                },
                "metrics": dict(scores.metrics),
                "primary": task.primary_metric,
                "examples": len(examples),
                "examples_of_split": whole,
                "whole": len(examples) == whole,
                "missing": scores.missing,
                "padding": cell.padding,
                "batch_formation": inference.batch_formation,
                "forward_seconds": inference.forward_seconds,
                "tokens": inference.tokens,
                "classes": {name: asdict(counts) for name, counts in scores.classes.items()},
            }
        )
    placement = session.placement()
    session.close()
    save_scores(job.scores, scored)
    return facts | {
        "data": {split: task.identity.splits[split].sha256 for split in task.eval_splits},
        "kind": task.kind,
        "splits": splits,
        "placement": {
            "claimed": placement.claimed,
            "nodes": dict(placement.nodes),
            "int8_macs": placement.int8_macs,
            "total_macs": placement.total_macs,
            "detail": [list(row) for row in placement.detail],
            "notes": list(placement.notes),
            "promised_macs": placement.promised_macs,
        },
        "peak_rss_bytes": peak_rss_bytes(),
    }


def speed(job: Job) -> dict[str, Any]:
    """One speed round, in a fresh process.

    Cold start ends with the first answer, to one sequence of max_length at batch 1. It leaves out the time that the engine
    takes to build what is not in the cache, which is a figure of its own.
    """
    cell = job.cell
    running = time.time()
    session, facts = prepare(job)
    loaded = time.time()
    ids = np.zeros((1, cell.shape.max_length), np.int64)
    session.run({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": ids.copy()})
    answered = time.time()
    rounds = _run_scenarios(job, session)
    peaks = _peaks(cell.device)  # read before the engine frees its memory
    session.close()
    cold_start = {
        "process_seconds": running - job.started,
        "load_seconds": loaded - running - (facts["build_seconds"] or 0.0),
        "first_query_seconds": answered - loaded,
    }
    return facts | {
        "started": datetime.fromtimestamp(job.started, UTC).isoformat(timespec="milliseconds"),
        "rounds": rounds,
        "cold_start_seconds": sum(cold_start.values()),
        "cold_start": cold_start,
        **peaks,
    }


def _run_scenarios(job: Job, session: Session) -> list[dict[str, Any]]:
    """Every scenario under every load. All cells of a table draw the same sequences in a round and others in the next, so that
    the interval over rounds covers the draw as well."""
    from harness.measure.samples import make_samples
    from harness.measure.scenarios import run_scenario

    cell, measure, seed = job.cell, job.cell.measure, job.cell.seed + job.number
    longest = cell.shape.max_length
    features = read_samples(job.samples)
    rounds: list[dict[str, Any]] = []
    for load in measure.loads:
        samples = make_samples(
            features, load=load, max_length=longest, count=len(features), seed=seed, padded=cell.pads
        )
        for scenario in measure.loadgen_scenarios(job.number):
            for size in measure.sizes(scenario, cell.batch_sizes):
                speed_round = run_scenario(
                    session,
                    samples,
                    scenario=scenario,
                    batch_size=size,
                    min_duration=measure.min_duration,
                    min_queries=measure.min_queries,
                    max_warmup=measure.max_warmup,
                    seed=seed,
                    profile=measure.profile,
                    server_latency_ms=measure.server_latency_ms,
                    threads=job.threads,
                    device=cell.device,
                )
                conditions = {"scenario": scenario, "load": load, "batch_size": size, "sequence_length": longest}
                rounds.append({**conditions, "round": speed_round.model_dump()})
    return rounds


def _peaks(device: str) -> dict[str, Any]:
    """Peak memory of this process, which holds the engine and the samples."""
    return {
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_device_bytes": device_peak_bytes() if device == "cuda" else None,
    }


def turns(job: Job) -> dict[str, Any]:
    """Answer the questions of `harness.run.turns` until there are no more. All cells of a table draw the same sequences in a
    round."""
    from harness.measure.turns import Worker, processors

    os.sched_setaffinity(0, processors(job.threads, job.cell.device))
    session, facts = prepare(job)
    cell, seed = job.cell, job.cell.seed + job.number
    worker = Worker(session, read_samples(job.samples), cell.shape.max_length, seed, padded=cell.pads)
    with os.fdopen(int(os.environ[REPLIES]), "w", buffering=1) as replies:
        for line in sys.stdin:
            question = json.loads(line)
            answer = facts | _peaks(cell.device) if "facts" in question else worker.answer(question)
            print(json.dumps(answer), file=replies, flush=True)
    session.close()
    return facts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
