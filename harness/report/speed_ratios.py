"""How many times as fast one cell is as another: figures of each alone, and the same work by turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from harness.measure.paired import PairedTest, ratio
from harness.measure.validity import OTHERS_BOUND, STEAL_BOUND, THROTTLED_BOUND
from harness.records.schema import Record
from harness.records.speed_schema import Speed, TurnRound, Turns
from harness.report.comparability import accuracy_stands, conditions

Load = tuple[str, str, int, str]
"""scenario, load, batch size, figure: `("offline", "real", 32, "qps")`; of rounds of turns the scenario is TURNS."""


TURNS, RATE = "turns", "samples/s"


FIGURES = {"single_stream": ("p50_ms", "p90_ms", "p99_ms"), "multi_stream": ("p50_ms", "p99_ms")}
"""Whose ratios are given; of other scenarios it is samples a second."""


def speed_ratios(entry: Record, base: Record) -> dict[Load, PairedTest]:
    """Every figure of speed that both have under the same conditions, mine over theirs; those by turns first."""
    found: dict[Load, PairedTest] = {}
    for one in entry.turns:
        if faster := by_turns((entry, one), base):
            found[(TURNS, one.load, one.batch_size, RATE)] = faster
    for part in entry.speed:
        other = next((one for one in base.speed if conditions(base, one) == conditions(entry, part)), None)
        if other is None:
            continue
        for figure in FIGURES.get(part.scenario, ("qps",)):
            mine, theirs = rounds_of(part, figure), rounds_of(other, figure)
            if (len(mine), len(theirs)) == (len(part.rounds), len(other.rounds)):
                name = (part.scenario, part.load, part.batch_size, figure)
                found[name] = ratio(mine, theirs, by_turns=took_turns((entry, part), (base, other)))
    return found


def by_turns(mine: tuple[Record, Turns], base: Record) -> PairedTest | None:
    """How many times more samples a second, from the rounds in which both ran the same batches by turns. None where there
    are none, or where one of the two computed something else than it claims."""
    entry, part = mine
    other = next((one for one in base.turns if _turned(base, one) == _turned(entry, part)), None)
    if other is None or not (accuracy_stands(entry) and accuracy_stands(base)):
        return None
    shared = shared_rounds(part, other)
    if not shared:
        return None
    found = ratio([1 / a.seconds for a, _ in shared], [1 / b.seconds for _, b in shared], by_turns=True)
    if trouble := _disturbed([one for one, _ in shared]):
        return PairedTest(found.value, method=f"not tested: {trouble} while they took turns")
    if found.p is None:
        return found
    sizes = sorted({one.batches for one, _ in shared})
    batches = "1 batch" if sizes == [1] else f"{' or '.join(map(str, sizes))} batches"
    return replace(found, method=f"t interval of the logarithm over {len(shared)} rounds of {batches}, by turns")


def shared_rounds(mine: Turns, theirs: Turns) -> list[tuple[TurnRound, TurnRound]]:
    """Those in which both ran the same batches."""
    others = {one.together: one for one in theirs.rounds}
    pairs = [(one, others[one.together]) for one in mine.rounds if one.together in others]
    return [(a, b) for a, b in pairs if (a.work, a.samples, a.batches) == (b.work, b.samples, b.batches)]


def _disturbed(rounds: Sequence[TurnRound]) -> str:
    """What may have fallen on long calls more than on short ones, by the bounds of the rules of validity; else nothing."""
    throttled = [one.quota_throttled_percent or 0.0 for one in rounds]
    for what, percents, bound in (
        ("other processes took", [one.other_cpu_percent for one in rounds], OTHERS_BOUND),
        ("the hypervisor took", [one.steal_percent for one in rounds], STEAL_BOUND),
        ("a quota held back", throttled, THROTTLED_BOUND),
    ):
        if statistics.fmean(percents) > bound:
            return f"{what} {statistics.fmean(percents):.1f}% of the processors' time (bound {bound:g}%)"
    return ""


def _turned(entry: Record, part: Turns) -> tuple[object, ...]:
    threads = entry.settings.get("measure", {}).get("threads")
    return part.load, part.batch_size, part.sequence_length, entry.device, threads


def took_turns(mine: tuple[Record, Speed], theirs: tuple[Record, Speed]) -> bool:
    """Whether the n-th rounds of both belong together: both had their n-th before either had its next. Cells of other tasks
    or seeds did not, nor a round that was kept from a killed run and one measured after it, nor rounds of records older than
    taking turns."""
    (entry, part), (base, other) = mine, theirs
    if (entry.run_id, entry.task, entry.seed) != (base.run_id, base.task, base.seed):
        return False
    if [one.run_id for one in part.rounds] != [one.run_id for one in other.rounds]:
        return False
    starts = [sorted((a.started, b.started)) for a, b in zip(part.rounds, other.rounds, strict=True)]
    return all(first for first, _ in starts) and all(last < following for (_, last), (following, _) in pairwise(starts))


def rounds_of(part: Speed | None, figure: str) -> list[float]:
    """The rounds that have the figure: server has no rate where none held the bound."""
    values = [getattr(one, figure) for one in part.rounds] if part else []
    return [value for value in values if value is not None and value > 0]
