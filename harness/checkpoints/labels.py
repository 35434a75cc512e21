"""A model's classes, which are matched to the task's by name and never by their place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tasks import Features, Task, TaskError


def label_names(folder: Path, task: Task) -> tuple[str, ...]:
    """The model's own names of its classes, in its numbering; empty where the task is no classification.

    A config.json without `id2label` has transformers' defaults, which it leaves out when it saves: LABEL_0, LABEL_1 ...
    Raises TaskError where `id2label` does not name the classes 0, 1 ...
    """
    if task.kind != "classification":
        return ()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "id2label" not in config:
        return tuple(f"LABEL_{number}" for number in range(config.get("num_labels", 2)))
    named = config["id2label"]
    numbers = [str(number) for number in range(len(named))] if isinstance(named, dict) else []
    if not numbers or set(named) != set(numbers) or not all(isinstance(name, str) for name in named.values()):
        raise TaskError(
            f"{folder / 'config.json'}: id2label is {json.dumps(named)[:200]}; it must name every class by its number,"
            f" as {json.dumps({str(at): label for at, label in enumerate(task.labels)})}"
        )
    return tuple(named[number] for number in numbers)


def class_columns(folder: Path, task: Task) -> tuple[int, ...]:
    """The model's column of each class of a task, by name; none where the task has no classes. Raises TaskError."""
    if task.kind != "classification":
        return ()
    count = len(task.labels)
    rows = np.zeros((count, 1), np.int32)
    nothing = Features(rows, rows, np.ones(count, np.int64), np.arange(count))
    called = task.decode([None] * count, nothing, np.eye(count, dtype=np.float32), label_names(folder, task))
    return tuple(called.index(label) for label in task.labels)
