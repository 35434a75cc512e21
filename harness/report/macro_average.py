"""A benchmark's macro average: the mean of its tasks' scores, for one model on one backend with one seed.

A task's score is the unweighted mean of its official metrics over its evaluation splits, as GLUE defines it (Wang et al. 2018,
section 3). A task's facts name its benchmark.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.figure import Figure
from harness.records.schema import Record
from harness.records.store import order
from harness.report.comparability import has_valid_accuracy, is_sample, is_whole, machine_of, split_labels
from harness.report.compare import ancestor_of
from harness.report.names import name_of
from tasks import short_name, task_facts, task_names
from tasks.identity import BY_COUNT, is_official

METHOD = "from the tasks' own intervals (Zou & Donner 2008)"


@dataclass(frozen=True)
class MacroAverage:
    """figure: in percent; None while a task is missing. scores: by task, of those that were measured. missing: the others.
    notes: what makes this average differ from the published kind, such as substitute data. title: the method in plain words."""

    benchmark: str
    suite: str
    sample: bool
    machine: str
    model: str
    label: str
    seed: int
    figure: Figure | None
    scores: dict[str, Figure]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    title: str = ""


def macro_averages(records: Iterable[Record]) -> list[MacroAverage]:
    """One for each benchmark, suite, data, machine, model, backend label, seed and device with at least two tasks measured on
    their whole evaluation sets, in the order of the records. Of several records of a task the newest is taken, first among
    those evaluated on official data."""
    groups: dict[tuple[Any, ...], dict[str, Record]] = {}
    for record in records:
        benchmark = _benchmark(record.task)
        if benchmark and record.accuracy and is_whole(record):
            cell = (benchmark, record.suite, is_sample(record), machine_of(record), record.model, record.label)
            by_task = groups.setdefault((*cell, record.seed, record.device), {})
            candidates = (by_task.get(record.task, record), record)
            by_task[record.task] = max(candidates, key=lambda record: (_is_official(record), order(record)))
    devices = Counter(cell[:-1] for cell in groups)
    return [
        _macro_average(by_task, name_device=devices[cell[:-1]] > 1)
        for cell, by_task in groups.items()
        if len(by_task) > 1
    ]


def _benchmark(task: str) -> str | None:
    facts = task_facts(task)
    return facts.benchmark if facts else None


def benchmark_tasks(benchmark: str) -> list[str]:
    """Its tasks, in the registry's order."""
    return [name for name in task_names() if _benchmark(name) == benchmark]


def definition(benchmark: str) -> str:
    """What the average is, for people: "mean of the scores of cola, sst2 ...; a task's score is ..."."""
    tasks = benchmark_tasks(benchmark)
    metrics: dict[str, list[str]] = {}
    splits = []
    for name in tasks:
        facts = task_facts(name)
        assert facts is not None
        if len(facts.metrics) > 1:
            metrics.setdefault(" and ".join(facts.metrics), []).append(facts.short)
        if len(facts.eval_splits) > 1:
            splits.append(f"{facts.short}: {' and '.join(map(_split_name, facts.eval_splits))}")
    details = "; ".join([*(f"{', '.join(names)}: {words}" for words, names in metrics.items()), *splits])
    listed = ", ".join(map(short_name, tasks))
    return (
        f"mean of the scores of {listed}; a task's score is the mean of its official metrics over its evaluation splits"
        + (f" ({details})" if details else "")
    )


def _split_name(split: str) -> str:
    return split.removeprefix("validation_")


def _is_official(record: Record) -> bool:
    splits = record.data.splits if record.data else {}
    return all(is_official(split.label) for name, split in splits.items() if name != "train")


def macro_line(average: MacroAverage) -> str:
    """For the terminal."""
    where = f"{average.benchmark} macro average, {average.model} / {average.label} / seed {average.seed}"
    figure = average.figure
    if figure is None:
        return f"{where}: none, missing {', '.join(average.missing)}"
    notes = f" ({'; '.join(average.notes)})" if average.notes else ""
    interval = f" [{figure.low:.2f}, {figure.high:.2f}]" if figure.low is not None else " (no interval)"
    return f"{where}: {figure.value:.2f}{interval}{notes}"


def _macro_average(by_task: dict[str, Record], *, name_device: bool) -> MacroAverage:
    record = next(iter(by_task.values()))
    benchmark = _benchmark(record.task)
    assert benchmark is not None
    tasks = benchmark_tasks(benchmark)
    scores = {name: score(by_task[name]) for name in tasks if name in by_task}
    missing = tuple(name for name in tasks if name not in by_task)
    return MacroAverage(
        benchmark=benchmark,
        suite=record.suite,
        sample=is_sample(record),
        machine=machine_of(record),
        model=record.model,
        label=f"{record.label} ({record.device})" if name_device else record.label,
        seed=record.seed,
        figure=None if missing else mean_of(list(scores.values())),
        scores=scores,
        missing=missing,
        notes=tuple(_notes(by_task)),
        title=name_of(record, ancestor_of(record), baseline=record.baseline).title,
    )


def score(record: Record) -> Figure:
    """A task's one figure. Its metrics and splits depend on much the same examples, so the ends of their intervals are averaged
    as if they moved together; the result is not narrower than the true interval. No interval where one of them has none."""
    figures = [figure for part in record.accuracy for figure in part.metrics.values()]
    value = _mean([figure.value for figure in figures])
    ends = [(figure.low, figure.high) for figure in figures if figure.low is not None and figure.high is not None]
    if len(ends) < len(figures):
        return Figure(value=value)
    return Figure(value=value, low=_mean([low for low, _ in ends]), high=_mean([high for _, high in ends]))


def mean_of(scores: Sequence[Figure]) -> Figure:
    """The mean of independent figures. Its interval recovers their variances from their own intervals (MOVER: Zou & Donner
    2008); it has none where one of them has none."""
    value = _mean([figure.value for figure in scores])
    if any(figure.low is None or figure.high is None for figure in scores):
        return Figure(value=value, method="no interval: a task has none")
    below = math.hypot(*(figure.value - figure.low for figure in scores if figure.low is not None)) / len(scores)
    above = math.hypot(*(figure.high - figure.value for figure in scores if figure.high is not None)) / len(scores)
    return Figure(value=value, low=value - below, high=value + above, method=METHOD)


def _notes(by_task: dict[str, Record]) -> Iterable[str]:
    for name, record in by_task.items():
        facts = task_facts(name)
        if facts and len(record.accuracy) < len(facts.eval_splits):
            yield f"{facts.short}: {', '.join(_split_name(part.split) for part in record.accuracy)} only"
    labels: dict[str, set[str]] = {}
    for name, record in by_task.items():
        for split, label in split_labels(record).items():
            if label != "official" and not is_sample(record):
                use = "training" if split == "train" else "evaluation"
                what = label if label == BY_COUNT else label.split()[0]
                labels.setdefault(f"{use} data {what}", set()).add(short_name(name))
    for label, tasks in labels.items():
        yield f"{label}: {', '.join(sorted(tasks))}"
    if invalid := sorted(short_name(name) for name, record in by_task.items() if not has_valid_accuracy(record)):
        yield f"invalid cells: {', '.join(invalid)}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
