"""How speed is measured: what is part of keys, and the batch sizes of each scenario."""

from __future__ import annotations

from harness.suite.measure import Measure


def test_younger_measure_settings_leave_older_keys_alone() -> None:
    """What went into the keys of the first records."""
    assert set(Measure().in_key()) == {
        "scenarios", "loads", "rounds", "min_duration", "min_queries", "max_warmup", "threads",
    }  # fmt: skip
    assert Measure(profile="mlperf").in_key()["profile"] == "mlperf"
    assert Measure(server_latency_ms=5.0).in_key()["server_latency_ms"] == 5.0


def test_sizes_of_each_scenario() -> None:
    sizes = (1, 8, 32)
    assert Measure().sizes("single_stream", sizes) == (1,)
    assert Measure().sizes("multi_stream", sizes) == (8, 32)
    assert Measure(profile="mlperf").sizes("multi_stream", sizes) == (8,)
    assert Measure().sizes("offline", sizes) == sizes
    assert Measure().sizes("server", sizes) == (32,)
