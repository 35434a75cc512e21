"""The columns of a board: their names, what they mean, and what each shows of a cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from harness.measure import percentiles, validity
from harness.measure.paired import LEVEL, MLPERF_BOUNDS, TOO_FEW, PairedTest
from harness.measure.precision import in_words
from harness.records.figure import Figure
from harness.records.schema import Record
from harness.records.speed_schema import Speed
from harness.report.comparability import is_padded, is_speed_invalid, wanted_precision
from harness.report.compare import Comparison, accuracy_of
from harness.report.rounded import rounded
from harness.report.shown_speed import latency_of, throughput_of
from harness.report.speed_ratios import INTERLEAVED, RATE, Load
from harness.report.tables import Column, Value, figure_value, formatted, mebibytes, number
from harness.suite.measure import Measure

ROUNDS = "Median over fresh processes (rounds) with the interval of order statistics; LoadGen's figures are means with Student's t interval, cut off at 0."


SOURCE = (
    "From interleaved rounds; in records without their latencies from LoadGen's offline and single-stream scenarios."
)


QPS = "QPS, real lengths"


SPEED_COLUMNS = (
    (throughput_of, "real", "qps", Column(QPS, "/s", f"Samples a second at the largest batch; batches hold samples of similar length, padded to the longest. {SOURCE} {ROUNDS}")),
    (latency_of, "real", "p50_ms", Column("p50", "ms", f"Median latency: one sample a query, at its own length. {SOURCE} {ROUNDS}")),
    (latency_of, "real", "p90_ms", Column("p90", "ms", f"90th percentile of latency at real lengths. {SOURCE} {ROUNDS}")),
    (latency_of, "real", "p99_ms", Column("p99", "ms", f"99th percentile of latency at real lengths. With fewer than {percentiles.TAIL_QUERIES} queries a round it is one of the slowest, and called so. {ROUNDS}")),
    (throughput_of, "fixed", "qps", Column("QPS, fixed length", "/s", f"Samples a second, every sample padded to max_length. {ROUNDS}")),
)  # fmt: skip


ACCURACY_COMPARED = (
    Column("rank", "", "The ranks that {metric} may hold among this table's cells of the same seed; 1 is the best. Every pair is tested on the same examples, with Holm's correction over all pairs; cells that cannot be distinguished share ranks. These are more tests than those against the baseline, so two cells may share ranks although their difference to the baseline is significant. A finding about speed does not exclude a cell."),
    Column("difference", "points", "{metric} less that of the cell's own baseline, paired over the same examples. The baseline has the same seed and runs on the baseline backend: it is the model itself, a QAT model's parent or a student's teacher. The test is McNemar's exact test for right-or-wrong metrics of independent examples, else Student's t with a linearised standard error, over groups where examples come in groups, such as the questions on one article. The interval is 95% for this cell alone; p is Holm-corrected over the table. 'other training': this cell does not descend from the baseline's weights, so nothing is compared or ranked; 'training not known': the records do not say whether it does."),
    Column("of baseline", "%", "{metric} as a share of the baseline's. MLPerf Inference asks its BERT entries for 99% or 99.9%; this is a badge, not a test. Below it is the share at both ends of the difference's 95% interval (not corrected; the baseline's figure is taken as exact). Where the bound lies between them, other examples might change the badge."),
)  # fmt: skip


SPEED_COMPARED = (
    Column("speed-up", "×", "Samples a second at real lengths over the baseline's. Interleaved: both ran the same batches alternately in fresh processes, and this is the ratio of their times. In records whose QPS is LoadGen's it need not equal the ratio of the two QPS, each measured alone. Where cells were not interleaved it is the ratio of the QPS. 95% interval over rounds; p is Holm-corrected over the column."),
    Column("same engine", "×", "The speed-up over the same engine on the same device in floating point, where that is not the baseline: what quantization did, without what the engine did. p is Holm-corrected over the cells compared in this way."),
    Column("batch 1", "×", "The speed-up over the baseline with batches of one sample at real lengths, interleaved: the ratio of the times for the same samples. p is Holm-corrected over the column."),
    Column("speed rank", "", "The ranks that samples a second at real lengths may hold among this table's interleaved cells of the same seed; 1 is the fastest. (By QPS, of valid cells, where that ranks more of them.) Holm's correction is over all pairs."),
)  # fmt: skip


COST_COLUMNS = (
    Column("INT8 share", "% of MACs", "Share of the multiply-accumulates that ran as integer products, by the engine's own placement."),
    Column("parameters", "million", "Numbers that the model computes with, whatever their precision."),
    Column("engine", "MiB", "Size of what the engine loads."),
    Column("peak memory", "MiB", "Peak resident memory of the cell's own process in its speed rounds; device memory is on the cell's page."),
    Column("cold start", "s", "From the start of the process to the first answer, with a warm page cache: the median of the rounds. Building the engine is not included."),
)  # fmt: skip


def board_columns(metrics: Sequence[str], split: str, load: str) -> tuple[Column, ...]:
    """metrics: by name, the primary one first; none where the rows have a speed alone. load: as `shown_load`."""
    columns = [Column(name, "%", f"{name}, official definition, {split}, with its 95% interval.") for name in metrics]
    if metrics:
        columns += [replace(column, title=column.title.format(metric=metrics[0])) for column in ACCURACY_COMPARED]
    for place, (*_, column) in enumerate(_speed_columns(load)):
        columns += [column, *(_at(load, compared) for compared in SPEED_COMPARED)] if not place else [column]
    return (*columns, *COST_COLUMNS)


def _speed_columns(load: str) -> list[tuple[Any, str, str, Column]]:
    """As SPEED_COLUMNS; of the load `fixed` alone the same figures at full length."""
    if load == "real":
        return list(SPEED_COLUMNS)
    own = [column for column in SPEED_COLUMNS if column[1] == "real"]
    return [(find, load, figure, _at(load, column)) for find, _, figure, column in own]


def _at(load: str, column: Column) -> Column:
    """A column about real lengths, or what it says of full length."""
    if load == "real":
        return column
    title = column.title.replace("at real lengths", "at max_length").replace("at its own length", "of max_length")
    title = title.replace(
        "; batches hold samples of similar length, padded to the longest", ", every sample padded to max_length"
    )
    return replace(column, name=column.name.replace("real lengths", "fixed length"), title=title)


def row_values(
    record: Record,
    split: str,
    metrics: Sequence[str],
    load: str,
    comparison: Comparison,
    engine: Comparison,
    *,
    name_baseline: bool,
) -> Iterable[Value]:
    """A value for each of `board_columns`. engine: the comparison with the same engine in floating point. name_baseline: the
    table has baselines of several models, so each row names its own."""
    if part := accuracy_of(record, split):
        yield from (figure_value(part.metrics.get(name)) for name in metrics)
        yield from _compared_accuracy(record, metrics[0], comparison, name_baseline=name_baseline)
    for place, (find, lengths, figure, _) in enumerate(_speed_columns(load)):
        speed = find(record, lengths)
        yield _speed_value(record, speed, figure)
        if not place:
            yield from _compared_speed(record, speed, comparison, engine)
    yield number(100 * record.flops.int8_share, ".1f") if record.flops else Value("")
    yield figure_value(Figure(value=record.checkpoint.parameters / 1e6)) if record.checkpoint else Value("")
    yield Value("simulation") if record.simulated else mebibytes(record.artifact_bytes)
    yield mebibytes(record.memory.peak_rss_bytes if record.memory else None)
    cold_start = record.cold_start_seconds
    yield figure_value(Figure(value=cold_start)) if cold_start is not None else Value("")


def _compared_accuracy(record: Record, primary: str, comparison: Comparison, *, name_baseline: bool) -> Iterable[Value]:
    """A value for each of ACCURACY_COMPARED."""
    yield rank_value(comparison.rank, comparison.ranked)
    if is_own_baseline(record, comparison):
        yield from (Value("baseline", 0.0), Value("baseline", 1.0))
        return
    test = comparison.differences.get(primary)
    own = f"; baseline {comparison.base.model}" if name_baseline and comparison.base else ""
    points = difference_value(test, comparison.corrected) if test else None
    yield replace(points, note=points.note + own) if points else Value(comparison.why_incomparable)
    share = share_value(record, comparison)
    yield replace(share, note=share.note + own) if share.text else share


def is_own_baseline(record: Record, comparison: Comparison) -> bool:
    return comparison.base is not None and comparison.base.record_id == record.record_id


def _speed_value(record: Record, speed: Speed | None, figure: str) -> Value:
    if speed is None:
        return Value(why_untimed(record))
    notes = [f"batch {speed.batch_size}"] if figure == "qps" else []
    if speed.load == "real" and is_padded(record):
        notes.append(f"padded to {speed.sequence_length}")
    value = getattr(speed, figure)
    words = [percentiles.in_words(speed, figure), in_words(value, wanted_precision(record))] if value else []
    notes += filter(None, words)
    shown = figure_value(value, note="; ".join(notes)) if value else Value(why_untimed(record))
    return replace(shown, invalid=why_speed_invalid(record, speed))


def _compared_speed(record: Record, speed: Speed | None, comparison: Comparison, engine: Comparison) -> Iterable[Value]:
    """A value for each of SPEED_COMPARED. speed: the one whose samples a second the table shows."""
    is_base = is_own_baseline(record, comparison)
    yield Value("baseline", 1.0) if is_base and speed else speed_up_value(record, comparison, comparison.speed_up)
    yield speed_up_value(record, engine, engine.speed_up)
    single: Load = (INTERLEAVED, speed.load if speed else "real", 1, RATE)
    has_single = any((turns.load, turns.batch_size) == (single[1], 1) for turns in record.turns)
    if speed is None or speed.batch_size == 1 or not has_single:
        yield Value("")
    elif is_base:
        yield Value("baseline", 1.0)
    else:
        yield speed_up_value(record, comparison, single if single in comparison.ratios else None)
    yield rank_value(comparison.speed_rank, comparison.speed_ranked)


def why_untimed(record: Record) -> str:
    if record.simulated:
        return "simulation"
    return "" if record.settings.get("measure", {}).get("rounds", 1) else "first seed only"


def speed_findings(record: Record, speed: Speed) -> str:
    """The findings about the figures of one scenario, load and batch size."""
    name = f"{validity.speed_name(speed)}:"
    return "; ".join(
        f"{finding.what.removeprefix(name).strip()} (measured {finding.measured}, bound {finding.bound})"
        for finding in record.faults
        if finding.what.startswith(name)
    )


HOLM = "Holm "


def difference_value(test: PairedTest, p: float | None, prefix: str = HOLM) -> Value:
    """Points with their interval and p, which `prefix` says is corrected; `not tested` where no test was made."""
    note = p_text(p, prefix) or "not tested"
    if test.method.startswith(TOO_FEW):
        note = "fewer than 2 differ"
    return formatted(test, "+.2f", note=note)


def speed_up_value(record: Record, comparison: Comparison, load: Load | None) -> Value:
    base = comparison.base
    if load is None:
        both_timed = base is not None and record.speed and base.speed
        return Value("other device" if both_timed and base and base.device != record.device else "")
    test = comparison.ratios[load]
    value = ratio_value(load, test, comparison.corrected_ratio(load), record, base)
    padded = ["padded"] if load[1] == "real" and is_padded(record) else []
    notes = [f"batch {load[2]}", *padded, value.note, in_words(test, wanted_precision(record))]
    return replace(value, note="; ".join(filter(None, notes)))


def ratio_value(
    load: Load, test: PairedTest, p: float | None, record: Record, base: Record | None, prefix: str = HOLM
) -> Value:
    """A ratio of speeds with its interval and Holm's p, or why there is none. A ratio of figures that were each measured alone
    also says which of the two is invalid."""
    note = p_text(p, prefix) or test.method
    if load[0] == INTERLEAVED:
        note += ", interleaved" if test.p is not None else ""
    else:
        base_name = "the baseline's" if base is None or base.baseline else f"{base.label}'s"
        sides = (("its own", record), (base_name, base))
        invalid = [name for name, side in sides if side and _is_load_invalid(side, load)]
        if invalid:
            note += f"; {' and '.join(invalid)} {'figures are' if invalid[1:] else 'figure is'} invalid"
    value = formatted(test, ".3f" if 0.8 < test.value < 1.25 else ".2f", note=note)
    return replace(value, text=f"{value.text}×")


def _is_load_invalid(record: Record, load: Load) -> bool:
    return any(
        is_speed_invalid(record, speed)
        for speed in record.speed
        if (speed.scenario, speed.load, speed.batch_size) == load[:3]
    )


def why_speed_invalid(record: Record, speed: Speed) -> str:
    return speed_findings(record, speed) or (record.why if is_speed_invalid(record, speed) else "")


def p_text(p: float | None, prefix: str = "") -> str:
    if p is None:
        return ""
    return prefix + ("p < 0.001" if p < 0.001 else f"p = {rounded(p, 3 if p < 0.1 else 2, LEVEL)}")


def rank_value(rank: tuple[int, int] | None, count: int) -> Value:
    if rank is None:
        return Value("")
    first, last = rank
    return Value(f"{first}" if first == last else f"{first}–{last}", first + last / 1000, note=f"of {count}")


def share_value(record: Record, comparison: Comparison) -> Value:
    """The share of the baseline's accuracy, with the bound that it meets: the suite's min_accuracy, or one of MLPerf's."""
    if comparison.share is None:
        return Value("")
    least = min_accuracy(record)
    met = max(
        [bound for bound in (comparison.bound, least) if bound and comparison.share >= bound],
        default=None,
    )
    note = f"meets {100 * met:g}%" if met and met >= least else f"below {100 * least:g}%"
    low, high = (f"{100 * end:.2f}" for end in comparison.share_range) if comparison.share_range else ("", "")
    shown = rounded(100 * comparison.share, 2, *(100 * bound for bound in (least, *MLPERF_BOUNDS)))
    return Value(f"{shown}%", comparison.share, low, high, note)


def min_accuracy(record: Record) -> float:
    """The share of the baseline's accuracy that the suite asks for."""
    return float(record.settings.get("measure", {}).get("min_accuracy", Measure.min_accuracy))
