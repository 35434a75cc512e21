from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.measure import validity
from harness.measure.paired import TOO_FEW, PairedTest
from harness.records.figure import Figure
from harness.records.schema import Record
from harness.records.speed_schema import Speed
from harness.report.comparability import (
    is_padded,
)
from harness.report.compare import Comparison, accuracy_of, speed_of
from harness.report.speed_ratios import RATE, TURNS, Load
from harness.suite.measure import Measure


@dataclass(frozen=True)
class Value:
    """What a table cell shows, and what it is sorted by (None sorts last)."""

    text: str
    order: float | None = None
    low: str = ""
    high: str = ""
    note: str = ""
    invalid: str = ""
    """The finding about this very figure."""


@dataclass(frozen=True)
class Column:
    name: str
    unit: str
    title: str
    """What the figure means, shown when the header is pointed at and in the list below the table."""


SPEED_COLUMNS = (
    ("offline", "real", "qps", "QPS, real lengths", "/s", "Samples a second, offline: all samples at hand, sorted by length, batches padded to their longest. {rounds}"),
    ("single_stream", "real", "p50_ms", "p50", "ms", "Median latency, single stream: one sample a query, at its own length. {rounds}"),
    ("single_stream", "real", "p90_ms", "p90", "ms", "90th percentile of latency, single stream at real lengths (MLPerf's figure for single stream). {rounds}"),
    ("single_stream", "real", "p99_ms", "p99", "ms", "99th percentile of latency, single stream at real lengths. {rounds}"),
    ("offline", "fixed", "qps", "QPS, fixed length", "/s", "Samples a second, offline, every sample padded to max_length. {rounds}"),
)  # fmt: skip


ROUNDS = "Mean over fresh processes (rounds) and Student's t interval over them, cut off at 0: an interval that reaches 0 says that a few rounds were too few."


QPS = "QPS, real lengths"


COMPARED = (
    ("rank", "", "Ranks that {metric} may hold among this table's cells of the same seed, 1 the best (a finding about speed alone takes nothing from it): every pair is tested on the same examples, with Holm's correction over all pairs, and cells that cannot be told apart share ranks. That is more tests than those against the baseline, so two cells may share ranks whose difference is significant."),
    ("difference", "points", "{metric} less that of the cell's own baseline (same seed; the model itself, a QAT model's parent or a student's teacher, on the baseline backend), paired over the same examples: McNemar's exact test for right-or-wrong metrics of independent examples, else a paired bootstrap, which resamples SQuAD's articles. The interval is 95% for this cell alone; p is Holm-corrected over the table. 'other training': this cell's weights do not come of the baseline's, and nothing is compared or ranked; 'training not known': whether they do cannot be told."),
    ("of baseline", "%", "{metric} as a share of the baseline's. MLPerf Inference asks its BERT entries for 99% or 99.9%; a badge, not a test. Below it the share at both ends of the difference's 95% interval (not corrected; the baseline's figure taken as it is): where the bound lies between them, other examples might turn the badge."),
)  # fmt: skip


SPEED_COMPARED = (
    ("speed-up", "×", "How many times the baseline's samples a second, at real lengths: by turns, the ratio of the times that both took for the same batches, run alternately in fresh processes (so it need not be the ratio of the two QPS, each measured alone, and stands where one of those is invalid); where they took no turns, the ratio of the QPS. 95% interval over rounds; p is Holm-corrected over the column."),
    ("same engine", "×", "The speed-up over the same engine on the same device in floating point, where that is not the baseline: what quantization did, apart from what the engine did. p is Holm-corrected over the cells that are compared so."),
    ("batch 1", "×", "The speed-up over the baseline of batches of one sample at real lengths, by turns: the ratio of the times that both took for the same samples. p is Holm-corrected over the column."),
    ("speed rank", "", "Ranks that samples a second at real lengths may hold among this table's cells of the same seed that took turns, 1 the fastest, by turns (by QPS, of valid cells, where more of them can be ranked so); Holm's correction over all pairs."),
)  # fmt: skip


def _values(
    entry: Record, split: str, names: Sequence[str], beside: Comparison, to_engine: Comparison, *, name_base: bool
) -> Iterable[Value]:
    """name_base: the table has baselines of several models, so that a row says which is its own."""
    part = accuracy_of(entry, split)
    assert part is not None
    for name in names:
        yield figure(part.metrics.get(name))
    yield rank(beside.rank, beside.ranked)
    is_base = beside.base is not None and beside.base.record_id == entry.record_id
    found = beside.differences.get(names[0])
    own = f"; baseline {beside.base.model}" if name_base and beside.base else ""
    if is_base:
        yield from (Value("baseline", 0.0), Value("baseline", 1.0))
    else:
        points = difference(found, beside.corrected) if found else None
        yield replace(points, note=points.note + own) if points else Value(beside.why_incomparable)
        kept = share(entry, beside)
        yield replace(kept, note=kept.note + own) if kept.text else kept
    for scenario, load, quantity, name, *_ in SPEED_COLUMNS:
        speed = speed_of(entry, scenario, load)
        value = getattr(speed, quantity) if speed else None
        note = f"batch {speed.batch_size}" if speed and scenario == "offline" else ""
        if speed and load == "real" and is_padded(entry):
            note = "; ".join(filter(None, [note, f"padded to {speed.sequence_length}"]))
        shown = figure(value, note=note) if value else Value(why_untimed(entry))
        yield replace(shown, invalid=why_in_doubt(entry, speed)) if speed else shown
        if name == QPS:
            yield Value("baseline", 1.0) if is_base and speed else speed_up(entry, beside, beside.speed_up)
            yield speed_up(entry, to_engine, to_engine.speed_up)
            alone: Load = (TURNS, "real", 1, RATE)
            single = any((one.load, one.batch_size) == ("real", 1) for one in entry.turns)
            if speed is None or speed.batch_size == 1 or not single:
                yield Value("")
            else:
                yield (
                    Value("baseline", 1.0)
                    if is_base
                    else speed_up(entry, beside, alone if alone in beside.ratios else None)
                )
            yield rank(beside.speed_rank, beside.speed_ranked)
    yield Value(f"{100 * entry.flops.int8_share:.1f}", entry.flops.int8_share) if entry.flops else Value("")
    yield figure(Figure(value=entry.checkpoint.parameters / 1e6)) if entry.checkpoint else Value("")
    yield Value("simulation") if entry.simulated else mebibytes(entry.artifact_bytes)
    yield mebibytes(entry.memory.peak_rss_bytes if entry.memory else None)
    yield figure(Figure(value=entry.cold_start_seconds)) if entry.cold_start_seconds is not None else Value("")


def why_untimed(entry: Record) -> str:
    if entry.simulated:
        return "simulation"
    return "" if entry.settings.get("measure", {}).get("rounds", 1) else "first seed only"


def finding_about(entry: Record, speed: Speed) -> str:
    """What rules say of the figures of one scenario, load and batch size."""
    name = f"{validity.name_of(speed)}:"
    return "; ".join(
        f"{one.what.removeprefix(name).strip()} (measured {one.measured}, bound {one.bound})"
        for one in entry.findings
        if one.what.startswith(name)
    )


HOLM = "Holm "


def difference(one: PairedTest, p: float | None, corrected: str = HOLM) -> Value:
    """Points with their interval, signs kept, and p, which `corrected` says to be so; `not tested` where nothing could be."""
    low = f"{one.low:+.2f}" if one.low is not None else ""
    high = f"{one.high:+.2f}" if one.high is not None else ""
    said = p_text(p, corrected) or "not tested"
    if one.method.startswith(TOO_FEW):
        said = "fewer than 2 differ"
    return Value(f"{one.value:+.2f}", one.value, low, high, said)


def speed_up(entry: Record, beside: Comparison, load: Load | None) -> Value:
    if load is None:
        timed = beside.base is not None and entry.speed and beside.base.speed
        return Value("other device" if timed and beside.base and beside.base.device != entry.device else "")
    found = times(load, beside.ratios[load], beside.corrected_ratio(load), entry, beside.base)
    padded = "padded; " if load[1] == "real" and is_padded(entry) else ""
    return replace(found, note=f"batch {load[2]}; {padded}{found.note}")


def times(
    load: Load, one: PairedTest, p: float | None, entry: Record, base: Record | None, corrected: str = HOLM
) -> Value:
    """A ratio of speeds with its interval and Holm's p, or why there is none; and, where it is one of figures that were
    measured one after the other, which of the two is not to be trusted."""
    digits = 3 if 0.8 < one.value < 1.25 else 2
    low = f"{one.low:.{digits}f}" if one.low is not None else ""
    high = f"{one.high:.{digits}f}" if one.high is not None else ""
    said = p_text(p, corrected) or one.method
    if load[0] == TURNS:
        said += ", by turns" if one.p is not None else ""
    else:
        both = (("its own", entry), ("the baseline's" if base is None or base.baseline else f"{base.label}'s", base))
        doubtful = [name for name, of in both if of and doubtful_at(of, load)]
        if doubtful:
            said += f"; {' and '.join(doubtful)} {'figures are' if doubtful[1:] else 'figure is'} invalid"
    return Value(f"{one.value:.{digits}f}×", one.value, low, high, said)


def doubtful_at(entry: Record, load: Load) -> bool:
    return any(in_doubt(entry, one) for one in entry.speed if (one.scenario, one.load, one.batch_size) == load[:3])


def in_doubt(entry: Record, speed: Speed) -> bool:
    """Whether a rule fails for this figure of the record, or for all of them."""
    others = tuple(f"{validity.name_of(part)}:" for part in entry.speed if part is not speed)
    return any(not finding.what.startswith(others) for finding in entry.findings)


def why_in_doubt(entry: Record, speed: Speed) -> str:
    return finding_about(entry, speed) or (entry.reason if in_doubt(entry, speed) else "")


def p_text(p: float | None, corrected: str = "") -> str:
    if p is None:
        return ""
    return corrected + ("p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}")


def rank(found: tuple[int, int] | None, count: int) -> Value:
    if found is None:
        return Value("")
    first, last = found
    return Value(f"{first}" if first == last else f"{first}–{last}", first + last / 1000, note=f"of {count}")


def share(entry: Record, beside: Comparison) -> Value:
    """Of the baseline's accuracy, with the bound that it holds: the suite's min_accuracy, or one of MLPerf's."""
    if beside.share is None:
        return Value("")
    least = asked_of(entry)
    held = max([bound for bound in (beside.bound, least) if bound and beside.share >= bound], default=None)
    note = f"holds {100 * held:g}%" if held and held >= least else f"below {100 * least:g}%"
    low, high = (f"{100 * end:.2f}" for end in beside.share_range) if beside.share_range else ("", "")
    return Value(f"{100 * beside.share:.2f}%", beside.share, low, high, note)


def asked_of(entry: Record) -> float:
    """The share of the baseline's accuracy that the suite asks for."""
    return float(entry.settings.get("measure", {}).get("min_accuracy", Measure.min_accuracy))


def figure(value: Figure | None, *, note: str = "") -> Value:
    """Rounded for reading; the cell's page has all digits."""
    if value is None:
        return Value("")
    digits = 2 if abs(value.value) < 100 else 1 if abs(value.value) < 1000 else 0
    low = f"{value.low:.{digits}f}" if value.low is not None else ""
    high = f"{value.high:.{digits}f}" if value.high is not None else ""
    return Value(f"{value.value:.{digits}f}", value.value, low, high, note)


def mebibytes(value: int | None) -> Value:
    return Value("") if value is None else Value(f"{value / 2**20:.1f}", float(value))
