"""How many times as fast one cell is as another: from interleaved runs of the same work, and from figures measured alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from harness.measure.conditions import OTHERS_BOUND, WORST_BOUND
from harness.measure.paired import PairedTest, at_looks, ratio
from harness.measure.percentiles import in_words, is_maximum
from harness.measure.validity import STEAL_BOUND, THROTTLED_BOUND
from harness.records.schema import Record
from harness.records.speed_schema import Speed, TurnRound, Turns
from harness.report.comparability import has_valid_accuracy, speed_conditions
from harness.suite.measure import Measure

Load = tuple[str, str, int, str]
"""scenario, load, batch size, figure: `("offline", "real", 32, "qps")`. Of interleaved rounds the scenario is INTERLEAVED."""


INTERLEAVED, RATE = "interleaved", "samples/s"


RATIO_FIGURES = {
    "interleaved": ("p50_ms", "p90_ms", "p99_ms"),
    "single_stream": ("p50_ms", "p90_ms", "p99_ms"),
    "multi_stream": ("p50_ms", "p99_ms"),
}
"""The figures that are compared, by scenario; in other scenarios it is samples a second. That of interleaved rounds is compared
by `interleaved_ratio`."""


def speed_ratios(record: Record, base: Record) -> dict[Load, PairedTest]:
    """The ratio, record over base, of every speed figure that both have under the same conditions; interleaved ones first."""
    ratios: dict[Load, PairedTest] = {}
    for turns in record.turns:
        if interleaved := interleaved_ratio((record, turns), base):
            ratios[(INTERLEAVED, turns.load, turns.batch_size, RATE)] = interleaved
    for part in record.speed:
        conditions = speed_conditions(record, part)
        other = next((speed for speed in base.speed if speed_conditions(base, speed) == conditions), None)
        if other is None or (part.scenario == INTERLEAVED and part.batch_size > 1):  # latency is of one sample
            continue
        for figure in RATIO_FIGURES.get(part.scenario, ("qps",)):
            mine, theirs = round_values(part, figure), round_values(other, figure)
            if (len(mine), len(theirs)) == (len(part.rounds), len(other.rounds)):
                load = (part.scenario, part.load, part.batch_size, figure)
                test = ratio(
                    mine,
                    theirs,
                    interleaved=rounds_alternate((record, part), (base, other)),
                    looks=looks_of(record, base),
                )
                if part.scenario == INTERLEAVED and test.p is not None:
                    rounds = f"{len(mine)} interleaved rounds{at_looks(looks_of(record, base))}"
                    test = replace(test, method=f"t interval of the logarithm over {rounds}")
                if why := _why_no_percentile(part, other, figure):
                    test = PairedTest(test.value, method=why)
                ratios[load] = test
    return ratios


def looks_of(*records: Record) -> int:
    """The most looks at which the rounds of any of them could have ended."""
    settings = [record.settings.get("measure", {}) for record in records]
    plans = [Measure(rounds=each.get("rounds", 0), max_rounds=each.get("max_rounds")) for each in settings]
    return max(len(plan.looks) for plan in plans)


def _why_no_percentile(mine: Speed, theirs: Speed, figure: str) -> str:
    """Maxima of different numbers of queries say little about which cell is faster."""
    if not (is_maximum(mine, figure) or is_maximum(theirs, figure)):
        return ""
    words = dict.fromkeys(in_words(part, figure) for part in (mine, theirs))
    return f"not tested: {' and '.join(words)} is no 99th percentile"


def figure_words(load: Load, record: Record) -> str:
    """What pages call a figure: its name in records, but of a p99 of few queries what it is."""
    parts = (part for part in record.speed if (part.scenario, part.load, part.batch_size) == load[:3])
    return next((f"{in_words(part, load[3])}, ms" for part in parts if is_maximum(part, load[3])), load[3])


def interleaved_ratio(mine: tuple[Record, Turns], base: Record) -> PairedTest | None:
    """The ratio of samples a second, record over base, from the rounds in which both ran the same batches interleaved. None
    where there are no such rounds, or where one of the two computed something other than it claims."""
    record, turns = mine
    conditions = interleaved_conditions(record, turns)
    other = next((turns for turns in base.turns if interleaved_conditions(base, turns) == conditions), None)
    if other is None or not (has_valid_accuracy(record) and has_valid_accuracy(base)):
        return None
    rounds = shared_rounds(turns, other)
    if not rounds:
        return None
    looks = looks_of(record, base)
    test = ratio([1 / a.seconds for a, _ in rounds], [1 / b.seconds for _, b in rounds], interleaved=True, looks=looks)
    if why := disturbance([round_ for round_, _ in rounds]):
        return PairedTest(test.value, method=f"not tested: {why} during the interleaved rounds")
    if test.p is None:
        return test
    counts = sorted({round_.batches for round_, _ in rounds})
    batches = "1 batch" if counts == [1] else f"{' or '.join(map(str, counts))} batches"
    return replace(
        test, method=f"t interval of the logarithm over {len(rounds)} interleaved rounds of {batches}{at_looks(looks)}"
    )


def shared_rounds(mine: Turns, theirs: Turns) -> list[tuple[TurnRound, TurnRound]]:
    """The rounds in which both ran the same batches."""
    others = {round_.together: round_ for round_ in theirs.rounds}
    pairs = [(round_, others[round_.together]) for round_ in mine.rounds if round_.together in others]
    return [(a, b) for a, b in pairs if (a.work, a.samples, a.batches) == (b.work, b.samples, b.batches)]


def disturbance(rounds: Sequence[TurnRound]) -> str:
    """What took more of the processors' time than the validity rules allow; empty if nothing did. It may have delayed long
    calls more than short ones."""
    throttled = [round_.quota_throttled_percent or 0.0 for round_ in rounds]
    worst = (
        [round_.worst_other_percent or 0.0 for round_ in rounds],
        [round_.worst_steal_percent or 0.0 for round_ in rounds],
    )
    for what, percents, bound in (
        ("other processes took", [round_.other_cpu_percent for round_ in rounds], OTHERS_BOUND),
        ("the hypervisor took", [round_.steal_percent for round_ in rounds], STEAL_BOUND),
        ("a quota held back", throttled, THROTTLED_BOUND),
    ):
        if statistics.fmean(percents) > bound:
            return f"{what} {statistics.fmean(percents):.1f}% of the processors' time (bound {bound:g}%)"
    for what, percents in zip(("other processes took", "the hypervisor took"), worst, strict=True):
        if statistics.fmean(percents) > WORST_BOUND:
            return (
                f"{what} up to {statistics.fmean(percents):.1f}% of a single processor's time (bound {WORST_BOUND:g}%)"
            )
    return ""


def interleaved_conditions(record: Record, turns: Turns) -> tuple[object, ...]:
    threads = record.settings.get("measure", {}).get("threads")
    return turns.load, turns.batch_size, turns.sequence_length, record.device, threads


def rounds_alternate(mine: tuple[Record, Speed], theirs: tuple[Record, Speed]) -> bool:
    """Whether the n-th rounds of both can be paired: they are the same interleaved round, or both finished their n-th before
    either began its next. Cells of other tasks or seeds cannot, nor can a round kept from a killed run with one measured after
    it, nor rounds of records that do not say when rounds started."""
    (record, part), (base, other) = mine, theirs
    if (record.run_id, record.task, record.seed) != (base.run_id, base.task, base.seed):
        return False
    if [round_.run_id for round_ in part.rounds] != [round_.run_id for round_ in other.rounds]:
        return False
    if part.scenario == INTERLEAVED:
        return all(a.started == b.started for a, b in zip(part.rounds, other.rounds, strict=True))
    starts = [sorted((a.started, b.started)) for a, b in zip(part.rounds, other.rounds, strict=True)]
    return all(first for first, _ in starts) and all(last < following for (_, last), (following, _) in pairwise(starts))


def round_values(part: Speed | None, figure: str) -> list[float]:
    """The figure in each round that has it. The server scenario has no rate in rounds where none met the latency bound."""
    values = [getattr(round_, figure) for round_ in part.rounds] if part else []
    return [value for value in values if value is not None and value > 0]
