"""The classes of a task by name: as a model calls its outputs, and as a user's file of predictions has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tasks.base import TaskError
from tasks.definitions import Definition
from tasks.predictions import as_number, shown


def output_classes(definition: Definition, names: Sequence[str]) -> list[str]:
    """The task's class of each of the model's outputs, which the model calls `names`. Raises TaskError."""
    classes = [class_of_name(definition, name) for name in names]
    labels = definition.labels
    if len(names) == len(labels) and set(classes) == set(labels):
        return [label for label in classes if label is not None]
    raise TaskError(
        f"{definition.name}: the model calls its classes {', '.join(names)[:200]}, which cannot be matched to the task's"
        f" {', '.join(labels)}; name them in id2label of the model's config.json"
    )


def output_tags(definition: Definition, names: Sequence[str]) -> list[str]:
    """The tag of each of the model's outputs, which the model calls `names`. It may have tags that the task's files lack. Raises
    TaskError."""
    tags = [class_of_name(definition, name) or name for name in names]
    missing = [label for label in definition.labels if label not in tags]
    if missing or len(set(tags)) < len(tags):
        what = f"has no {', '.join(missing)[:100]} among" if missing else "names a tag twice in"
        raise TaskError(
            f"{definition.name}: the model {what} its classes {', '.join(names)[:200]}, and the task has"
            f" {', '.join(definition.labels)[:200]}; name the tags in id2label of the model's config.json"
        )
    return tags


def class_of_name(definition: Definition, name: str) -> str | None:
    """The class with this name, whatever the case and the separators; where the files number the classes, also by number."""
    plain = _plain(name)
    labels = definition.labels
    if definition.raw.class_numbers and plain in map(str, range(len(labels))):
        return labels[int(plain)]
    classes = definition.classes.items()
    return next((label for label, others in classes if plain == _plain(label) or plain in others), None)


def read_class(definition: Definition, value: Any, where: str) -> str:
    """The class that a value of a predictions file names or numbers. Raises TaskError, naming `where`."""
    labels = definition.labels
    label = class_of_name(definition, value) if isinstance(value, str) else None
    number = as_number(re.sub(r"^LABEL_(?=\d+$)", "", value) if isinstance(value, str) else value)
    if label is None and number is not None and number in range(len(labels)):
        label = labels[int(number)]
    if label is None:
        classes = ", ".join(f"{number} ({name})" for number, name in enumerate(labels))
        raise TaskError(f"{where}: {shown(value)} is not a class of {definition.name}; its classes are {classes}")
    return label


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().lower())
