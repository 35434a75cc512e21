"""Warm-up that ends when the session's rate is steady, and says why it ended.

A rate that another process holds down all the time is steady, too. So the load of others is judged with it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from backends import Batch, Session
from harness.measure.conditions import Counters, are_others_there, conditions_between

WINDOW_SECONDS = 0.15
"""A window is at least so long."""


WINDOWS = 4
"""How many windows must agree."""


STEADY = 0.03
"""Largest coefficient of variation of their rates."""


LARGEST_CYCLE = 64
"""Calls of the cycle that is repeated, at most."""


ENDED_STEADY = "steady"


NOT_STEADY = "not steady"
"""What the reason begins with. A reason with neither beginning says that the time limit left too few windows to judge."""


BESIDE_OTHERS = "other processes took"
"""What the reason holds where rates agreed beside the load of others."""


@dataclass(frozen=True)
class WarmUp:
    """seconds: how long it took. ended: why it ended, for the record. rate: samples a second in the last windows."""

    seconds: float
    ended: str
    rate: float


PATIENCE = 2 * WINDOWS
"""Windows after which a warm-up ends although others are there: they do not go away, and the figure is marked anyway."""


def warm_up(call: Callable[[], int], max_seconds: float, read: Callable[[], Counters] | None = None) -> WarmUp:
    """Call `call` until its rate is steady, or for `max_seconds`. It does the same work every time and returns its samples.
    read: counters that show what other processes take.

    Steady: the rates of the last four windows of at least 0.15 s have a coefficient of variation of at most 3%. That is the
    steady state of Georges, Buytaert & Eeckhout (2007), with short windows in the place of whole iterations. Meanwhile others
    take no more than a test may lose to them (`are_others_there`).
    """
    rates: list[float] = []
    counters = [read()] if read else []
    start = time.perf_counter()
    while True:
        window, samples = time.perf_counter(), 0
        while time.perf_counter() - window < WINDOW_SECONDS:
            samples += call()
        rates.append(samples / (time.perf_counter() - window))
        spent = time.perf_counter() - start
        last = rates[-WINDOWS:]
        counters += [read()] if read else []
        if len(last) == WINDOWS and statistics.pstdev(last) <= STEADY * statistics.fmean(last):
            if others := _others(counters[-WINDOWS - 1 :]):
                if len(rates) < PATIENCE and spent < max_seconds:
                    continue
                return WarmUp(
                    spent, f"{NOT_STEADY}: {WINDOWS} windows within {STEADY:.0%}, but {others}", statistics.fmean(last)
                )
            return WarmUp(spent, f"{ENDED_STEADY}: {WINDOWS} windows within {STEADY:.0%}", statistics.fmean(last))
        if spent >= max_seconds:
            why = NOT_STEADY if len(rates) >= 2 * WINDOWS else f"cut off after {len(rates)} windows, too few to judge,"
            return WarmUp(spent, f"{why} within {max_seconds:g} s", statistics.fmean(last))


def _others(counters: Sequence[Counters]) -> str:
    """What others took between the first and the last reading; empty where that is no more than they may take."""
    if len(counters) < 2:
        return ""
    now = conditions_between(counters[0], counters[-1], 0.0, 0.0, threads=0)
    if not are_others_there(now.other_cpu_percent, now.worst_other_percent, now.waited_percent):
        return ""
    return f"{BESIDE_OTHERS} {now.other_cpu_percent:.0f}% of the processors"


def warm_up_session(
    session: Session, work: Sequence[Batch], max_seconds: float, read: Callable[[], Counters] | None = None
) -> WarmUp:
    """`warm_up` on a cycle of calls, the same each time. work: all batches, sorted by length.

    The lengths in the cycle are spread as those in the work, and the cycle has as many calls as fit into a window. Where a
    single call is so long that the limit would leave too few windows to judge, the cycle is one call with some of its rows;
    the two whole calls before have already made the session take the memory that it needs.
    """
    start = time.perf_counter()
    session.run(work[len(work) // 2])
    second_call = time.perf_counter()
    session.run(work[len(work) // 2])
    seconds = time.perf_counter() - second_call
    size = max(1, min(int(WINDOW_SECONDS / seconds), LARGEST_CYCLE, len(work)))
    cycle = [work[(2 * number + 1) * len(work) // (2 * size)] for number in range(size)]
    longest = max(WINDOW_SECONDS, max_seconds / (2 * WINDOWS))
    if seconds > longest:
        rows = max(1, int(len(cycle[0]["input_ids"]) * longest / seconds))
        cycle = [{name: values[:rows] for name, values in cycle[0].items()}]
    count = sum(len(batch["input_ids"]) for batch in cycle)

    def run_cycle() -> int:
        for batch in cycle:
            session.run(batch)
        return count

    warm = warm_up(run_cycle, max_seconds, read)
    return replace(warm, seconds=time.perf_counter() - start)
