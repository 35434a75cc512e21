"""What the page of a benchmark of several tasks shows: a row a method, with the macro average of its tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.report.macro_average import MacroAverage, benchmark_tasks, definition
from harness.report.pages import suite_page_name
from tasks.titles import task_title


@dataclass(frozen=True)
class BenchmarkRow:
    """title: the method in plain words; label: its identifier. average: (figure, interval), or what is missing. scores: of the tasks in order; empty where one was not measured."""

    title: str
    label: str
    model: str
    seed: str
    suite: str
    suite_page: str
    average: str
    interval: str
    missing: str
    order: float | None
    scores: tuple[str, ...]
    notes: str


@dataclass(frozen=True)
class BenchmarkMachine:
    """whole: rows with an average, the highest first; notes: what holds for all of them. parts: rows that miss a task."""

    title: str
    whole: tuple[BenchmarkRow, ...]
    notes: str
    parts: tuple[BenchmarkRow, ...]


@dataclass(frozen=True)
class BenchmarkPage:
    name: str
    definition: str
    tasks: tuple[str, ...]
    machines: tuple[BenchmarkMachine, ...]


def benchmark_page_name(benchmark: str) -> str:
    return f"benchmark-{re.sub(r'[^a-z0-9]+', '-', benchmark.lower())}.html"


def benchmark_pages(
    averages: Sequence[MacroAverage], titles: Mapping[str, str] | None = None
) -> dict[str, BenchmarkPage]:
    """By file name, a page for each benchmark that real data were measured on. titles: of machines, by identity."""
    real = [average for average in averages if not average.sample]
    names = dict.fromkeys(average.benchmark for average in real)
    return {
        benchmark_page_name(name): _page(name, [one for one in real if one.benchmark == name], titles or {})
        for name in names
    }


def _page(benchmark: str, averages: Sequence[MacroAverage], titles: Mapping[str, str]) -> BenchmarkPage:
    tasks = benchmark_tasks(benchmark)
    machines = []
    for machine in dict.fromkeys(average.machine for average in averages):
        rows = [_row(average, tasks) for average in averages if average.machine == machine]
        whole = sorted((row for row in rows if row.order is not None), key=lambda row: -(row.order or 0))
        common = whole[0].notes if len({row.notes for row in whole}) == 1 else ""
        if common:
            whole = [replace(row, notes="") for row in whole]
        parts = tuple(row for row in rows if row.order is None)
        machines.append(BenchmarkMachine(titles.get(machine, machine), tuple(whole), common, parts))
    machines.sort(key=lambda machine: not machine.whole)
    return BenchmarkPage(benchmark, definition(benchmark), tuple(map(task_title, tasks)), tuple(machines))


def _row(average: MacroAverage, tasks: Sequence[str]) -> BenchmarkRow:
    figure = average.figure
    ends = figure and figure.low is not None and figure.high is not None
    return BenchmarkRow(
        title=average.title,
        label=average.label,
        model=average.model,
        seed=str(average.seed),
        suite=average.suite,
        suite_page=suite_page_name(average.suite, average.sample),
        average=f"{figure.value:.2f}" if figure else "",
        interval=f"{figure.low:.2f}–{figure.high:.2f}" if figure and ends else "",
        missing=", ".join(task_title(name) for name in average.missing),
        order=figure.value if figure else None,
        scores=tuple(f"{average.scores[name].value:.1f}" if name in average.scores else "" for name in tasks),
        notes="; ".join(average.notes),
    )
