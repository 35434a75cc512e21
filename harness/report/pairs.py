"""Two sets of records compared, pair by pair: `quantboard compare A B`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from harness.errors import QuantboardError, markdown
from harness.measure.paired import PairedTest, holm
from harness.measure.precision import in_words
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.records.store import select
from harness.report.columns import p_text
from harness.report.comparability import (
    TRAINING_UNKNOWN,
    data_with_limit,
    examples_of,
    has_valid_accuracy,
    is_sample,
    limit_of,
    machine_of,
    retrained_between,
    training_caveat,
    wanted_precision,
)
from harness.report.compare import compare_metrics
from harness.report.rounded import rounded
from harness.report.shown_speed import shown_load
from harness.report.speed_ratios import INTERLEAVED, RATE, Load, figure_words, shared_rounds, speed_ratios

COLUMNS = ("task", "seed", "data", "figure", "A", "B", "A against B [95%]", "p, Holm")


@dataclass(frozen=True)
class Pair:
    """Two records compared on one split: differences of every metric, and ratios of every speed figure that both have.

    same_answers: the number of examples to which both gave the same answer (label or text), and of all; None where answers
    are scores or not stored. corrected: Holm's p of each metric and each speed figure, over all pairs that are shown together.
    """

    mine: Record
    theirs: Record
    split: str
    differences: Mapping[str, PairedTest]
    ratios: Mapping[Load, PairedTest]
    same_answers: tuple[int, int] | None = None
    corrected: Mapping[str | Load, float | None] = field(default_factory=dict)


def pair_up(records: Sequence[Record], mine: str, theirs: str, tasks: Sequence[str], stored: ScoreStore) -> list[Pair]:
    """Each measured record that `mine` names with the closest one that `theirs` names.

    Both must be scored on the same task and examples. Where there is a choice, the same suite, seed, machine, model, device,
    scheme and label are preferred, in this order. Two backends of several models are paired within each model only. Raises
    QuantboardError where no pair fits.
    """
    for task in tasks:
        if task not in {record.task for record in records}:
            raise QuantboardError(
                f"--task: no record of '{task}'; there are {_listed(record.task for record in records)}"
            )
    if mine == theirs:
        raise QuantboardError(
            f"both names are the same, '{mine}'; name two that differ, as MODEL/LABEL or by record id"
        )
    chosen = [record for record in records if not tasks or record.task in tasks]
    measured, unmeasured = (
        [record for record in chosen if bool(record.accuracy or record.speed_only) == has] for has in (True, False)
    )
    left, right = (select(measured, name, lacking=unmeasured, what="figures") for name in (mine, theirs))
    if [record.record_id for record in left] == [record.record_id for record in right] and len(left) == 1:
        raise QuantboardError(f"'{mine}' and '{theirs}' mean the same record, {left[0].record_id}")
    model_names = {name for record in chosen for name in (record.model, f"{record.model}/{record.label}")}
    names_a_model = bool({mine, theirs} & model_names)
    several_models = len({record.model for record in left}) > 1 and len({record.model for record in right}) > 1
    pairs: list[Pair] = []
    for record in left:
        candidates = [other for other in right if other.record_id != record.record_id and _fits(record, other)]
        if not names_a_model and several_models:
            candidates = [other for other in candidates if other.model == record.model]
        if not names_a_model and mine == record.backend:  # a backend with any scheme, not a label that names one
            candidates = [other for other in candidates if theirs != other.backend or _scheme_fits(record, other)]
        if not candidates:
            continue
        closest = _closest(record, candidates, theirs)
        if len(left) > 1 and len(right) > 1 and closest.seed != record.seed:
            continue  # otherwise one cell would be paired with every seed of the other
        if record in right and closest.model != record.model:
            continue  # the other name means this record as well
        pairs += _compare(record, closest, stored)
    if not pairs:
        raise QuantboardError(
            f"no record of '{mine}' and '{theirs}' has the same task and examples (of two backends also the same scheme);"
            " `quantboard site` shows what there is"
        )
    return _with_corrections(pairs)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names))) or "none"


def _fits(record: Record, other: Record) -> bool:
    mine, theirs = ((side.task, examples_of(side), side.speed_only) for side in (record, other))
    return mine == theirs


def _scheme_fits(record: Record, other: Record) -> bool:
    return None in (record.scheme, other.scheme) or record.scheme == other.scheme


def _closest(record: Record, candidates: Sequence[Record], name: str) -> Record:
    """The candidate that agrees with the record in most. Raises QuantboardError where several cells are equally close."""
    closest = min(candidates, key=lambda other: _distance(record, other))
    equally = [other for other in candidates if _distance(record, other) == _distance(record, closest)]
    cells = {f"{other.model}/{other.label}" for other in equally}
    if len(cells) > 1:
        raise QuantboardError(
            f"'{name}' means several cells to compare with {record.model}/{record.label}: {_listed(cells)}; name one of them"
        )
    return closest


def _distance(record: Record, other: Record) -> tuple[bool, ...]:
    return (
        record.suite != other.suite,
        record.seed != other.seed,
        machine_of(record) != machine_of(other),
        retrained_between(record, other),
        record.model != other.model,
        record.device != other.device,
        (record.backend, record.scheme) != (other.backend, other.scheme),
        record.label != other.label,
    )


def _compare(record: Record, other: Record, stored: ScoreStore) -> list[Pair]:
    """A pair for each split; the ratios of speed are with the first. Of random weights one pair, without a split."""
    if record.speed_only:
        return [Pair(record, other, "", {}, speed_ratios(record, other))]
    pairs = []
    for number, part in enumerate(record.accuracy):
        theirs = next((accuracy for accuracy in other.accuracy if accuracy.split == part.split), None)
        if theirs is not None:
            scores = stored.scores(record, part.split), stored.scores(other, part.split)
            tests = compare_metrics(part, theirs, *scores)
            valid = has_valid_accuracy(record) and has_valid_accuracy(other)
            ratios = speed_ratios(record, other) if valid and not number else {}
            answers = same_answers(record, other, part.split, stored)
            pairs.append(Pair(record, other, part.split, tests, ratios, answers))
    return pairs


def same_answers(record: Record, other: Record, split: str, stored: ScoreStore) -> tuple[int, int] | None:
    """To how many of all examples both gave the same answer, right or wrong: how close a simulation and its engine are, for
    instance. None where answers are scores or not stored."""
    mine, theirs = (stored.columns(side, split, predictions=True) for side in (record, other))
    if mine is None or theirs is None or not ("prediction" in mine and "prediction" in theirs):
        return None
    a, b = mine["prediction"], theirs["prediction"]
    if a.dtype.kind == "f" or b.dtype.kind == "f" or not np.array_equal(mine.get("id"), theirs.get("id")):  # type: ignore[arg-type]
        return None
    return int((a == b).sum()), len(a)


def _with_corrections(pairs: Sequence[Pair]) -> list[Pair]:
    figures: dict[str | Load, None] = {}
    for pair in pairs:
        figures |= dict.fromkeys(pair.differences) | dict.fromkeys(pair.ratios)
    tables: list[dict[str | Load, float | None]] = [{} for _ in pairs]
    for figure in figures:
        places = [place for place, pair in enumerate(pairs) if figure in pair.differences or figure in pair.ratios]
        corrected = holm([_test_of(pairs[place], figure).p for place in places])
        for place, p in zip(places, corrected, strict=True):
            tables[place][figure] = p
    return [replace(pair, corrected=table) for pair, table in zip(pairs, tables, strict=True)]


def _test_of(pair: Pair, figure: str | Load) -> PairedTest:
    return pair.differences[figure] if isinstance(figure, str) else pair.ratios[figure]


def to_json(pair: Pair) -> dict[str, Any]:
    """Unrounded; `a` and `b` in percent for metrics, in the figure's own unit for speed."""
    mine, theirs = pair.mine, pair.theirs

    def side(record: Record) -> dict[str, Any]:
        names = ("record_id", "suite", "model", "label", "seed", "finished")
        return {name: getattr(record, name) for name in names} | {"status": record.standing}

    return {
        "a": side(mine),
        "b": side(theirs),
        "task": mine.task,
        "split": pair.split,
        "data": data_with_limit(mine, pair.split),
        "limit": limit_of(mine),
        "same_machine": machine_of(mine) == machine_of(theirs),
        "other_training": retrained_between(mine, theirs),
        "training": training_caveat(mine, theirs),
        "differences": {
            name: {"a": _metric(mine, pair.split, name), "b": _metric(theirs, pair.split, name)}
            | asdict(test)
            | {"p_holm": pair.corrected[name]}
            for name, test in pair.differences.items()
        },
        "same_answers": {"count": pair.same_answers[0], "of": pair.same_answers[1]} if pair.same_answers else None,
        "ratios": [
            dict(zip(("scenario", "load", "batch_size", "figure"), load, strict=True))
            | dict(zip(("a", "b"), _speeds(pair, load), strict=True))
            | asdict(test)
            | {"p_holm": pair.corrected[load]}
            for load, test in pair.ratios.items()
        ],
    }


def _metric(record: Record, split: str, name: str) -> float:
    return next(part.metrics[name].value for part in record.accuracy if part.split == split)


def _speeds(pair: Pair, load: Load) -> tuple[float, float]:
    """Of both, in the figure's own unit; of interleaved rounds the geometric mean over the rounds that they share."""
    scenario, lengths, batch_size, figure = load
    if (scenario, figure) == (INTERLEAVED, RATE):
        mine, theirs = (
            next(turns for turns in record.turns if (turns.load, turns.batch_size) == (lengths, batch_size))
            for record in (pair.mine, pair.theirs)
        )
        shared = shared_rounds(mine, theirs)
        a, b = ([round_.samples / round_.seconds for round_ in side] for side in zip(*shared, strict=True))
        return statistics.geometric_mean(a), statistics.geometric_mean(b)
    parts = (
        next(part for part in record.speed if (part.scenario, part.load, part.batch_size) == load[:3])
        for record in (pair.mine, pair.theirs)
    )
    a_value, b_value = (float(getattr(part, figure).value) for part in parts)
    return a_value, b_value


def rows(pairs: Sequence[Pair]) -> list[tuple[str, ...]]:
    """As COLUMNS: every metric, and of speed what the tables show (their load; of offline the largest batch)."""
    lines = []
    for pair in pairs:
        task = pair.mine.task + (f" {pair.split}" if len(pair.mine.accuracy) > 1 else "")
        task = ", ".join([task, *distinctions(pair, pairs)])
        seeds = str(pair.mine.seed) if pair.mine.seed == pair.theirs.seed else f"{pair.mine.seed}, {pair.theirs.seed}"
        head = (task, seeds, data_with_limit(pair.mine, pair.split))
        caveat = training_caveat(pair.mine, pair.theirs)
        for name, test in pair.differences.items():
            values = (_metric(pair.mine, pair.split, name), _metric(pair.theirs, pair.split, name))
            shown = f"{test.value:+.2f}" + _interval(test, "+.2f") + " points"
            p = p_text(pair.corrected[name]) or test.method
            p += f"; {caveat}" if caveat else ""
            lines.append((*head, name, *(f"{value:.2f}" for value in values), shown, p))
        if pair.same_answers:
            count, total = pair.same_answers
            share, differ = f"{rounded(100 * count / total, 2, 100)}%", f"{total - count:,} of {total:,} differ"
            lines.append((*head, "same answers", "", "", share, differ))
        largest = max((load[2] for load in pair.ratios if load[0] == "offline"), default=0)
        fixed_batch = ("single_stream", "multi_stream", "server")
        for load, test in pair.ratios.items():
            scenario, lengths, batch_size, _ = load
            if lengths == shown_load(pair.mine) and (scenario != "offline" or batch_size == largest):
                name = f"{figure_words(load, pair.mine)}, {scenario}" + (
                    "" if scenario in fixed_batch else f", batch {batch_size}"
                )
                values = _speeds(pair, load)
                words = in_words(test, wanted_precision(pair.mine))
                shown = f"{test.value:.3f}×" + _interval(test, ".3f") + (f" {words}" if words else "")
                p = p_text(pair.corrected[load]) or test.method
                lines.append((*head, name, *(f"{value:.2f}" for value in values), shown, p))
    return lines


def distinctions(pair: Pair, pairs: Sequence[Pair]) -> list[str]:
    """Suite, machine and the two cells, each where it differs between the pairs."""

    def properties(pair: Pair) -> tuple[str, ...]:
        sides = (("A", pair.mine), ("B", pair.theirs))
        cells = tuple(f"{side} {record.model}/{record.label}" for side, record in sides)
        return pair.mine.suite, machine_of(pair.mine), *cells

    columns = zip(*map(properties, pairs), strict=True)
    return [name for name, column in zip(properties(pair), columns, strict=True) if len(set(column)) > 1]


def _interval(test: PairedTest, form: str) -> str:
    return "" if test.low is None or test.high is None else f" [{test.low:{form}}, {test.high:{form}}]"


def title(pairs: Sequence[Pair]) -> str:
    """What A and B are, where all pairs agree on it."""

    def name(records: Sequence[Record]) -> str:
        names = {f"{record.label} of {record.model}" for record in records}
        labels = {record.label for record in records}
        return names.pop() if len(names) == 1 else labels.pop() if len(labels) == 1 else f"{len(names)} cells"

    return f"A: {name([pair.mine for pair in pairs])}; B: {name([pair.theirs for pair in pairs])}"


def notes(pairs: Sequence[Pair]) -> list[str]:
    """What a reader must know to understand the table."""
    lines = ["Differences are A less B in points, ratios A over B; p is Holm-corrected over the pairs of a figure."]
    if any(pair.ratios for pair in pairs):
        lines.append("For samples a second more is better, for milliseconds less.")
    if any(is_sample(pair.mine) for pair in pairs):
        lines.append("SAMPLE DATA, generated by this project: nothing here says anything about real data.")
    if any(pair.ratios and machine_of(pair.mine) != machine_of(pair.theirs) for pair in pairs):
        lines.append("Some ratios of speed are between different machines.")
    if any(retrained_between(pair.mine, pair.theirs) for pair in pairs):
        lines.append(
            "'two trainings': a model of the pair was trained twice with the same settings; chance in training is part of"
            " the difference."
        )
    if any(training_caveat(pair.mine, pair.theirs) == TRAINING_UNKNOWN for pair in pairs):
        lines.append(f"'{TRAINING_UNKNOWN}': the records do not say whether both descend from the same weights.")
    sides = [record for pair in pairs for record in (pair.mine, pair.theirs)]
    if wrong := sorted({f"{record.model}/{record.label}" for record in sides if not has_valid_accuracy(record)}):
        lines.append(
            f"{', '.join(wrong)}: computed something other than the name says, or no finite numbers. Do not trust any of"
            " its figures."
        )
    if invalid := sorted({record.label for record in sides if record.standing == "invalid"}):
        lines.append(
            f"A validity rule fails for {', '.join(invalid)}: do not trust its speed figures, except interleaved ones."
        )
    return lines


def to_markdown(pairs: Sequence[Pair]) -> str:
    def line(words: Sequence[str]) -> str:
        return "| " + " | ".join(map(markdown, words)) + " |"

    table = [line(COLUMNS), "|" + " --- |" * len(COLUMNS), *(line(row) for row in rows(pairs))]
    return "\n".join([markdown(title(pairs)), "", *table, "", *map(markdown, notes(pairs))])
