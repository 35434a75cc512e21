"""From the rows of a board to the methods that the rule of `pick` chooses among."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from backends import FOR_ONNX_FILES, BackendError, get_backend
from harness.measure.paired import SAME, TOO_FEW
from harness.measure.percentiles import is_maximum
from harness.records.schema import Record
from harness.records.speed_schema import Turns
from harness.report.boards import Board, Row
from harness.report.comparability import has_valid_accuracy, is_speed_invalid
from harness.report.compare import accuracy_of
from harness.report.pick import Method, Ratio
from harness.report.shown_speed import latency_of, throughput_of
from harness.report.speed_ratios import INTERLEAVED, interleaved_ratio

MIB = 2**20
_EFFORT = {"ptq": 1, "qat": 2, "distill": 2}
"""By the recipe of a checkpoint: calibrated, trained. Anything else needs nothing but the model that is there."""


@dataclass(frozen=True)
class Contest:
    """The methods of one model on a board; a backend that ran on two devices makes two. baseline: what they are compared with. metric: what is kept. rows: of each method by
    its name, one a seed. simulated: rows that say what quantization costs in accuracy, and have no speed."""

    board: Board
    model: str
    metric: str
    baseline: Record
    methods: tuple[Method, ...]
    p_of_speed: Callable[[Method, Method], float | None]
    rows: Mapping[str, Sequence[Row]]
    simulated: tuple[Row, ...] = ()

    @property
    def baseline_name(self) -> str:
        return name_of(self, self.baseline.record_id) or self.baseline.label


def name_of(contest: Contest, record_id: str) -> str | None:
    """The name of the method that a record belongs to; None where it is none of the contest's."""
    for name, rows in contest.rows.items():
        if any(row.record.record_id == record_id for row in rows):
            return name
    return None


def contests(board: Board) -> list[Contest]:
    """One for each model of the board that has a baseline. A model's students and QAT variants are methods of it."""
    return [contest for model in board.by_ancestor if (contest := _contest(board, model))]


def methods_of(board: Board, model: str) -> list[tuple[Method, Record]]:
    """Every row of a model and of what descends from it as a method, with a record of it: also simulations, and rows without a
    valid accuracy or a baseline."""
    groups: dict[tuple[bool, str], list[Row]] = {}
    named = _names([row.record for row in board.by_ancestor.get(model, ())], model)
    for row in board.by_ancestor.get(model, ()):
        groups.setdefault((has_valid_accuracy(row.record), named[row.record.record_id]), []).append(row)
    return [(_method(name, rows, board.split), rows[0].record) for (_, name), rows in groups.items()]


def _contest(board: Board, model: str) -> Contest | None:
    groups: dict[str, list[Row]] = {}
    usable = [row for row in board.by_ancestor[model] if not row.record.simulated and has_valid_accuracy(row.record)]
    named = _names([row.record for row in usable], model)
    for row in usable:
        groups.setdefault(named[row.record.record_id], []).append(row)
    baseline = next((row.record for rows in groups.values() for row in rows if _is_baseline(row)), None)
    if baseline is None:
        return None
    records = {name: [row.record for row in rows] for name, rows in groups.items()}

    @cache
    def p_of(mine: str, theirs: str) -> float | None:
        pairs = ((a, b) for a in records[mine] for b in records[theirs] if a.seed == b.seed)
        tests = (interleaved_ratio((a, turns), b) for a, b in pairs if (turns := compared_turns(a)))
        return next((test.p for test in tests if test and test.p is not None), None)

    def p_of_speed(mine: Method, theirs: Method) -> float | None:
        return p_of(mine.name, theirs.name)

    methods = tuple(_method(name, rows, board.split) for name, rows in groups.items())
    simulated = [row for row in board.by_ancestor[model] if row.record.simulated]
    valid = tuple(row for row in simulated if has_valid_accuracy(row.record))
    return Contest(board, model, board.primary, baseline, methods, p_of_speed, groups, valid)


def _names(records: Sequence[Record], model: str) -> dict[str, str]:
    """By record id. Rows of one name on two devices are no seeds of one method: then the name says which."""
    names = {record.record_id: _name(record, model) for record in records}
    devices: dict[str, set[str]] = {}
    for record in records:
        devices.setdefault(names[record.record_id], set()).add(record.device)
    several = {name for name, own in devices.items() if len(own) > 1}
    return {
        record.record_id: names[record.record_id]
        + (f" ({record.device})" if names[record.record_id] in several else "")
        for record in records
    }


def _name(record: Record, model: str) -> str:
    """What a method is known by: a row's label, with the model where that is another one. A given file is known by its own name."""
    if record.model == model:
        return record.label
    return record.model if record.backend == FOR_ONNX_FILES == record.label else f"{record.model} {record.label}"


def _is_baseline(row: Row) -> bool:
    base = row.comparison.base
    return base is not None and base.record_id == row.record.record_id


def _method(name: str, rows: Sequence[Row], split: str) -> Method:
    """Several seeds count by their median; the ends of the intervals by the worst."""
    records = [row.record for row in rows]
    one_query = [speed for record in records if (speed := latency_of(record))]
    first = records[0]
    return Method(
        name=name,
        kept=_combined([ratio for row in rows if (ratio := kept_of(row, split))]),
        speed_up=_combined([ratio for row in rows if (ratio := _speed_up(row))]),
        p90_ms=_median([speed.p90_ms.value for speed in one_query if speed.p90_ms]),
        p99_ms=_median([speed.p99_ms.value for speed in one_query if speed.p99_ms and not is_maximum(speed, "p99_ms")]),
        size_mib=_median([record.artifact_bytes / MIB for record in records if record.artifact_bytes]),
        memory_mib=_median([record.memory.peak_rss_bytes / MIB for record in records if record.memory]),
        effort=max(_EFFORT.get(record.checkpoint.recipe, 0) if record.checkpoint else 0 for record in records),
        accuracy=_combined([ratio for record in records if (ratio := _score(record, split))]),
        title=_title_of(first, name),
    )


def _title_of(record: Record, name: str) -> str:
    """What tables call a method; empty where its own name must do."""
    title = _title(record.backend) if record.label == record.backend else ""
    if record.backend == FOR_ONNX_FILES:
        return record.model
    return title if name == record.label else f"{record.model} {title}" if title else ""


def _title(backend: str) -> str:
    """What tables call a backend; empty for one that is not installed here."""
    try:
        return str(getattr(get_backend(backend), "title", ""))
    except BackendError:
        return ""


def _score(record: Record, split: str) -> Ratio | None:
    """The primary metric, in percent."""
    accuracy = accuracy_of(record, split)
    figure = accuracy.metrics.get(accuracy.primary) if accuracy else None
    return Ratio(figure.value, figure.low, figure.high) if figure else None


def kept_of(row: Row, split: str) -> Ratio | None:
    """The share of its baseline's accuracy that a row keeps."""
    comparison = row.comparison
    if _is_baseline(row):
        return Ratio(1.0, 1.0, 1.0) if accuracy_of(row.record, split) else None
    if comparison.share is None:
        return None
    accuracy = accuracy_of(row.record, split)
    test = comparison.differences.get(accuracy.primary) if accuracy else None
    if test and test.method.startswith(TOO_FEW) and abs(test.value) <= SAME:  # the same answers
        return Ratio(1.0, 1.0, 1.0)
    low, high = comparison.share_range or (None, None)
    return Ratio(comparison.share, low, high)


def _speed_up(row: Row) -> Ratio | None:
    """Interleaved, or of two figures that are both valid: an invalid figure ranks nothing."""
    if _is_baseline(row):
        return Ratio(1.0, 1.0, 1.0) if row.record.speed or row.record.turns else None
    load, base = row.comparison.speed_up, row.comparison.base
    if load is None or base is None:
        return None
    if load[0] != INTERLEAVED and any(_is_offline_invalid(record) for record in (row.record, base)):
        return None
    test = row.comparison.ratios[load]
    return Ratio(test.value, test.low, test.high)


def _is_offline_invalid(record: Record) -> bool:
    speed = throughput_of(record)
    return speed is None or is_speed_invalid(record, speed)


def compared_turns(record: Record) -> Turns | None:
    """The interleaved rounds that the speed-up of tables is of, at the largest batch of offline load."""
    speed = throughput_of(record)
    return next(
        (turns for turns in record.turns if speed and (turns.load, turns.batch_size) == (speed.load, speed.batch_size)),
        None,
    )


def _combined(ratios: Sequence[Ratio]) -> Ratio | None:
    if not ratios:
        return None
    lows, highs = [ratio.low for ratio in ratios], [ratio.high for ratio in ratios]
    return Ratio(
        statistics.median(ratio.value for ratio in ratios),
        None if None in lows else min(low for low in lows if low is not None),
        None if None in highs else max(high for high in highs if high is not None),
    )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
