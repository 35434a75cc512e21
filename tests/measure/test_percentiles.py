"""How many queries stand behind a percentile."""

from __future__ import annotations

import pytest

from harness.measure.percentiles import in_words, is_maximum
from harness.records.speed_schema import Speed
from tests.records.records import make_record


def speed_of(queries: int, scenario: str = "single_stream", batch_size: int = 1) -> Speed:
    part = make_record().speed[0]
    rounds = [part.rounds[0].model_copy(update={"queries": count}) for count in (queries + 7, queries, 9 * queries)]
    return part.model_copy(update={"rounds": rounds, "scenario": scenario, "batch_size": batch_size})


@pytest.mark.parametrize(
    ("queries", "figure", "words"),
    [
        (64, "p99_ms", "slowest of 64 a round"),
        (100, "p99_ms", "slowest of 100 a round"),  # floor(0.99 x 100) = 99, counted from 0
        (101, "p99_ms", "2nd slowest of 101 a round"),
        (250, "p99_ms", "3rd slowest of 250 a round"),
        (499, "p99_ms", "5th slowest of 499 a round"),
        (500, "p99_ms", "500 queries a round"),
        (64, "p90_ms", "64 queries a round"),
        (1200, "p50_ms", "1,200 queries a round"),
        (64, "qps", ""),
        (64, "mean_ms", ""),
    ],
)
def test_words(queries: int, figure: str, words: str) -> None:
    assert in_words(speed_of(queries), figure) == words


def test_a_query_of_multi_stream_has_several_samples() -> None:
    assert in_words(speed_of(800, "multi_stream", 8), "p99_ms") == "slowest of 100 a round"
    assert not is_maximum(speed_of(4000, "multi_stream", 8), "p99_ms")
