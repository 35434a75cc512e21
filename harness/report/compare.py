"""What can only be said of cells side by side: differences to baselines, ratios of speed, ranks, spread over seeds.

Derived from records and their per-example scores; nothing here reaches back into a cell.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from harness.measure.paired import PairedTest, all_pairs, bound_held, differences, holm, rank_ranges, ratio, told_apart
from harness.records.figure import Figure
from harness.records.schema import Accuracy, Record
from harness.records.scores import ScoreStore
from harness.records.speed_schema import Speed, Turns
from harness.report.comparability import accuracy_stands, conditions, trained_as, why_incomparable
from harness.report.speed_ratios import RATE, TURNS, Load, by_turns, rounds_of, speed_ratios, took_turns
from tasks import Scores

Item = TypeVar("Item")


Range = tuple[int, int]


@dataclass(frozen=True)
class Comparison:
    """One cell of a board against its baseline, and its ranks among the board's cells of the same seed.

    base: None where the board has none. why_incomparable: why accuracy is not compared: the baseline's weights are not, or are
    not known to be, those that this cell comes of. differences: by metric, in points, with uncorrected p. corrected: Holm's p of the
    primary metric over all cells of the board. share: of the baseline's primary metric, share_range: the same of the ends of
    that difference's interval; bound: the strictest of MLPerf's that the share holds, 0 for none. ratios: mine over the baseline's. speed_up: the one that tables show, of the largest batch at
    real lengths: by turns, or where both took none together of samples a second offline; with Holm's p over the board.
    """

    base: Record | None = None
    why_incomparable: str = ""
    differences: Mapping[str, PairedTest] = field(default_factory=dict)
    corrected: float | None = None
    share: float | None = None
    share_range: tuple[float, float] | None = None
    bound: float | None = None
    ratios: Mapping[Load, PairedTest] = field(default_factory=dict)
    corrected_ratios: Mapping[Load, float | None] = field(default_factory=dict)
    speed_up: Load | None = None
    corrected_speed_up: float | None = None
    rank: Range | None = None
    ranked: int = 0
    speed_rank: Range | None = None
    speed_ranked: int = 0

    def corrected_ratio(self, load: Load) -> float | None:
        """Holm's p as the table has it: what it shows as speed-up is one family, every other figure one of its own."""
        return self.corrected_speed_up if load == self.speed_up else self.corrected_ratios.get(load)


@dataclass(frozen=True)
class OverSeeds:
    """One model on one backend over its seeds: what training and calibration leave to chance, which no interval over
    examples holds. Percent and points; lowest, median, highest."""

    model: str
    label: str
    device: str
    seeds: tuple[int, ...]
    values: tuple[float, float, float]
    deviation: float
    points: tuple[float, float, float] | None
    points_deviation: float | None = None
    why_incomparable: str = ""


def accuracy_of(entry: Record, split: str) -> Accuracy | None:
    return next((part for part in entry.accuracy if part.split == split), None)


def speed_of(entry: Record, scenario: str, load: str) -> Speed | None:
    """A record's speed in a scenario under a load; of its largest batch."""
    parts = [part for part in entry.speed if part.scenario == scenario and part.load == load]
    return max(parts, key=lambda part: part.batch_size, default=None)


def ancestor_of(entry: Record) -> str:
    """The model whose cell is the baseline: a QAT model's FP32 parent, a student's teacher, else the model itself."""
    return str(entry.settings.get("ancestor") or entry.model)


def baseline_of(entry: Record, entries: Sequence[Record]) -> Record | None:
    """The ancestor's cell of the same task and seed on the suite's baseline backend; of several the entry itself, else one of
    the same device."""
    wanted = (ancestor_of(entry), entry.seed, entry.task)
    found = [one for one in entries if one.baseline and (one.model, one.seed, one.task) == wanted]
    found.sort(key=lambda one: (one.record_id != entry.record_id, one.device != entry.device))
    return found[0] if found else None


def unquantized_of(entry: Record, entries: Sequence[Record]) -> Record | None:
    """The cell of the same model, task and seed on the same engine (first word of a backend's name), its same version and the
    same device, without a scheme and integer products; of several the one with the first name. None for a cell that has no
    integer products itself."""
    if entry.flops is None or not entry.flops.int8_share:
        return None
    plain = [one for one in entries if one.flops and not one.flops.int8_share and not one.simulated and not one.scheme]
    return min((one for one in plain if _engine(one) == _engine(entry)), key=lambda one: one.backend, default=None)


def _engine(entry: Record) -> tuple[object, ...]:
    name = entry.backend.partition("_")[0]
    return name, entry.model, entry.seed, entry.task, entry.device, sorted(entry.software.items())


def compare_engines(entries: Sequence[Record], split: str, stored: ScoreStore) -> dict[str, Comparison]:
    """Of a board's cells with integer products, by record id: each against its own engine without them, where that is not the
    baseline anyway. What quantization did, apart from what the engine did; Holm's correction over these cells."""
    plain = {entry.record_id: unquantized_of(entry, entries) for entry in entries}
    found = {
        entry.record_id: _against(entry, base, split, stored)
        for entry in entries
        if (base := plain[entry.record_id]) and base is not baseline_of(entry, entries)
    }
    compared = [entry for entry in entries if entry.record_id in found]
    return _corrected(_with_speed_up(compared, found), _primary(entries, split))


def compare_board(entries: Sequence[Record], split: str, stored: ScoreStore) -> dict[str, Comparison]:
    """Of cells that stand side by side (one task and split, one machine, the same examples), by record id."""
    base = {entry.record_id: baseline_of(entry, entries) for entry in entries}
    found = {entry.record_id: _against(entry, base[entry.record_id], split, stored) for entry in entries}
    primary = _primary(entries, split)
    found = _corrected(_with_speed_up(entries, found), primary)
    for seed in dict.fromkeys(entry.seed for entry in entries):
        valid = [entry for entry in entries if entry.seed == seed and entry.status == "ok"]
        stands = [entry for entry in entries if entry.seed == seed and accuracy_stands(entry)]
        kin = [entry for entry in stands if not found[entry.record_id].why_incomparable]
        for name, (count, rank) in _accuracy_ranks(kin, split, primary, stored).items():
            found[name] = replace(found[name], rank=rank, ranked=count)
        for name, (count, rank) in max(_turn_ranks(stands), _speed_ranks(valid), key=len).items():
            found[name] = replace(found[name], speed_rank=rank, speed_ranked=count)
    return found


def _primary(entries: Sequence[Record], split: str) -> str:
    return next((part.primary for entry in entries if (part := accuracy_of(entry, split))), "")


def _against(entry: Record, base: Record | None, split: str, stored: ScoreStore) -> Comparison:
    if base is None or base.record_id == entry.record_id:
        return Comparison(base=base)
    mine, theirs = accuracy_of(entry, split), accuracy_of(base, split)
    stranger = why_incomparable(entry, base)
    if mine is None or theirs is None or stranger:
        return Comparison(base=base, why_incomparable=stranger, ratios=speed_ratios(entry, base))
    scores = stored.scores(entry, split), stored.scores(base, split)
    one, other = mine.metrics.get(mine.primary), theirs.metrics.get(mine.primary)
    if apart(*scores):
        one = other = None
    found = compare_metrics(mine, theirs, *scores)
    return Comparison(
        base=base,
        differences=found,
        share=one.value / other.value if one and other and other.value > 0 else None,
        share_range=_share_range(found.get(mine.primary), other),
        bound=bound_held(one.value, other.value) if one and other else None,
        ratios=speed_ratios(entry, base),
    )


def _share_range(points: PairedTest | None, base: Figure | None) -> tuple[float, float] | None:
    """The baseline's own figure is taken as it is: what is uncertain is the difference."""
    if points is None or points.low is None or points.high is None or base is None or base.value <= 0:
        return None
    return 1 + points.low / base.value, 1 + points.high / base.value


def compare_metrics(
    mine: Accuracy, theirs: Accuracy, my_scores: Scores | None, their_scores: Scores | None
) -> dict[str, PairedTest]:
    """Of every metric that both have; without a test, and with the reason, where there are no scores to test. Nothing where
    the two answered other examples: such figures have no difference."""
    found: dict[str, PairedTest] = {}
    if apart(my_scores, their_scores):
        return found
    for name, figure in mine.metrics.items():
        if name not in theirs.metrics:
            continue
        why = _why_not(name, my_scores, their_scores)
        if why or my_scores is None or their_scores is None:
            found[name] = PairedTest(figure.value - theirs.metrics[name].value, method=f"not tested: {why}")
        else:
            (found[name],) = differences([my_scores, their_scores], name, [(0, 1)])
    return found


def _why_not(metric: str, mine: Scores | None, theirs: Scores | None) -> str:
    if mine is None or theirs is None:
        return "per-example scores are not stored for both"
    if metric not in mine.statistics or metric not in theirs.statistics:
        return "this metric's resampling is not defined"
    return ""


def apart(mine: Scores | None, theirs: Scores | None) -> bool:
    """Whether both are known and are of other examples."""
    return mine is not None and theirs is not None and not same_examples(mine, theirs)


def same_examples(mine: Scores, theirs: Scores) -> bool:
    a, b = mine.per_example["id"], theirs.per_example["id"]
    if a.shape != b.shape or not bool((a == b).all()):
        return False
    if "label" in mine.per_example and "label" in theirs.per_example:
        return bool((mine.per_example["label"] == theirs.per_example["label"]).all())
    return True


def _with_speed_up(entries: Sequence[Record], found: Mapping[str, Comparison]) -> dict[str, Comparison]:
    chosen: dict[str, Load] = {}
    for entry in entries:
        part, ratios = speed_of(entry, "offline", "real"), found[entry.record_id].ratios
        base = found[entry.record_id].base
        if part is None or base is None or not (accuracy_stands(entry) and accuracy_stands(base)):
            continue
        named: list[Load] = [(TURNS, "real", part.batch_size, RATE), ("offline", "real", part.batch_size, "qps")]
        if there := [name for name in named if name in ratios]:
            chosen[entry.record_id] = there[0]
    corrected = holm([found[name].ratios[load].p for name, load in chosen.items()])
    p = dict(zip(chosen, corrected, strict=True))
    return {
        name: replace(one, speed_up=chosen.get(name), corrected_speed_up=p.get(name)) for name, one in found.items()
    }


def _corrected(found: Mapping[str, Comparison], primary: str) -> dict[str, Comparison]:
    """Holm's correction over these cells: of the primary metric, and of each figure of speed (a column) of its own."""
    of_primary = holm([one.differences[primary].p if primary in one.differences else None for one in found.values()])
    columns = dict.fromkeys(load for one in found.values() for load in one.ratios)
    corrected: dict[str, dict[Load, float | None]] = {name: {} for name in found}
    for load in columns:
        names = [name for name, one in found.items() if load in one.ratios]
        for name, p in zip(names, holm([found[name].ratios[load].p for name in names]), strict=True):
            corrected[name][load] = p
    return {
        name: replace(one, corrected=p, corrected_ratios=corrected[name])
        for (name, one), p in zip(found.items(), of_primary, strict=True)
    }


def _accuracy_ranks(
    entries: Sequence[Record], split: str, primary: str, stored: ScoreStore
) -> dict[str, tuple[int, Range]]:
    """(how many were ranked, rank range) of the cells that have scores of the same examples, the largest such set."""
    known = [(entry, scores) for entry in entries if (scores := stored.scores(entry, split))]
    known = [one for one in known if primary in one[1].statistics]
    ranked = _largest_set(known, lambda one, other: same_examples(one[1], other[1]))
    pairs = all_pairs(len(ranked))
    found = differences([scores for _, scores in ranked], primary, pairs)
    return _named([entry for entry, _ in ranked], told_apart(pairs, found, even=0.0))


def _turn_ranks(entries: Sequence[Record]) -> dict[str, tuple[int, Range]]:
    """By samples a second at real lengths, batch as in the table, by turns: of the cells that all took turns with one another
    and could be tested, the largest such set. That the figures of each alone differ between rounds is no matter here."""
    shown = [(entry, part.batch_size) for entry in entries if (part := speed_of(entry, "offline", "real"))]
    known = [
        (entry, one) for entry, size in shown for one in entry.turns if (one.load, one.batch_size) == ("real", size)
    ]
    ranked = _largest_set(known, lambda one, other: _tested(other, one[0]))
    pairs = all_pairs(len(ranked))
    found = [by_turns(ranked[mine], ranked[theirs][0]) for mine, theirs in pairs]
    return _named([entry for entry, _ in ranked], told_apart(pairs, [one for one in found if one], even=1.0))


def _tested(mine: tuple[Record, Turns], other: Record) -> bool:
    found = by_turns(mine, other)
    return found is not None and found.p is not None


def _speed_ranks(entries: Sequence[Record]) -> dict[str, tuple[int, Range]]:
    """By samples a second, offline at real lengths, largest batch: of the cells that were measured by turns under the same
    conditions, the largest such set."""
    known = [(entry, part) for entry in entries if (part := speed_of(entry, "offline", "real"))]
    ranked = _largest_set(known, lambda one, other: conditions(*one) == conditions(*other) and took_turns(one, other))
    pairs = all_pairs(len(ranked))
    values = [rounds_of(part, "qps") for _, part in ranked]
    found = [ratio(values[mine], values[theirs], by_turns=True) for mine, theirs in pairs]
    return _named([entry for entry, _ in ranked], told_apart(pairs, found, even=1.0))


def _largest_set(items: Sequence[Item], fit: Callable[[Item, Item], bool]) -> list[Item]:
    """Of items that all fit one another; each joins the first set that it fits."""
    sets: list[list[Item]] = []
    for item in items:
        fitting = next((some for some in sets if all(fit(one, item) for one in some)), None)
        if fitting is None:
            sets.append([item])
        else:
            fitting.append(item)
    return max(sets, key=len, default=[])


def _named(entries: Sequence[Record], beats: Sequence[tuple[int, int]]) -> dict[str, tuple[int, Range]]:
    """Nothing where there is nobody to be ranked against."""
    if len(entries) < 2:
        return {}
    ranges = rank_ranges(len(entries), beats)
    return {entry.record_id: (len(entries), rank) for entry, rank in zip(entries, ranges, strict=True)}


def over_seeds(entries: Sequence[Record], split: str, beside: Mapping[str, Comparison]) -> list[OverSeeds]:
    """A line for every model and backend on a device that has cells of more than one seed, trained with the same settings on
    the same data."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for entry in entries:
        if accuracy_stands(entry) and accuracy_of(entry, split):
            groups.setdefault((entry.model, entry.label, entry.device, trained_as(entry)), []).append(entry)
    return [_over_seeds(group, split, beside) for group in groups.values() if len(group) > 1]


def _over_seeds(entries: Sequence[Record], split: str, beside: Mapping[str, Comparison]) -> OverSeeds:
    values, points = [], []
    entries = sorted(entries, key=lambda entry: entry.seed)
    for entry in entries:
        part = accuracy_of(entry, split)
        assert part is not None
        values.append(part.metrics[part.primary].value)
        one = beside[entry.record_id].differences.get(part.primary)
        points += [one.value] if one else []
    return OverSeeds(
        entries[0].model,
        entries[0].label,
        entries[0].device,
        tuple(entry.seed for entry in entries),
        _three(values),
        statistics.stdev(values),
        _three(points) if len(points) == len(entries) else None,
        statistics.stdev(points) if len(points) == len(entries) else None,
        next((why for entry in entries if (why := beside[entry.record_id].why_incomparable)), ""),
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)
