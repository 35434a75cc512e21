"""What the page of published figures shows: those of all suites, by system, with what makes them incomparable with ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.suite.load import load_for_pages
from tasks.titles import task_title

OWN = ("system", "metrics", "notes", "source", "task", "model", "precision")
"""Keys of a reference that have a place of their own on the page; others are shown as facts."""

SPEEDS = {"qps": "samples/s", "latency_ms": "ms"}
"""Keys of its figures of speed, with their units."""


@dataclass(frozen=True)
class PublishedFigure:
    task: str
    model: str
    precision: str
    figures: tuple[str, ...]
    facts: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class System:
    """notes: what holds for all of its figures."""

    name: str
    sources: tuple[str, ...]
    suites: tuple[str, ...]
    notes: tuple[str, ...]
    figures: tuple[PublishedFigure, ...]


@dataclass(frozen=True)
class ReferencesPage:
    systems: tuple[System, ...]
    count: int


def references_page(suites: Path) -> ReferencesPage:
    """suites: the folder of the suite files. Raises SuiteError."""
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for file in sorted(suites.glob("*.toml")):
        for reference in load_for_pages(file)[1]:
            found.setdefault(str(reference["system"]), []).append((file.stem, reference))
    systems = tuple(_system(name, found[name]) for name in sorted(found, key=str.lower))
    return ReferencesPage(systems, sum(len(system.figures) for system in systems))


def _system(name: str, given: Sequence[tuple[str, Mapping[str, Any]]]) -> System:
    notes = [list(map(str, reference.get("notes", []))) for _, reference in given]
    common = [note for note in dict.fromkeys(notes[0]) if all(note in own for own in notes)]
    figures: dict[PublishedFigure, None] = {}
    for (_, reference), own in zip(given, notes, strict=True):
        figures[_figure(reference, [note for note in own if note not in common])] = None
    return System(
        name=name,
        sources=tuple(dict.fromkeys(str(reference["source"]) for _, reference in given if reference.get("source"))),
        suites=tuple(dict.fromkeys(suite for suite, _ in given)),
        notes=tuple(common),
        figures=tuple(figures),
    )


def _figure(reference: Mapping[str, Any], notes: Sequence[str]) -> PublishedFigure:
    task = reference.get("task")
    shown = {*OWN, *SPEEDS}
    facts = {name: value for name, value in reference.items() if name not in shown and not isinstance(value, dict)}
    metrics = [f"{name.replace('_', ' ')} {value}" for name, value in reference.get("metrics", {}).items()]
    speeds = [f"{reference[name]} {unit}" for name, unit in SPEEDS.items() if name in reference]
    return PublishedFigure(
        task=task_title(str(task)) if task else "",
        model=str(reference.get("model", "")),
        precision=str(reference.get("precision", "")),
        figures=(*metrics, *speeds),
        facts=tuple(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()),
        notes=tuple(notes),
    )
