"""The classes of a model. They are matched to the task's by name, never by number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tasks import Features, Task, TaskError

CLASS_KINDS = ("classification", "multi_label", "token_classification")
"""The kinds of tasks whose model names its outputs as classes."""


def label_names(folder: Path, task: Task) -> tuple[str, ...]:
    """The model's names of its classes, in the order of its outputs; empty where the task is no classification.

    A config.json without `id2label` has the names that transformers leaves out when it saves: LABEL_0, LABEL_1 ... Raises
    TaskError where `id2label` does not name the classes 0, 1 ...
    """
    if task.kind not in CLASS_KINDS:
        return ()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "id2label" not in config:
        return tuple(f"LABEL_{number}" for number in range(config.get("num_labels", 2)))
    id2label = config["id2label"]
    numbers = [str(number) for number in range(len(id2label))] if isinstance(id2label, dict) else []
    if not numbers or set(id2label) != set(numbers) or not all(isinstance(name, str) for name in id2label.values()):
        expected = json.dumps({str(number): label for number, label in enumerate(task.labels)})
        raise TaskError(
            f"{folder / 'config.json'}: id2label is {json.dumps(id2label)[:200]}; it must name every class by its number,"
            f" as {expected}"
        )
    return tuple(id2label[number] for number in numbers)


def class_columns(folder: Path, task: Task) -> tuple[int, ...]:
    """For each class of the task the model's output of that name; empty where the task is no classification.

    Raises TaskError where the model's classes are not the task's.
    """
    if task.kind not in CLASS_KINDS:
        return ()
    if task.kind == "token_classification":
        tags = task.output_tags(label_names(folder, task))  # type: ignore[attr-defined]
        return tuple(tags.index(label) for label in task.labels)
    count = len(task.labels)
    rows = np.zeros((count, 1), np.int32)
    features = Features(rows, rows, np.ones(count, np.int64), np.arange(count))
    one_hot = np.eye(count, dtype=np.float32)  # row n is decided for the model's class n
    decoded = task.decode([None] * count, features, one_hot, label_names(folder, task))
    return tuple(decoded.index([label] if task.kind == "multi_label" else label) for label in task.labels)
