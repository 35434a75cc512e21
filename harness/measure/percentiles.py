"""How many queries stand behind a percentile of latency, and when it is none.

LoadGen sorts a test's n latencies and takes the one at position floor(n x share), counted from 0. For 64 queries the 99th
percentile is thus the slowest of all, and for 300 the third slowest: a few queries that anything may have held up. From 500
queries on, at least five lie at or beyond it.
"""

from __future__ import annotations

from harness.records.speed_schema import Speed

TAIL_QUERIES = 500
"""Queries in a round from which on a 99th percentile is called one."""


def queries_a_round(speed: Speed) -> int:
    """The fewest queries of a round; a query of multi_stream has several samples, and so has an interleaved call."""
    samples = min(speed_round.queries for speed_round in speed.rounds)
    return samples // speed.batch_size if speed.scenario in ("multi_stream", "interleaved") else samples


def is_maximum(speed: Speed, figure: str) -> bool:
    """Whether a figure is called p99 although too few queries stand behind it."""
    return figure == "p99_ms" and queries_a_round(speed) < TAIL_QUERIES


def in_words(speed: Speed, figure: str) -> str:
    """What a percentile is of: `120 queries a round`, or `2nd slowest of 120 a round`. Empty for figures that are no
    percentiles."""
    count = queries_a_round(speed)
    if not (figure.startswith("p") and figure.endswith("_ms")):
        return ""
    if not is_maximum(speed, figure):
        return f"{count:,} queries a round"
    place = count - 99 * count // 100
    ordinal = {1: "", 2: "2nd ", 3: "3rd "}.get(place, f"{place}th ")
    return f"{ordinal}slowest of {count} a round"
