"""The verb `score`: the official metrics of a predictions file."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.cli.arguments import Verbs, add_data, add_verb
from harness.cli.terminal import say


def add_verbs(verbs: Verbs) -> None:
    parser = add_verb(verbs, "score", score, "compute the official metrics of a predictions file, with intervals")
    parser.add_argument("task", help="name of a task, as suites have it")
    parser.add_argument(
        "predictions",
        type=Path,
        help="JSON: {question id: answer} for question answering, else a list in the order of the rows; or what run_glue.py,"
        " a transformers pipeline or evaluate writes",
    )
    add_data(parser)
    parser.add_argument("--split", help="evaluation split; default: the task's first")
    parser.add_argument(
        "--skip-bad-rows", action="store_true", help="leave out rows of the data that cannot be used, and count them"
    )
    parser.add_argument("--strict", action="store_true", help="refuse a file with ids that are not in the data")


def score(arguments: argparse.Namespace) -> int:
    scored = score_predictions(
        arguments.task,
        arguments.predictions,
        arguments.data,
        arguments.split,
        strict=arguments.strict,
        skip_bad_rows=arguments.skip_bad_rows,
    )
    if scored["unknown"]:
        say(f"note: {scored['unknown']:,} ids of {arguments.predictions} are not in the data and were left out")
    if scored["missing"]:
        say(f"note: {scored['missing']:,} of {scored['n']:,} examples have no prediction and count as wrong")
    print(json.dumps(scored, indent=None if arguments.json else 2))
    return 0


def score_predictions(
    name: str,
    path: Path,
    data: str | None,
    split: str | None = None,
    *,
    strict: bool = False,
    skip_bad_rows: bool = False,
) -> dict[str, Any]:
    """Official metrics of a predictions file in percent, with 95% intervals, and of a classification what was said of each class.
    split: default the task's first.

    Raises TaskError for a file that is not what the task expects or data that cannot be had; if strict, for unknown ids.
    """
    from harness.measure.intervals import intervals
    from tasks import DataRef, TaskError, open_task, task_names
    from tasks.predictions import unknown_ids
    from tasks.sources import hub_reachable, resolve

    if name in task_names() and not path.exists():  # before the hub is asked
        raise TaskError(f"{path}: no such file; give the predictions as JSON")
    ref = resolve(name, data, hub_reachable() if data in (None, "real") else False)
    if not isinstance(ref, DataRef):
        raise TaskError(f"{name}: {ref[0]}; {ref[1]}")
    if data is None and ref.kind == "sample":
        raise TaskError(f"{name}: no data to score against, since the hub cannot be reached; give --data DIR")
    task = open_task(name, replace(ref, skip_bad_rows=skip_bad_rows))
    split = split or task.eval_splits[0]
    if split not in task.eval_splits:
        raise TaskError(f"{name}: no evaluation split '{split}'; it has {', '.join(task.eval_splits)}")
    examples = task.examples(split)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from None
    scores = task.score(examples, task.predictions_from_json(examples, text, str(path)))
    unknown = unknown_ids(text, str(path), {str(row["id"]) for row in examples if "id" in row})
    if strict and unknown:
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise TaskError(f"{path}: unknown id {unknown[0][:80]!r}{more}; remove them, or leave out --strict")
    figures = intervals(scores)
    return {metric: figure.value for metric, figure in figures.items()} | {
        "n": len(examples),
        "missing": scores.missing,
        "unknown": len(unknown),
        "split": split,
        "data": task.identity.splits[split].label,
        **({"classes": {name: asdict(counts) for name, counts in scores.classes.items()}} if scores.classes else {}),
        "intervals": {
            metric: {"low": figure.low, "high": figure.high, "confidence": 0.95, "method": figure.method}
            for metric, figure in figures.items()
        },
    }
