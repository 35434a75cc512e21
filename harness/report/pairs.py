"""Records by name, and two sets of them side by side: `quantboard compare A B`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from harness.errors import QuantboardError
from harness.measure.paired import PairedTest, holm
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.records.store import select
from harness.report.columns import p_text
from harness.report.comparability import (
    accuracy_stands,
    data_with_limit,
    doubt_of_training,
    examples_of,
    is_sample,
    limit_of,
    machine_of_board,
    other_training,
)
from harness.report.compare import compare_metrics
from harness.report.speed_ratios import TURNS, Load, shared_rounds, speed_ratios

COLUMNS = ("task", "seed", "data", "figure", "A", "B", "A against B [95%]", "p, Holm")


@dataclass(frozen=True)
class Pair:
    """mine against theirs, one split: differences of every metric, and ratios of every figure of speed both have."""

    mine: Record
    theirs: Record
    split: str
    differences: Mapping[str, PairedTest]
    ratios: Mapping[Load, PairedTest]
    same: tuple[int, int] | None = None
    """Examples to which both gave the same answer (label or text), and all; None where answers are scores or not stored."""
    corrected: Mapping[str | Load, float | None] = field(default_factory=dict)
    """Holm's p over all pairs that are shown together, for each metric and figure of its own."""


def pair_up(records: Sequence[Record], mine: str, theirs: str, tasks: Sequence[str], stored: ScoreStore) -> list[Pair]:
    """Each measured record of `mine` with the one of `theirs` that was scored on the same task and kind of data, in the
    same suite and with the same seed, model, scheme and label where there is a choice; two backends of several models each with
    the same model's alone. Raises QuantboardError where none fits."""
    for task in tasks:
        if task not in {entry.task for entry in records}:
            raise QuantboardError(
                f"--task: no record of '{task}'; there are {_listed(entry.task for entry in records)}"
            )
    if mine == theirs:
        raise QuantboardError(
            f"both names are the same, '{mine}'; name two that differ, as MODEL/LABEL or by record id"
        )
    asked = [entry for entry in records if not tasks or entry.task in tasks]
    of_one_model = not {mine, theirs} & {
        one for entry in asked for one in (entry.model, f"{entry.model}/{entry.label}")
    }
    chosen, lacking = [one for one in asked if one.accuracy], [one for one in asked if not one.accuracy]
    left, right = (select(chosen, name, lacking=lacking, what="figures") for name in (mine, theirs))
    if [one.record_id for one in left] == [one.record_id for one in right] and len(left) == 1:
        raise QuantboardError(f"'{mine}' and '{theirs}' mean the same record, {left[0].record_id}")
    several = len({entry.model for entry in left}) > 1 and len({entry.model for entry in right}) > 1
    pairs: list[Pair] = []
    for one in left:
        fitting = [other for other in right if other.record_id != one.record_id and _fits(one, other)]
        if of_one_model and several:
            fitting = [other for other in fitting if other.model == one.model]
        if of_one_model and mine == one.backend:  # a backend with any scheme, not a label that names one
            fitting = [
                other
                for other in fitting
                if theirs != other.backend or None in (one.scheme, other.scheme) or one.scheme == other.scheme
            ]
        if not fitting:
            continue
        other = min(fitting, key=lambda entry: _distance(one, entry))
        if len(left) > 1 and len(right) > 1 and other.seed != one.seed:
            continue  # the same cell over other seeds would be counted again and again
        if one in right and other.model != one.model:
            continue  # what the other name means, itself
        near = [entry for entry in fitting if _distance(one, entry) == _distance(one, other)]
        if len({(entry.model, entry.label) for entry in near}) > 1:
            raise QuantboardError(
                f"'{theirs}' means several cells beside {one.model}/{one.label}:"
                f" {_listed(f'{entry.model}/{entry.label}' for entry in near)}; name one of them"
            )
        pairs += _compare(one, other, stored)
    if not pairs:
        raise QuantboardError(
            f"no record of '{mine}' and '{theirs}' has the same task and examples (of two backends also the same scheme); `quantboard site` shows what there is"
        )
    return _corrected(pairs)


def _listed(names: Any) -> str:
    return ", ".join(sorted(set(names))) or "none"


def _fits(one: Record, other: Record) -> bool:
    return (one.task, examples_of(one)) == (other.task, examples_of(other))


def _distance(one: Record, other: Record) -> tuple[bool, ...]:
    return (
        one.suite != other.suite,
        one.seed != other.seed,
        machine_of_board(one) != machine_of_board(other),
        other_training(one, other),
        one.model != other.model,
        one.device != other.device,
        (one.backend, one.scheme) != (other.backend, other.scheme),
        one.label != other.label,
    )


def _compare(one: Record, other: Record, stored: ScoreStore) -> list[Pair]:
    found = []
    for number, part in enumerate(one.accuracy):
        theirs = next((entry for entry in other.accuracy if entry.split == part.split), None)
        if theirs is not None:
            metrics = compare_metrics(part, theirs, stored.scores(one, part.split), stored.scores(other, part.split))
            stands = accuracy_stands(one) and accuracy_stands(other)
            ratios = speed_ratios(one, other) if stands and not number else {}
            found.append(Pair(one, other, part.split, metrics, ratios, same_answers(one, other, part.split, stored)))
    return found


def same_answers(one: Record, other: Record, split: str, stored: ScoreStore) -> tuple[int, int] | None:
    """How near two ways of running a model are, whether right or wrong: a simulation and its engine, say."""
    mine, theirs = (stored.columns(entry, split, predictions=True) for entry in (one, other))
    if mine is None or theirs is None or not ("prediction" in mine and "prediction" in theirs):
        return None
    a, b = mine["prediction"], theirs["prediction"]
    if a.dtype.kind == "f" or b.dtype.kind == "f" or not np.array_equal(mine.get("id"), theirs.get("id")):  # type: ignore[arg-type]
        return None
    return int((a == b).sum()), len(a)


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    names: dict[str | Load, None] = {}
    for pair in pairs:
        names |= dict.fromkeys(pair.differences) | dict.fromkeys(pair.ratios)
    tables: list[dict[str | Load, float | None]] = [{} for _ in pairs]
    for name in names:
        holders = [at for at, pair in enumerate(pairs) if name in pair.differences or name in pair.ratios]
        for at, p in zip(holders, holm([_of(pairs[at], name).p for at in holders]), strict=True):
            tables[at][name] = p
    return [replace(pair, corrected=table) for pair, table in zip(pairs, tables, strict=True)]


def _of(pair: Pair, name: str | Load) -> PairedTest:
    return pair.differences[name] if isinstance(name, str) else pair.ratios[name]


def to_json(pair: Pair) -> dict[str, Any]:
    """Unrounded; `a` and `b` in percent for metrics, in the figure's own unit for speed."""
    mine, theirs = pair.mine, pair.theirs

    def side(entry: Record) -> dict[str, Any]:
        names = ("record_id", "suite", "model", "label", "seed", "status", "finished")
        return {name: getattr(entry, name) for name in names}

    return {
        "a": side(mine),
        "b": side(theirs),
        "task": mine.task,
        "split": pair.split,
        "data": data_with_limit(mine, pair.split),
        "limit": limit_of(mine),
        "same_machine": machine_of_board(mine) == machine_of_board(theirs),
        "other_training": other_training(mine, theirs),
        "training": doubt_of_training(mine, theirs),
        "differences": {
            name: {"a": _metric(mine, pair.split, name), "b": _metric(theirs, pair.split, name)}
            | asdict(one)
            | {"p_holm": pair.corrected[name]}
            for name, one in pair.differences.items()
        },
        "same_answers": {"count": pair.same[0], "of": pair.same[1]} if pair.same else None,
        "ratios": [
            dict(zip(("scenario", "load", "batch_size", "figure"), load, strict=True))
            | dict(zip(("a", "b"), _speeds(pair, load), strict=True))
            | asdict(one)
            | {"p_holm": pair.corrected[load]}
            for load, one in pair.ratios.items()
        ],
    }


def _metric(entry: Record, split: str, name: str) -> float:
    return next(part.metrics[name].value for part in entry.accuracy if part.split == split)


def _speeds(pair: Pair, load: Load) -> tuple[float, float]:
    """Of both, in the figure's own unit; by turns the geometric mean over the rounds that they share."""
    scenario, lengths, size, figure = load
    if scenario == TURNS:
        mine, theirs = (
            next(one for one in entry.turns if (one.load, one.batch_size) == (lengths, size))
            for entry in (pair.mine, pair.theirs)
        )
        shared = shared_rounds(mine, theirs)
        a, b = ([one.samples / one.seconds for one in side] for side in zip(*shared, strict=True))
        return statistics.geometric_mean(a), statistics.geometric_mean(b)
    parts = (
        next(one for one in entry.speed if (one.scenario, one.load, one.batch_size) == (scenario, lengths, size))
        for entry in (pair.mine, pair.theirs)
    )
    a_value, b_value = (float(getattr(part, figure).value) for part in parts)
    return a_value, b_value


def rows(pairs: Sequence[Pair]) -> list[tuple[str, ...]]:
    """As COLUMNS: every metric, and of speed what the tables show (real lengths; of offline the largest batch)."""
    found = []
    for pair in pairs:
        task = pair.mine.task + (f" {pair.split}" if len(pair.mine.accuracy) > 1 else "")
        task = ", ".join([task, *_told_apart(pair, pairs)])
        seeds = str(pair.mine.seed) if pair.mine.seed == pair.theirs.seed else f"{pair.mine.seed}, {pair.theirs.seed}"
        head = (task, seeds, data_with_limit(pair.mine, pair.split))
        for name, one in pair.differences.items():
            values = (_metric(pair.mine, pair.split, name), _metric(pair.theirs, pair.split, name))
            shown = f"{one.value:+.2f}" + _range(one, "+.2f") + " points"
            p = p_text(pair.corrected[name]) or one.method
            doubt = doubt_of_training(pair.mine, pair.theirs)
            p += f"; {doubt}" if doubt else ""
            found.append((*head, name, *(f"{value:.2f}" for value in values), shown, p))
        if pair.same:
            count, of = pair.same
            found.append(
                (*head, "same answers", "", "", f"{100 * count / of:.2f}%", f"{of - count:,} of {of:,} differ")
            )
        largest = max((load[2] for load in pair.ratios if load[0] == "offline"), default=0)
        one_size = ("single_stream", "multi_stream", "server")
        for load, one in pair.ratios.items():
            scenario, lengths, size, figure = load
            if lengths == "real" and (scenario != "offline" or size == largest):
                name = f"{figure}, {scenario}" + ("" if scenario in one_size else f", batch {size}")
                values = _speeds(pair, load)
                shown = f"{one.value:.3f}×" + _range(one, ".3f")
                p = p_text(pair.corrected[load]) or one.method
                found.append((*head, name, *(f"{value:.2f}" for value in values), shown, p))
    return found


def _told_apart(pair: Pair, pairs: Sequence[Pair]) -> list[str]:
    """Suite, machine and the two cells, each where the pairs have several."""

    def places(one: Pair) -> tuple[str, ...]:
        cells = tuple(f"{side} {entry.model}/{entry.label}" for side, entry in (("A", one.mine), ("B", one.theirs)))
        return one.mine.suite, machine_of_board(one.mine), *cells

    columns = zip(*map(places, pairs), strict=True)
    return [name for name, column in zip(places(pair), columns, strict=True) if len(set(column)) > 1]


def _range(one: PairedTest, form: str) -> str:
    return "" if one.low is None or one.high is None else f" [{one.low:{form}}, {one.high:{form}}]"


def title(pairs: Sequence[Pair]) -> str:
    """What A and B are, where all pairs agree on it."""

    def called(entries: Sequence[Record]) -> str:
        names = {f"{entry.label} of {entry.model}" for entry in entries}
        labels = {entry.label for entry in entries}
        return names.pop() if len(names) == 1 else labels.pop() if len(labels) == 1 else f"{len(names)} cells"

    return f"A: {called([pair.mine for pair in pairs])}; B: {called([pair.theirs for pair in pairs])}"


def notes(pairs: Sequence[Pair]) -> list[str]:
    """What one must know to read the table."""
    found = ["Differences are A less B in points, ratios A over B; p is Holm-corrected over the pairs of a figure."]
    if any(pair.ratios for pair in pairs):
        found.append("Of samples a second more is better, of milliseconds less.")
    if any(is_sample(pair.mine) for pair in pairs):
        found.append("SAMPLE DATA, generated by this project: nothing here says anything about real data.")
    if any(pair.ratios and machine_of_board(pair.mine) != machine_of_board(pair.theirs) for pair in pairs):
        found.append("Some ratios of speed are between different machines.")
    if any(other_training(pair.mine, pair.theirs) for pair in pairs):
        found.append(
            "Pairs with 'two trainings' come of two with the same settings: what training leaves to chance is in them, too."
        )
    if any(doubt_of_training(pair.mine, pair.theirs) == "training not known" for pair in pairs):
        found.append("Of pairs with 'training not known' no record tells whether both come of the same weights.")
    sides = [one for pair in pairs for one in (pair.mine, pair.theirs)]
    if wrong := sorted({f"{one.model}/{one.label}" for one in sides if not accuracy_stands(one)}):
        found.append(
            f"{', '.join(wrong)} computed something else than its name says, or no numbers: no figure of it is to be trusted."
        )
    if unsure := sorted({one.label for pair in pairs for one in (pair.mine, pair.theirs) if one.status == "invalid"}):
        found.append(
            f"A validity rule fails for {', '.join(unsure)}: its figures of speed are not to be trusted, but for those by turns."
        )
    return found


def to_markdown(pairs: Sequence[Pair]) -> str:
    def line(words: Sequence[str]) -> str:
        return "| " + " | ".join(word.replace("|", "\\|").replace("\n", " ") for word in words) + " |"

    table = [line(COLUMNS), "|" + " --- |" * len(COLUMNS), *(line(row) for row in rows(pairs))]
    return "\n".join([title(pairs), "", *table, "", *notes(pairs)])
