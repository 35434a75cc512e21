"""What LoadGen says of a test against the clock of the session that it ran on, however busy the machine is."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.records.speed_schema import SpeedRound
from tests.backends.in_memory import InMemorySession

Array = np.ndarray[Any, Any]


def times_of(session: InMemorySession, calls: int) -> tuple[Array, Array]:
    """When each call of the test, the last ones of the session, began and ended."""
    assert calls <= len(session.began)
    return np.array(session.began[-calls:]), np.array(session.ended[-calls:])


def agrees_with_the_clock(found: SpeedRound, session: InMemorySession, calls: int) -> None:
    """A query holds its call, and lies between the end of the call before and the beginning of the next: so every percentile
    of the latencies lies between those of the two spans, whatever others on the machine do."""
    began, ended = times_of(session, calls + 1)  # the first is of the warm-up
    shortest = 1000 * (ended - began)[1:]
    longest = 1000 * (np.append(began[2:], np.inf) - ended[:-1])
    for percent, latency in ((50, found.p50_ms), (90, found.p90_ms)):
        assert latency is not None
        low = np.percentile(shortest, percent, method="lower")
        high = np.percentile(longest, percent, method="higher")
        assert 0.999 * low <= latency <= 1.001 * high, f"p{percent}"
