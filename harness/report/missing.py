"""What a suite asks for that no record is of: a board that says nothing of it would pass for the whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from harness.errors import SuiteError
from harness.records.schema import Record
from harness.report.comparability import is_whole
from harness.suite.load import load_suite

Asked = tuple[str, int, str, str]
"""task, seed, model, backend's label"""


def asked_of(file: Path, entries: Iterable[Record]) -> list[Asked]:
    """The cells that a suite file asks for; none of one that this version does not take, since old records outlive it. entries:
    the suite's own, which say of a loaded model whether ranges came with it."""
    try:
        suite = load_suite(str(file))
    except SuiteError:
        return []
    loaded = [entry for entry in entries if entry.checkpoint and entry.checkpoint.recipe == "load"]
    with_ranges = {entry.model for entry in loaded if entry.checkpoint and entry.checkpoint.scheme}
    with_ranges |= {name for name, model in suite.models.items() if model.recipe == "qat"}
    found: dict[Asked, None] = {}
    for task in suite.tasks:
        for seed in suite.seeds:
            for name in suite.models:
                for label, entry in zip(suite.labels, suite.backends, strict=True):
                    # entries that differ by a scheme are one to ranges that are there already
                    brought = name in with_ranges and entry.scheme is not None
                    found[(task, seed, name, (entry.label or entry.name) if brought else label)] = None
    return list(found)


def cell_of(entry: Record) -> Asked:
    return entry.task, entry.seed, entry.model, entry.label


def lacking(asked: Iterable[Asked], entries: Iterable[Record]) -> list[Asked]:
    """Those that no record is of; one that says why a cell was skipped is one, one of a part of the evaluation set is not."""
    had = {cell_of(entry) for entry in entries if is_whole(entry)}
    return [one for one in asked if one not in had]


def in_words(gone: Collection[Asked], asked: Sequence[Asked]) -> list[str]:
    """A line for each set of cells that tasks and seeds lack alike: `glue/cola (seeds 43, 44)` alone means all of them."""
    seeds = {seed for _, seed, *_ in asked}
    found: dict[str, dict[str, list[int]]] = {}
    for task, seed in dict.fromkeys((task, seed) for task, seed, *_ in asked):
        pairs = [(model, label) for *place, model, label in asked if place == [task, seed]]
        left = [pair for pair in pairs if (task, seed, *pair) in gone]
        if not left:
            continue
        what = "" if left == pairs else _pairs(left, pairs)
        found.setdefault(what, {}).setdefault(task, []).append(seed)
    lines = []
    for what, tasks in found.items():
        where = ", ".join(
            f"{task} (seed{'s' if of[1:] else ''} {', '.join(map(str, of))})" if len(seeds) > 1 else task
            for task, of in tasks.items()
        )
        lines.append(f"{where}: {what}" if what else where)
    return lines


def _pairs(left: Sequence[tuple[str, str]], pairs: Sequence[tuple[str, str]]) -> str:
    words = []
    for model in dict.fromkeys(model for model, _ in left):
        mine = [label for name, label in left if name == model]
        whole = mine == [label for name, label in pairs if name == model]
        words.append(f"all of {model}" if whole else f"{', '.join(mine)} of {model}")
    return "; ".join(words)
