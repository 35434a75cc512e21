"""Warm-up that ends when the session's rate is steady, and says why it ended."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from backends import Batch, Session

WINDOW_SECONDS = 0.15


WINDOWS = 4


STEADY = 0.03


LARGEST_CYCLE = 64


ENDED_STEADY = "steady"


NOT_STEADY = "not steady"
"""How the reason begins with which a warm-up ended; where it begins with neither, the cap left too few windows to judge."""


def warm_up(once: Callable[[], int], max_seconds: float) -> tuple[float, str, float]:
    """Call `once`, which does the same work every time and says how many samples that was, until the rates of the last four
    windows of at least 0.15 s have a coefficient of variation of at most 3% (the steady state of Georges, Buytaert & Eeckhout
    2007, with short windows in the place of whole iterations). Returns (seconds, why it ended, samples a second)."""
    rates: list[float] = []
    start = time.perf_counter()
    while True:
        began, samples = time.perf_counter(), 0
        while time.perf_counter() - began < WINDOW_SECONDS:
            samples += once()
        rates.append(samples / (time.perf_counter() - began))
        spent = time.perf_counter() - start
        last = rates[-WINDOWS:]
        if len(last) == WINDOWS and statistics.pstdev(last) <= STEADY * statistics.fmean(last):
            return spent, f"{ENDED_STEADY}: {WINDOWS} windows within {STEADY:.0%}", statistics.fmean(last)
        if spent >= max_seconds:
            why = NOT_STEADY if len(rates) >= 2 * WINDOWS else f"cut off after {len(rates)} windows, too few to judge,"
            return spent, f"{why} within {max_seconds:g} s", statistics.fmean(last)


def warm_up_on(session: Session, work: Sequence[Batch], max_seconds: float) -> tuple[float, str, float]:
    """`warm_up` on a cycle of calls, the same each time, whose lengths are spread as those of all the work (sorted by length)
    are; as many as fit into a window. Where a single call is so long that the cap would leave too few windows to judge, only
    some of its rows are in it: the two whole calls before have made the session take what memory it needs."""
    start = time.perf_counter()
    session.run(work[len(work) // 2])
    began = time.perf_counter()
    session.run(work[len(work) // 2])
    seconds = time.perf_counter() - began
    size = max(1, min(int(WINDOW_SECONDS / seconds), LARGEST_CYCLE, len(work)))
    cycle = [work[(2 * number + 1) * len(work) // (2 * size)] for number in range(size)]
    longest = max(WINDOW_SECONDS, max_seconds / (2 * WINDOWS))
    if seconds > longest:
        rows = max(1, int(len(cycle[0]["input_ids"]) * longest / seconds))
        cycle = [{name: values[:rows] for name, values in cycle[0].items()}]
    count = sum(len(batch["input_ids"]) for batch in cycle)

    def once() -> int:
        for batch in cycle:
            session.run(batch)
        return count

    _, why, rate = warm_up(once, max_seconds)
    return time.perf_counter() - start, why, rate
