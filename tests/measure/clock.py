"""Compares what LoadGen reports of a test with the clock of the session that it ran on, however busy the machine is."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.records.speed_schema import SpeedRound
from tests.backends.in_memory import InMemorySession

Array = np.ndarray[Any, Any]


def times_of(session: InMemorySession, calls: int) -> tuple[Array, Array]:
    """When each of the session's last `calls` calls began and ended."""
    assert calls <= len(session.began)
    return np.array(session.began[-calls:]), np.array(session.ended[-calls:])


def agrees_with_the_clock(speed_round: SpeedRound, session: InMemorySession, calls: int) -> None:
    """A query's latency is at least its call, and at most the time from the end of the call before to the start of the next.
    So every percentile of the latencies is between those of the two spans, whatever else runs on the machine."""
    began, ended = times_of(session, calls + 1)  # the first belongs to the warm-up
    shortest = 1000 * (ended - began)[1:]
    longest = 1000 * (np.append(began[2:], np.inf) - ended[:-1])
    for percent, latency in ((50, speed_round.p50_ms), (90, speed_round.p90_ms)):
        assert latency is not None
        low = np.percentile(shortest, percent, method="lower")
        high = np.percentile(longest, percent, method="higher")
        assert 0.999 * low <= latency <= 1.001 * high, f"p{percent}"
