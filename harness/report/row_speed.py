"""How fast a row is, as pictures: every round beside the interval that was made of them, for the row and its baseline."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.measure.paired import PairedTest
from harness.measure.percentiles import in_words as percentile_words
from harness.measure.percentiles import is_maximum
from harness.measure.precision import half_width, in_words
from harness.records.figure import Figure
from harness.records.schema import Record
from harness.records.speed_schema import Conditions, Speed, Turns
from harness.report.comparability import is_speed_invalid, wanted_precision
from harness.report.compare import Comparison
from harness.report.shown_speed import latency_of
from harness.report.speed_ratios import INTERLEAVED, RATE, Load, interleaved_conditions, shared_rounds
from harness.report.strips import Line, Strips, strips

LATENCIES = ("p50_ms", "p90_ms", "p99_ms")


@dataclass(frozen=True)
class SpeedPicture:
    """base: what the baseline is called; empty for a row without one. ratios_title, ratios: times the baseline, or samples a second
    where there is no baseline. engine: the ratio to the same engine in floating point. latency: of the row, then of the baseline, for each percentile. ceiling:
    shares of what the processor can multiply. conditions: in one line."""

    base: str
    ratios_title: str
    ratios: Strips | None
    remark: str
    engine: str
    latency: Strips | None
    latency_note: str
    ceiling: Strips | None
    conditions: str


def speed_picture(
    record: Record, comparison: Comparison, engine: Comparison | None, *, kind: str, base_name: str, engine_name: str
) -> SpeedPicture | None:
    """comparison: with the baseline. engine: with its own engine in floating point. kind: of the row's method. None where it has no
    speed."""
    if not (record.speed or record.turns):
        return None
    base = comparison.base
    base = None if base is None or base.record_id == record.record_id else base
    found = ratio_lines(record, base, comparison, kind) if base else []
    lines = found or rate_lines(record, kind)
    own = latency_of(record)
    return SpeedPicture(
        base=base_name if base else "",
        ratios_title=f"Times {base_name}" if found else "Samples a second",
        ratios=strips(lines, "rounds", "×", include=(1.0,))
        if found
        else strips(lines, "rounds", ends=_from_zero(lines)),
        remark=_remark(lines, found=bool(found)),
        engine=_engine_words(engine, engine_name),
        latency=_latency(record, own, base, kind),
        latency_note=_latency_note(record, own),
        ceiling=_ceiling(record, kind),
        conditions=conditions_line(record),
    )


def ratio_lines(record: Record, base: Record, comparison: Comparison, kind: str) -> list[Line]:
    """Samples a second over the baseline's: interleaved where both were, else of each measured alone. The largest batch first."""
    loads = [load for load in comparison.ratios if load[0] == INTERLEAVED and load[3] == RATE]
    loads = loads or [load for load in comparison.ratios if (load[0], load[3]) == ("offline", "qps")]
    ordered = sorted(loads, key=lambda load: (load[1] != "real", -load[2]))
    return [_ratio_line(record, base, load, comparison.ratios[load], kind) for load in ordered]


def _ratio_line(record: Record, base: Record, load: Load, test: PairedTest, kind: str) -> Line:
    rounds = [(value, f"round {place + 1}: {value:.3f}×") for place, value in enumerate(_rounds_of(record, base, load))]
    return Line(
        _batch_words(load[1], load[2]),
        f"{test.value:.2f}×",
        f"{test.low:.2f}–{test.high:.2f}" if test.low is not None and test.high is not None else "no interval",
        test.value,
        test.low,
        test.high,
        kind,
        _imprecise(test, record),
        rounds,
        ((1.0, "zero"),),
    )


def _rounds_of(record: Record, base: Record, load: Load) -> list[float]:
    """The ratio in each interleaved round; none of figures that were measured alone."""
    if load[0] != INTERLEAVED:
        return []
    mine = next(turns for turns in record.turns if (turns.load, turns.batch_size) == load[1:3])
    conditions = interleaved_conditions(record, mine)
    theirs = next((turns for turns in base.turns if interleaved_conditions(base, turns) == conditions), None)
    return [b.seconds / a.seconds for a, b in shared_rounds(mine, theirs)] if theirs else []


def rate_lines(record: Record, kind: str) -> list[Line]:
    """Samples a second at each batch size, with every round: interleaved where there are such figures, else offline."""
    for scenario in (INTERLEAVED, "offline"):
        parts = [part for part in record.speed if part.scenario == scenario]
        if parts:
            return [_rate_line(record, part, kind) for part in sorted(parts, key=lambda one: -one.batch_size)]
    return []


def _rate_line(record: Record, part: Speed, kind: str) -> Line:
    figure = part.qps
    dots = [(one.qps, f"round {place + 1}: {one.qps:.2f} a second") for place, one in enumerate(part.rounds)]
    label = _batch_words(part.load, part.batch_size) + (", invalid" if is_speed_invalid(record, part) else "")
    return Line(
        label,
        f"{figure.value:.1f}",
        f"{figure.low:.1f}–{figure.high:.1f}" if figure.low is not None and figure.high is not None else "no interval",
        figure.value,
        figure.low,
        figure.high,
        kind,
        _imprecise(figure, record),
        dots,
    )


def _batch_words(load: str, batch: int) -> str:
    words = "One at a time" if batch == 1 else f"Batch {batch}"
    return words if load == "real" else f"{words}, fixed length"


def _imprecise(figure: Figure | PairedTest, record: Record) -> str:
    width = half_width(figure)
    wanted = wanted_precision(record)
    return in_words(figure, wanted) if width is not None and width > wanted else ""


def _remark(lines: Sequence[Line], *, found: bool) -> str:
    rounds = sorted({len(line.dots) for line in lines if line.dots})
    if rounds:
        count = " or ".join(map(str, rounds))
        how = "interleaved rounds" if found else "rounds"
        return f"{count} {how}, first on top, 95% band" if rounds != [1] else "one round"
    return "each measured alone, so no rounds to pair" if found else ""


def _from_zero(lines: Sequence[Line]) -> tuple[float, float] | None:
    values = [value for line in lines for value in (line.value, line.high, *(dot for dot, _ in line.dots)) if value]
    return (0.0, 1.05 * max(values)) if values else None


def _engine_words(engine: Comparison | None, name: str) -> str:
    if engine is None or engine.base is None or engine.speed_up is None:
        return ""
    test = engine.ratios[engine.speed_up]
    interval = f" ({test.low:.2f}–{test.high:.2f})" if test.low is not None and test.high is not None else ""
    return f"Against {name}, so without what the engine alone gives: {test.value:.2f}×{interval}."


def _latency(record: Record, own: Speed | None, base: Record | None, kind: str) -> Strips | None:
    """The row's line of each percentile, and below it the baseline's where that was measured likewise."""
    if own is None:
        return None
    other = latency_of(base) if base else None
    if other and (other.scenario, other.batch_size) != (own.scenario, own.batch_size):
        other = None
    lines = []
    for name in LATENCIES:
        mine = getattr(own, name)
        if mine is None:
            continue
        label = name[:3] if not is_maximum(own, name) else percentile_words(own, name)
        lines.append(_latency_line(own, name, mine, label, kind, record))
        theirs = getattr(other, name) if other else None
        if other and base and theirs:
            label = percentile_words(other, name) if is_maximum(other, name) and not is_maximum(own, name) else ""
            lines.append(_latency_line(other, name, theirs, label, "baseline", base, hollow=True))
    return strips(lines, "rounds", ends=_from_zero(lines))


def _latency_line(
    part: Speed, name: str, figure: Figure, label: str, kind: str, record: Record, *, hollow: bool = False
) -> Line:
    values = [(place, getattr(one, name)) for place, one in enumerate(part.rounds)]
    dots = [(value, f"round {place + 1}: {value:.2f} ms") for place, value in values if value is not None]
    return Line(
        label,
        f"{figure.value:.1f}",
        value=figure.value,
        kind=kind,
        imprecise=_imprecise(figure, record),
        dots=dots,
        hollow=hollow,
    )


def _latency_note(record: Record, own: Speed | None) -> str:
    """How many queries stand behind it, and how the rounds were run."""
    if own is None:
        return ""
    how = "interleaved" if own.scenario == INTERLEAVED else "alone"
    invalid = "; a validity rule fails" if is_speed_invalid(record, own) else ""
    return f"measured {how}, {len(own.rounds)} round{'s' if len(own.rounds) > 1 else ''}{invalid}"


def _ceiling(record: Record, kind: str) -> Strips | None:
    if record.roofline is None:
        return None
    shares = [one for one in record.roofline.shares if one.scenario == INTERLEAVED] or record.roofline.shares
    lines = [
        Line(
            _batch_words(one.load, one.batch_size),
            f"{100 * one.share:.0f}%",
            f"{one.operations_a_second / 1e9:.0f} Gop/s",
            100 * one.share,
            kind=kind,
        )
        for one in sorted(shares, key=lambda one: -one.batch_size)
    ]
    return strips(lines, "bar", "%", ends=(0.0, 100.0))


def conditions_line(record: Record) -> str:
    """What disturbed the measurement, in one line. Of all interleaved rounds; without these, of all tests that were watched."""
    rounds = [round_ for turns in record.turns for round_ in turns.rounds]
    watched = [one.conditions for part in record.speed for one in part.rounds if one.conditions]
    others = [one.other_cpu_percent for one in rounds] or [one.other_cpu_percent for one in watched]
    steal = [one.steal_percent for one in rounds] or [one.steal_percent for one in watched]
    return " ".join([*_pool(watched, record.turns), *_taken(others, steal), *_warm_up(record), *_energy(record)])


def _pool(watched: Sequence[Conditions], turns: Sequence[Turns]) -> Iterable[str]:
    if watched:
        yield f"{watched[0].threads} threads on {len(watched[0].affinity)} processors."
    elif turns:
        yield f"{len(turns[0].rounds[0].affinity)} processors."


def _taken(others: Sequence[float], steal: Sequence[float]) -> Iterable[str]:
    if not others:
        yield "What else ran was not recorded."
        return
    yield (
        f"Other processes took {statistics.fmean(others):.1f}% (worst round {max(others):.1f}%), the hypervisor"
        f" {statistics.fmean(steal):.1f}% (worst {max(steal):.1f}%)."
    )


def _warm_up(record: Record) -> Iterable[str]:
    ended = [one.warmup_ended for part in _alone(record) for one in part.rounds if one.warmup_ended]
    if ended:
        steady = sum(words.startswith("steady") for words in ended)
        which = "every round" if steady == len(ended) else f"{steady} of {len(ended)} rounds"
        yield f"Warm-up ended steady in {which}."


def _energy(record: Record) -> Iterable[str]:
    measured = next((part for part in record.speed if part.joules_a_query), None)
    if measured and measured.joules_a_query:
        yield f"{measured.joules_a_query.value:.3g} J a sample ({measured.scenario}, batch {measured.batch_size})."
    elif source := next((part.energy_source for part in _alone(record) if part.energy_source), ""):
        yield f"Energy {source}."


def _alone(record: Record) -> list[Speed]:
    """What was measured while no other cell took turns."""
    return [part for part in record.speed if part.scenario != INTERLEAVED]
