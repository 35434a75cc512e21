"""What follows from several cells together: differences to baselines, ratios of speed, ranks, spread over seeds.

Everything is derived from records and their per-example scores; nothing here changes a record.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from pydantic import TypeAdapter

from harness.measure.paired import PairedTest, bound_held, differences, holm
from harness.records.figure import Figure
from harness.records.schema import Accuracy, Record
from harness.records.scores import ScoreStore
from harness.report.comparability import has_valid_accuracy, training_settings, why_incomparable
from harness.report.ranks import RankRange, accuracy_ranks, interleaved_ranks, speed_ranks
from harness.report.shown_speed import throughput_of
from harness.report.speed_ratios import INTERLEAVED, RATE, Load, speed_ratios
from tasks import Scores


@dataclass(frozen=True)
class Comparison:
    """One cell of a board compared with its baseline, and its ranks among the board's cells of the same seed.

    base: None where the board has none.
    why_incomparable: why accuracy is not compared: the cell does not, or is not known to, descend from the baseline's weights.
    differences: by metric, in points, with uncorrected p.
    corrected: Holm's p of the primary metric over all cells of the board.
    share: the primary metric over the baseline's. share_range: the same at both ends of the difference's interval.
    bound: the strictest of MLPerf's bounds that the share meets, 0 for none.
    ratios: of speed, this cell's over the baseline's. corrected_ratios: Holm's p of each.
    speed_up: the ratio that tables show, of the largest batch at real lengths (else at full length): interleaved where both cells were, else of
    samples a second offline. corrected_speed_up: its Holm's p over the board.
    rank, speed_rank: None where the cell is not ranked. ranked, speed_ranked: how many cells were ranked.
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
    rank: RankRange | None = None
    ranked: int = 0
    speed_rank: RankRange | None = None
    speed_ranked: int = 0

    def corrected_ratio(self, load: Load) -> float | None:
        """Holm's p as the table shows it. The speed-ups are corrected together, every other figure on its own."""
        return self.corrected_speed_up if load == self.speed_up else self.corrected_ratios.get(load)


@dataclass(frozen=True)
class SeedSpread:
    """One model on one backend over its seeds: the part that chance plays in training and calibration, which no interval over
    examples includes. values in percent, points in points: lowest, median, highest. deviation: standard deviation."""

    model: str
    label: str
    device: str
    seeds: tuple[int, ...]
    values: tuple[float, float, float]
    deviation: float
    points: tuple[float, float, float] | None
    points_deviation: float | None = None
    why_incomparable: str = ""


def accuracy_of(record: Record, split: str) -> Accuracy | None:
    return next((part for part in record.accuracy if part.split == split), None)


def stands_on(record: Record, split: str) -> bool:
    """Whether it has a row on the board of a split. What has a speed alone stands on one without a split, which is named ""."""
    return record.speed_only if not split else accuracy_of(record, split) is not None


def ancestor_of(record: Record) -> str:
    """The model whose cell is the baseline: a QAT model's FP32 parent, a student's teacher, else the model itself."""
    return str(record.settings.get("ancestor") or record.model)


def baseline_of(record: Record, records: Sequence[Record]) -> Record | None:
    """The ancestor's cell of the same task and seed on the suite's baseline backend. Of several, the record itself comes
    first, then cells on the same device."""
    wanted = (ancestor_of(record), record.seed, record.task)
    baselines = [other for other in records if other.baseline and (other.model, other.seed, other.task) == wanted]
    baselines.sort(key=lambda other: (other.record_id != record.record_id, other.device != record.device))
    return baselines[0] if baselines else None


def unquantized_cell(record: Record, records: Sequence[Record]) -> Record | None:
    """The cell of the same model, task and seed on the same engine (first word of a backend's name), engine version and
    device, without a scheme and integer products; of several the one in FP32, then the one with the first name. None for a cell
    that has no integer products itself."""
    if record.flops is None or not record.flops.int8_share:
        return None
    floating = [
        other
        for other in records
        if other.flops and not other.flops.int8_share and not other.simulated and not other.scheme
    ]
    same_engine = [other for other in floating if _engine(other) == _engine(record)]
    return min(same_engine, key=lambda other: (not other.backend.endswith("_fp32"), other.backend), default=None)


def _engine(record: Record) -> tuple[object, ...]:
    name = record.backend.partition("_")[0]
    return name, record.model, record.seed, record.task, record.device, sorted(record.software.items())


def compare_engines(records: Sequence[Record], split: str, stored: ScoreStore) -> dict[str, Comparison]:
    """A board's cells with integer products, by record id, each compared with its own engine in floating point, unless that
    is its baseline. This is what quantization did, without what the engine did. Holm's correction is over these cells."""
    floating = {record.record_id: unquantized_cell(record, records) for record in records}
    comparisons = {
        record.record_id: _compare(record, base, split, stored)
        for record in records
        if (base := floating[record.record_id]) and base is not baseline_of(record, records)
    }
    compared = [record for record in records if record.record_id in comparisons]
    return _with_corrections(_with_speed_ups(compared, comparisons), primary_of(records, split))


def compare_board(
    records: Sequence[Record], split: str, stored: ScoreStore, *, for_pick: bool = False
) -> dict[str, Comparison]:
    """By record id, the cells of one board (same task, split, machine and examples), compared and ranked. for_pick: without
    ranks, and of the metrics only the primary one."""
    baselines = [record for record in records if record.baseline]
    bases = {record.record_id: baseline_of(record, baselines) for record in records}
    primary = primary_of(records, split)
    metrics = [primary] if for_pick else None
    comparisons = {
        record.record_id: _compare(record, bases[record.record_id], split, stored, metrics) for record in records
    }
    comparisons = _with_corrections(_with_speed_ups(records, comparisons), primary)
    if for_pick:
        return comparisons
    for seed in dict.fromkeys(record.seed for record in records):
        accurate = [record for record in records if record.seed == seed and has_valid_accuracy(record)]
        comparable = [record for record in accurate if not comparisons[record.record_id].why_incomparable]
        for record_id, (count, rank) in accuracy_ranks(comparable, split, primary, stored).items():
            comparisons[record_id] = replace(comparisons[record_id], rank=rank, ranked=count)
        for record_id, (count, rank) in max(interleaved_ranks(accurate), speed_ranks(accurate), key=len).items():
            comparisons[record_id] = replace(comparisons[record_id], speed_rank=rank, speed_ranked=count)
    return comparisons


def primary_of(records: Sequence[Record], split: str) -> str:
    """The metric of the records' accuracies that ranks; empty where they have none."""
    return next((part.primary for record in records if (part := accuracy_of(record, split))), "")


def _compare(
    record: Record, base: Record | None, split: str, stored: ScoreStore, metrics: Collection[str] | None = None
) -> Comparison:
    if base is None or base.record_id == record.record_id:
        return Comparison(base=base)
    mine, theirs = accuracy_of(record, split), accuracy_of(base, split)
    reason = why_incomparable(record, base)
    if mine is None or theirs is None or reason:
        return Comparison(base=base, why_incomparable=reason, ratios=speed_ratios(record, base))
    value, base_value = mine.metrics.get(mine.primary), theirs.metrics.get(mine.primary)
    tests = tested(record, base, split, stored, metrics)
    if tests is None:
        value = base_value = None
        tests = {}
    return Comparison(
        base=base,
        differences=tests,
        share=value.value / base_value.value if value and base_value and base_value.value > 0 else None,
        share_range=_share_range(tests.get(mine.primary), base_value),
        bound=bound_held(value.value, base_value.value) if value and base_value else None,
        ratios=speed_ratios(record, base),
    )


def tested(
    record: Record, base: Record, split: str, stored: ScoreStore, metrics: Collection[str] | None = None
) -> dict[str, PairedTest] | None:
    """As `compare_metrics`; None where the two answered different examples. Both have an accuracy of the split."""
    mine, theirs = accuracy_of(record, split), accuracy_of(base, split)
    assert mine and theirs

    def make() -> dict[str, PairedTest] | None:
        scores = stored.scores(record, split, metrics or ()), stored.scores(base, split, metrics or ())
        return None if different_examples(*scores) else compare_metrics(mine, theirs, *scores, metrics=metrics)

    return stored.once(f"differences {metrics}", [record, base], split, make, _tests())


@cache
def _tests() -> TypeAdapter[dict[str, PairedTest] | None]:
    return TypeAdapter(dict[str, PairedTest] | None)


def _share_range(points: PairedTest | None, base: Figure | None) -> tuple[float, float] | None:
    """The baseline's own figure is taken as exact: the difference is what is uncertain."""
    if points is None or points.low is None or points.high is None or base is None or base.value <= 0:
        return None
    return 1 + points.low / base.value, 1 + points.high / base.value


def compare_metrics(
    mine: Accuracy,
    theirs: Accuracy,
    my_scores: Scores | None,
    their_scores: Scores | None,
    *,
    metrics: Collection[str] | None = None,
) -> dict[str, PairedTest]:
    """The difference of every metric that both have, or of those in `metrics`. Without scores to test it has no p, and `method` says why. Empty where
    the two answered different examples."""
    tests: dict[str, PairedTest] = {}
    if different_examples(my_scores, their_scores):
        return tests
    for name, figure in mine.metrics.items():
        if name not in theirs.metrics or (metrics is not None and name not in metrics):
            continue
        reason = _why_untested(name, my_scores, their_scores)
        if reason or my_scores is None or their_scores is None:
            tests[name] = PairedTest(figure.value - theirs.metrics[name].value, method=f"not tested: {reason}")
        else:
            (tests[name],) = differences([my_scores, their_scores], name, [(0, 1)])
    return tests


def _why_untested(metric: str, mine: Scores | None, theirs: Scores | None) -> str:
    if mine is None or theirs is None:
        return "per-example scores are not stored for both"
    if metric not in mine.statistics or metric not in theirs.statistics:
        return "this metric's resampling is not defined"
    return ""


def different_examples(mine: Scores | None, theirs: Scores | None) -> bool:
    """Whether both are stored and belong to different examples."""
    return mine is not None and theirs is not None and not same_examples(mine, theirs)


def same_examples(mine: Scores, theirs: Scores) -> bool:
    a, b = mine.per_example["id"], theirs.per_example["id"]
    if a is not b and (a.shape != b.shape or not bool((a == b).all())):
        return False
    labels = mine.per_example.get("label"), theirs.per_example.get("label")
    if labels[0] is None or labels[1] is None or labels[0] is labels[1]:
        return True
    return bool((labels[0] == labels[1]).all())


def _with_speed_ups(records: Sequence[Record], comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    chosen: dict[str, Load] = {}
    for record in records:
        part, ratios = throughput_of(record), comparisons[record.record_id].ratios
        base = comparisons[record.record_id].base
        if part is None or base is None or not (has_valid_accuracy(record) and has_valid_accuracy(base)):
            continue
        preferred: list[Load] = [
            (INTERLEAVED, part.load, part.batch_size, RATE),
            ("offline", part.load, part.batch_size, "qps"),
        ]
        if available := [load for load in preferred if load in ratios]:
            chosen[record.record_id] = available[0]
    corrected = holm([comparisons[record_id].ratios[load].p for record_id, load in chosen.items()])
    p = dict(zip(chosen, corrected, strict=True))
    return {
        record_id: replace(comparison, speed_up=chosen.get(record_id), corrected_speed_up=p.get(record_id))
        for record_id, comparison in comparisons.items()
    }


def _with_corrections(comparisons: Mapping[str, Comparison], primary: str) -> dict[str, Comparison]:
    """Holm's correction over these cells: of the primary metric, and of each speed figure (a column) on its own."""
    primary_tests = [comparison.differences.get(primary) for comparison in comparisons.values()]
    of_primary = holm([test.p if test else None for test in primary_tests])
    loads = dict.fromkeys(load for comparison in comparisons.values() for load in comparison.ratios)
    corrected: dict[str, dict[Load, float | None]] = {record_id: {} for record_id in comparisons}
    for load in loads:
        ids = [record_id for record_id, comparison in comparisons.items() if load in comparison.ratios]
        for record_id, p in zip(ids, holm([comparisons[name].ratios[load].p for name in ids]), strict=True):
            corrected[record_id][load] = p
    return {
        record_id: replace(comparison, corrected=p, corrected_ratios=corrected[record_id])
        for (record_id, comparison), p in zip(comparisons.items(), of_primary, strict=True)
    }


def seed_spreads(records: Sequence[Record], split: str, comparisons: Mapping[str, Comparison]) -> list[SeedSpread]:
    """One for each model, backend and device with cells of more than one seed, trained with the same settings on the same
    data."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if has_valid_accuracy(record) and accuracy_of(record, split):
            cell = (record.model, record.label, record.device, training_settings(record))
            groups.setdefault(cell, []).append(record)
    return [_seed_spread(group, split, comparisons) for group in groups.values() if len(group) > 1]


def _seed_spread(records: Sequence[Record], split: str, comparisons: Mapping[str, Comparison]) -> SeedSpread:
    values, points = [], []
    records = sorted(records, key=lambda record: record.seed)
    for record in records:
        part = accuracy_of(record, split)
        assert part is not None
        values.append(part.metrics[part.primary].value)
        test = comparisons[record.record_id].differences.get(part.primary)
        points += [test.value] if test else []
    reasons = [comparisons[record.record_id].why_incomparable for record in records]
    return SeedSpread(
        records[0].model,
        records[0].label,
        records[0].device,
        tuple(record.seed for record in records),
        _low_median_high(values),
        statistics.stdev(values),
        _low_median_high(points) if len(points) == len(records) else None,
        statistics.stdev(points) if len(points) == len(records) else None,
        next(filter(None, reasons), ""),
    )


def _low_median_high(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)
