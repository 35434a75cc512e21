"""GLUE's macro average: the mean of eight tasks' scores, of one model on one backend with one seed.

A task's score is the unweighted mean of its official metrics, as Wang et al. 2018 (section 3) have it: accuracy and F1 of MRPC and
QQP, Pearson and Spearman of STS-B, matched and mismatched accuracy of MNLI. WNLI is not among the eight (BERT leaves it out).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.figure import Figure
from harness.records.schema import Record
from harness.records.store import order
from harness.report.comparability import accuracy_stands, is_sample, is_whole, machine_of_board
from tasks import task_names
from tasks.identity import is_official

MEANS = (
    "mean of the eight tasks' scores; a task's score is the mean of its official metrics (MRPC, QQP: accuracy and F1;"
    " STS-B: Pearson and Spearman; MNLI: accuracy, matched and mismatched)"
)


METHOD = "from the tasks' own intervals (Zou & Donner 2008)"


@dataclass(frozen=True)
class Macro:
    """figure: in percent; None while a task is absent. scores: of the tasks that are there. absent: the others. notes: what
    makes the average another than its name says."""

    suite: str
    sample: bool
    machine: str
    model: str
    label: str
    seed: int
    figure: Figure | None
    scores: dict[str, Figure]
    absent: tuple[str, ...]
    notes: tuple[str, ...]


def macro_averages(records: Iterable[Record]) -> list[Macro]:
    """One for each (suite, data, machine, model, backend entry, seed, device) with at least two GLUE tasks measured on their whole
    evaluation sets, in the order of the records; of a task with several, the newest of the official evaluation set."""
    groups: dict[tuple[Any, ...], dict[str, Record]] = {}
    for one in records:
        if one.task.startswith("glue/") and one.accuracy and is_whole(one):
            key = (one.suite, is_sample(one), machine_of_board(one), one.model, one.label, one.seed)
            found = groups.setdefault((*key, one.device), {})
            found[one.task] = max(found.get(one.task, one), one, key=lambda entry: (_is_official(entry), order(entry)))
    names = [name for name in task_names() if name.startswith("glue/")]
    lines = []
    for (*place, label, seed, device), found in groups.items():
        twice = sum(other[:-1] == (*place, label, seed) for other in groups) > 1
        if len(found) > 1:
            lines.append(_macro((*place, f"{label} ({device})" if twice else label, seed), found, names))
    return lines


def _is_official(entry: Record) -> bool:
    splits = entry.data.splits if entry.data else {}
    return all(is_official(split.label) for name, split in splits.items() if name != "train")


def glue_columns(macros: Sequence[Macro]) -> list[str]:
    """The tasks that any of them has, in the registry's order."""
    there = {name for one in macros for name in one.scores}
    return [name for name in task_names() if name in there]


def macro_line(one: Macro) -> str:
    """For the terminal."""
    where = f"GLUE macro average, {one.model} / {one.label} / seed {one.seed}"
    if one.figure is None:
        return f"{where}: absent, no {', '.join(one.absent)}"
    notes = f" ({'; '.join(one.notes)})" if one.notes else ""
    interval = f" [{one.figure.low:.2f}, {one.figure.high:.2f}]" if one.figure.low is not None else " (no interval)"
    return f"{where}: {one.figure.value:.2f}{interval}{notes}"


def _macro(key: Sequence[Any], found: dict[str, Record], names: Sequence[str]) -> Macro:
    scores = {name: score(found[name]) for name in names if name in found}
    absent = tuple(name for name in names if name not in found)
    rest: tuple[Any, ...] = (None if absent else combined(list(scores.values())), scores, absent, tuple(_notes(found)))
    return Macro(*key, *rest)


def score(entry: Record) -> Figure:
    """A task's one figure. Its metrics (or MNLI's two parts) are of much the same examples, so the ends of their intervals are
    averaged as if they moved together: no narrower than is true. No interval where one of them has none."""
    figures = [figure for part in entry.accuracy for figure in part.metrics.values()]
    value = _mean([one.value for one in figures])
    ends = [(one.low, one.high) for one in figures if one.low is not None and one.high is not None]
    if len(ends) < len(figures):
        return Figure(value=value)
    return Figure(value=value, low=_mean([low for low, _ in ends]), high=_mean([high for _, high in ends]))


def combined(scores: Sequence[Figure]) -> Figure:
    """The mean of independent figures; its interval recovers their variances from their own (MOVER: Zou & Donner 2008), and
    is not there where one of them has none."""
    value = _mean([one.value for one in scores])
    if any(one.low is None or one.high is None for one in scores):
        return Figure(value=value, method="no interval: a task has none")
    below = math.hypot(*(one.value - one.low for one in scores if one.low is not None)) / len(scores)
    above = math.hypot(*(one.high - one.value for one in scores if one.high is not None)) / len(scores)
    return Figure(value=value, low=value - below, high=value + above, method=METHOD)


def _notes(found: dict[str, Record]) -> Iterable[str]:
    mnli = found.get("glue/mnli")
    if mnli and len(mnli.accuracy) < 2:
        yield f"MNLI: {mnli.accuracy[0].split.removeprefix('validation_')} alone"
    labels: dict[str, set[str]] = {}
    for name, entry in found.items():
        for split, part in (entry.data.splits if entry.data else {}).items():
            if not is_official(part.label) and not is_sample(entry):
                use = "training" if split == "train" else "evaluation"
                labels.setdefault(f"{use} data {part.label.split()[0]}", set()).add(name.removeprefix("glue/"))
    for label, tasks in labels.items():
        yield f"{label}: {', '.join(sorted(tasks))}"
    invalid = sorted(name.removeprefix("glue/") for name, entry in found.items() if not accuracy_stands(entry))
    if invalid:
        yield f"invalid cells: {', '.join(invalid)}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
