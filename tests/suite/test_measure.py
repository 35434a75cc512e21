"""How speed is measured: what is part of keys, and the batch sizes of each scenario."""

from __future__ import annotations

from harness.suite.measure import Measure, mlperf_settings


def test_younger_measure_settings_leave_older_keys_alone() -> None:
    """What went into the keys of the first records."""
    assert set(Measure().in_key()) == {
        "scenarios", "loads", "rounds", "min_duration", "min_queries", "max_warmup", "threads",
    }  # fmt: skip
    assert Measure(profile="mlperf").in_key()["profile"] == "mlperf"
    assert Measure(server_latency_ms=5.0).in_key()["server_latency_ms"] == 5.0


def test_the_precision_that_is_wanted_changes_no_key_and_no_older_plan() -> None:
    assert Measure(precision=0.01).in_key() == Measure().in_key()
    assert "precision" not in Measure().to_json()
    assert Measure(**Measure(precision=0.01).to_json()).precision == 0.01


def test_rounds_that_are_left_open_are_part_of_keys_together_with_the_precision() -> None:
    assert Measure(max_rounds=28).in_key() == {**Measure().in_key(), "max_rounds": 28, "precision": 0.05}
    assert Measure(**Measure(rounds=7, max_rounds=28).to_json()).looks == (7, 14, 28)


def test_sizes_of_each_scenario() -> None:
    sizes = (1, 8, 32)
    assert Measure().sizes("single_stream", sizes) == (1,)
    assert Measure().sizes("multi_stream", sizes) == (8, 32)
    assert Measure(profile="mlperf").sizes("multi_stream", sizes) == (8,)
    assert Measure().sizes("offline", sizes) == sizes
    assert Measure().sizes("server", sizes) == (32,)
    assert Measure().sizes("interleaved", (8, 32)) == (1, 32)


def test_loadgen_runs_once_beside_interleaved_rounds() -> None:
    """It is a cross-check there; the server scenario has no other measurement."""
    both = Measure(scenarios=("interleaved", "offline", "server"))
    assert [both.loadgen_scenarios(number) for number in (1, 2)] == [("offline", "server"), ("server",)]
    alone = Measure(scenarios=("single_stream", "offline"))
    assert [alone.loadgen_scenarios(number) for number in (1, 5)] == [("single_stream", "offline")] * 2
    assert Measure(scenarios=("interleaved",)).loadgen_scenarios(1) == ()


def test_profile_mlperf_runs_loadgen_in_every_round() -> None:
    settings = {"scenarios": Measure.scenarios, "server_latency_ms": None, "profile": "mlperf"}
    assert mlperf_settings(settings, given=())["scenarios"] == ("single_stream", "offline")
    assert "scenarios" not in mlperf_settings(settings, given=("scenarios",))


def test_limits_of_processes_are_in_no_key_and_in_no_older_plan() -> None:
    plain, limited = Measure(), Measure(train_timeout=60.0, speed_timeout=5.0, memory_gib=2.0)
    assert limited.in_key() == plain.in_key()
    assert not any("timeout" in name or "memory" in name for name in (*plain.to_json(), *plain.in_key()))
    assert limited.to_json() == plain.to_json() | {"train_timeout": 60.0, "speed_timeout": 5.0, "memory_gib": 2.0}
