"""Warm-up that ends when the session's rate is steady, and says why it ended."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from backends import Batch, Session

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


@dataclass(frozen=True)
class WarmUp:
    """seconds: how long it took. ended: why it ended, for the record. rate: samples a second in the last windows."""

    seconds: float
    ended: str
    rate: float


def warm_up(call: Callable[[], int], max_seconds: float) -> WarmUp:
    """Call `call` until its rate is steady, or for `max_seconds`. It does the same work every time and returns its samples.

    Steady: the rates of the last four windows of at least 0.15 s have a coefficient of variation of at most 3%. That is the
    steady state of Georges, Buytaert & Eeckhout (2007), with short windows in the place of whole iterations.
    """
    rates: list[float] = []
    start = time.perf_counter()
    while True:
        window, samples = time.perf_counter(), 0
        while time.perf_counter() - window < WINDOW_SECONDS:
            samples += call()
        rates.append(samples / (time.perf_counter() - window))
        spent = time.perf_counter() - start
        last = rates[-WINDOWS:]
        if len(last) == WINDOWS and statistics.pstdev(last) <= STEADY * statistics.fmean(last):
            return WarmUp(spent, f"{ENDED_STEADY}: {WINDOWS} windows within {STEADY:.0%}", statistics.fmean(last))
        if spent >= max_seconds:
            why = NOT_STEADY if len(rates) >= 2 * WINDOWS else f"cut off after {len(rates)} windows, too few to judge,"
            return WarmUp(spent, f"{why} within {max_seconds:g} s", statistics.fmean(last))


def warm_up_session(session: Session, work: Sequence[Batch], max_seconds: float) -> WarmUp:
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

    warm = warm_up(run_cycle, max_seconds)
    return replace(warm, seconds=time.perf_counter() - start)
