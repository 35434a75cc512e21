"""What the page of a cell shows of its speed: each scenario, the conditions, interleaved rounds, and the cold start."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.measure import percentiles
from harness.measure.precision import in_words
from harness.records.figure import Figure
from harness.records.schema import Record
from harness.records.speed_schema import Speed, Turns
from harness.report.columns import why_speed_invalid
from harness.report.comparability import is_padded, wanted_precision
from harness.report.tables import Column, Table, Value, formatted, number, text_columns


@dataclass(frozen=True)
class SpeedSection:
    """profile: whose settings LoadGen ran with; is_mlperf: MLPerf's. remarks: a sentence each, after the profile."""

    table: Table
    profile: str
    is_mlperf: bool
    remarks: tuple[str, ...]
    conditions: Table | None
    conditions_remark: str


def speed_section(record: Record) -> SpeedSection:
    first = record.speed[0]
    bounds = (
        f"Server, {speed.load} lengths: the highest rate of arrivals whose 99th percentile stays within"
        f" {speed.latency_bound_ms:g} ms."
        for speed in record.speed
        if speed.latency_bound_ms
    )
    timed = dict.fromkeys(speed.timed for speed in record.speed)
    watched = [speed for speed in record.speed if speed.rounds[0].conditions]
    return SpeedSection(
        table=_speed_table(record),
        profile=first.profile,
        is_mlperf=first.profile == "mlperf",
        remarks=(f"{first.qps.method}.", *bounds, f"Timed: {' '.join(timed)}"),
        conditions=_conditions_table(watched) if watched else None,
        conditions_remark=_conditions_remark(watched[0]) if watched else "",
    )


def _speed_table(record: Record) -> Table:
    figures = ("qps", "mean_ms", "p50_ms", "p90_ms", "p99_ms")
    names = ("samples/s", "mean ms", "p50 ms", "p90 ms", "p99 ms")
    columns = (
        *text_columns("scenario", "load"),
        Column("batch"),
        *map(Column, names),
        Column("rounds"),
        *text_columns("rules"),
    )
    rows = []
    for speed in record.speed:
        padded = speed.load == "fixed" or is_padded(record)
        tokens = f"padded to {speed.sequence_length} tokens" if padded else f"{speed.mean_tokens:.0f} tokens on average"
        place = (Value(speed.scenario), Value(f"{speed.load}, {tokens}"), Value(str(speed.batch_size)))
        values = (_speed_value(record, speed, figure) for figure in figures)
        reason = why_speed_invalid(record, speed)
        rows.append((*place, *values, Value(str(len(speed.rounds))), Value("", invalid=reason)))
    return Table("Speed", columns, tuple(rows))


def _speed_value(record: Record, speed: Speed, name: str) -> Value:
    figure: Figure | None = getattr(speed, name)
    if figure is None:
        return Value("")
    words = percentiles.in_words(speed, name), in_words(figure, wanted_precision(record))
    return formatted(figure, note="; ".join(filter(None, words)))


def _conditions_table(watched: Sequence[Speed]) -> Table:
    columns = (
        *text_columns("scenario", "load"),
        Column("batch"),
        Column("warm-up", "s, longest round"),
        Column("other processes", "% of its processors, worst round"),
        Column("in line", "% of the time that threads waited for a processor, worst round"),
        Column("steal", "% taken by the hypervisor, worst round"),
        Column("clocks", "MHz, lowest to highest"),
        Column("energy", "J a sample"),
    )
    return Table("Conditions", columns, tuple(map(_conditions_row, watched)))


def _conditions_row(speed: Speed) -> tuple[Value, ...]:
    rounds = [round_.conditions for round_ in speed.rounds if round_.conditions]
    clocks = [conditions.gpu.sm_mhz for conditions in rounds if conditions.gpu and conditions.gpu.sm_mhz]
    clocks = clocks or [conditions.cpu_mhz for conditions in rounds if conditions.cpu_mhz]
    lowest_to_highest = (
        f"{min(clock.lowest for clock in clocks):.0f} to {max(clock.highest for clock in clocks):.0f}" if clocks else ""
    )
    return (
        Value(speed.scenario),
        Value(speed.load),
        Value(str(speed.batch_size)),
        number(max(round_.warmup_seconds for round_ in speed.rounds), ".1f"),
        number(max(conditions.other_cpu_percent for conditions in rounds), ".1f"),
        number(max((each.waited_percent for each in rounds if each.waited_percent is not None), default=None), ".1f"),
        number(max(conditions.steal_percent for conditions in rounds), ".1f"),
        Value(lowest_to_highest),
        formatted(speed.joules_a_query, ".3g"),
    )


def _conditions_remark(speed: Speed) -> str:
    conditions = speed.rounds[0].conditions
    assert conditions is not None
    clocks = ""
    if conditions.gpu:
        clocks = " Clocks of the GPU, by NVML."
    elif conditions.cpu_mhz_source:
        clocks = f" Clocks of the processor: {conditions.cpu_mhz_source}."
    threads = f"{conditions.threads} threads on {len(conditions.affinity)} processors."
    return f"{threads} Energy: {speed.energy_source}.{clocks}"


def interleaved_table(turns: Sequence[Turns]) -> Table:
    columns = (
        *text_columns("load"),
        Column("batch"),
        Column("rounds"),
        Column("batches", "a round"),
        Column("calls of each", "a round"),
        Column("samples", "in all rounds"),
        Column("other processes", "%, mean and worst round"),
        Column("steal", "%, mean and worst round"),
    )
    return Table("Interleaved rounds", columns, tuple(map(_interleaved_row, turns)))


def _interleaved_row(turns: Turns) -> tuple[Value, ...]:
    rounds = turns.rounds

    def distinct(counts: Iterable[int]) -> Value:
        return Value(" or ".join(map(str, sorted(set(counts)))))

    def mean_and_worst(percents: Sequence[float]) -> Value:
        return Value(f"{statistics.fmean(percents):.1f}, {max(percents):.1f}")

    return (
        Value(turns.load),
        Value(str(turns.batch_size)),
        Value(str(len(rounds))),
        distinct(round_.batches for round_ in rounds),
        distinct(round_.passes for round_ in rounds),
        Value(str(sum(round_.samples for round_ in rounds))),
        mean_and_worst([round_.other_cpu_percent for round_ in rounds]),
        mean_and_worst([round_.steal_percent for round_ in rounds]),
    )


def cold_start_table(record: Record) -> Table | None:
    cold = record.cold_start
    if cold is None:
        return None
    parts: tuple[tuple[str, Figure], ...] = (
        ("process and imports", cold.process_seconds),
        ("engine and checkpoint", cold.load_seconds),
        ("first query", cold.first_query_seconds),
    )
    rows = [(Value(name), formatted(figure), Value(figure.method)) for name, figure in parts]
    rows.append((Value("whole"), number(record.cold_start_seconds), Value("median of the rounds, as in the table")))
    build = record.build_seconds
    built = Value("nothing to build, or from the cache") if build is None else number(build)
    rows.append((Value("build, once"), built, Value("")))
    columns = (*text_columns("part"), Column("time", "s, 95%"), *text_columns("how"))
    return Table("Cold start", columns, tuple(rows))
