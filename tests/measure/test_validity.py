"""Each validity rule, on rounds that are made up for it."""

from __future__ import annotations

from typing import Any

import pytest

from harness.measure.scenarios import summarise
from harness.measure.validity import findings, loadgen_disagrees, ran_float
from harness.records.figure import Figure
from harness.records.speed_schema import Conditions, GpuConditions, Probe, Speed, SpeedRound
from harness.suite.measure import Measure, Profile

PLACEMENT: dict[str, Any] = {"claimed": "memory", "detail": []}
NOT_THROTTLED: dict[str, float] = {}


def conditions(seconds: float = 2.0, other: float = 0.0, steal: float = 0.0, **more: Any) -> Conditions:
    return Conditions(
        began_seconds=10.0,
        ended_seconds=10.0 + seconds,
        threads=2,
        affinity=[0, 1],
        own_cpu_percent=90.0,
        other_cpu_percent=other,
        steal_percent=steal,
        energy_source="not measured: made up",
        **more,
    )


def gpu(processes: int | None = 1, throttled: dict[str, float] = NOT_THROTTLED) -> GpuConditions:
    return GpuConditions(
        sm_mhz=None,
        memory_mhz=None,
        celsius=None,
        watts=None,
        throttled_percent=throttled,
        processes=processes,
        memory_used_bytes=None,
    )


def speed(*conditions_of_rounds: Conditions | None, qps: float = 20.0, **changes: Any) -> Speed:
    rounds = [
        SpeedRound(
            qps=qps, queries=100, duration_seconds=1, warmup_seconds=0, warmup_ended="steady", conditions=of_round
        ).model_copy(update=changes)
        for of_round in conditions_of_rounds
    ]
    figures: dict[str, Any] = {**summarise(rounds)}
    return Speed(
        scenario="server",
        load="real",
        batch_size=4,
        sequence_length=40,
        mean_tokens=20,
        rounds=rounds,
        timed="run",
        latency_bound_ms=10.0,
        **figures,
    )


@pytest.mark.parametrize(
    ("rounds", "rules"),
    [
        ([None] * 3, []),  # records that are older than conditions
        ([conditions()] * 3, []),
        ([conditions(other=4.9)] * 3, []),
        ([conditions(other=5.1)] * 3, ["disturbed"]),
        ([conditions(other=24.0)] + [conditions()] * 4, []),  # one round of five only widens the interval
        ([conditions(other=26.0)] + [conditions()] * 4, ["disturbed"]),
        (
            [conditions(seconds=0.2, other=90.0)] + [conditions(seconds=9.9)] * 2,
            [],
        ),  # rounds are weighted by their durations
        ([conditions(steal=6.0)] * 3, ["disturbed"]),
        ([conditions(steal=1.0, worst_steal_percent=30.0)] * 3, ["disturbed"]),
        # half of one processor of 32, by hand: 50 / 32 = 1.6% of all
        ([conditions(other=1.6, worst_other_percent=50.0, waited_percent=48.0)] * 3, ["disturbed"]),
        ([conditions(other=1.6, worst_other_percent=50.0)] * 3, ["disturbed"]),  # this kernel does not count waits
        (
            [conditions(other=1.6, worst_other_percent=50.0, waited_percent=0.4)] * 3,
            [],
        ),  # on a processor that stood idle
        ([conditions(other=1.0, worst_other_percent=20.0, waited_percent=9.0)] * 3, []),
        ([conditions(gpu=gpu(1))] * 3, []),
        ([conditions(gpu=gpu(None))] * 3, []),
        ([conditions(gpu=gpu(1)), conditions(gpu=gpu(1)), conditions(gpu=gpu(2))], ["disturbed"]),
        ([conditions(quota_throttled_percent=2.0)] * 3, ["throttled"]),
        ([conditions(thermal_throttled_percent=2.0)] * 3, ["throttled"]),
        ([conditions(thermal_throttled_percent=0.2)] * 3, []),
        ([conditions(gpu=gpu(throttled={"power cap": 100.0}))] * 3, []),
        ([conditions(gpu=gpu(throttled={"heat, by hardware": 50.0}))] * 3, ["throttled"]),
    ],
)
def test_conditions_make_a_cell_invalid(rounds: list[Conditions | None], rules: list[str]) -> None:
    failed = findings([speed(*rounds)], PLACEMENT, Measure(min_queries=64))
    assert [finding.rule for finding in failed] == rules
    assert all(finding.what and finding.measured and finding.bound and finding.remedy for finding in failed)


def test_a_bound_that_no_rate_held() -> None:
    probe = Probe(qps=5.0, p99_ms=12.5, queries=300, held=False, confirming=False)
    (finding,) = findings([speed(*[conditions()] * 3, qps=0.0, search=[probe])], PLACEMENT, Measure())
    assert (finding.rule, finding.bound) == ("bound_not_held", "10 ms")
    assert "12.5 ms" in finding.measured and "short tests" in finding.measured
    late = probe.model_copy(update={"p99_ms": 14.0, "confirming": True})
    held = probe.model_copy(update={"p99_ms": 9.0, "held": True})
    (finding,) = findings([speed(*[conditions()] * 3, qps=0.0, search=[held, late])], PLACEMENT, Measure())
    assert finding.measured == "3 of 3 rounds; p99 14.0 ms at best in whole tests"


def test_mlperf_asks_for_loadgens_own_number_of_queries() -> None:
    log = {"effective_min_sample_count": 662}
    few = speed(*[conditions()] * 5, loadgen=log).model_copy(update={"profile": "mlperf"})
    (finding,) = findings([few], PLACEMENT, Measure(profile="mlperf"))
    assert (finding.rule, finding.bound) == ("too_few_queries", "at least 662")
    enough = speed(*[conditions()] * 5, loadgen=log, queries=662).model_copy(update={"profile": "mlperf"})
    assert findings([enough], PLACEMENT, Measure(profile="mlperf")) == []


@pytest.mark.parametrize(
    ("profile", "rounds", "bound"),
    [
        ("quick", 1, "at least 3 with profile quick"),
        ("quick", 3, None),
        ("mlperf", 3, "at least 5 with profile mlperf"),
        ("mlperf", 5, None),
    ],
)
def test_rounds_are_counted_once_a_cell(profile: Profile, rounds: int, bound: str | None) -> None:
    figures = speed(*[conditions()] * rounds).model_copy(update={"profile": profile})
    failed = findings([figures, figures], PLACEMENT, Measure(profile=profile))
    assert [(finding.rule, finding.measured, finding.bound) for finding in failed] == (
        [("too_few_rounds", str(rounds), bound)] if bound else []
    )


def test_loadgens_round_beside_interleaved_ones_is_a_cross_check() -> None:
    """It is not judged by itself, but has to confirm the interleaved figure within a quarter."""
    interleaved = speed(*[conditions()] * 3, qps=20.0).model_copy(update={"scenario": "interleaved"})
    disturbed = speed(conditions(other=50.0), qps=24.9, warmup_ended="too long").model_copy(
        update={"scenario": "offline"}
    )
    measure = Measure(scenarios=("interleaved", "offline"))
    assert findings([interleaved, disturbed], PLACEMENT, measure) == []
    assert {finding.rule for finding in findings([disturbed], PLACEMENT, Measure(scenarios=("offline",)))} > {
        "disturbed"
    }
    assert list(loadgen_disagrees([interleaved, disturbed])) == []
    for qps in (25.1, 15.9):
        far = disturbed.model_copy(update={"qps": Figure(value=qps)})
        (finding,) = loadgen_disagrees([interleaved, far])
        assert finding.rule == "loadgen_disagrees" and finding.measured == f"qps {qps:g}, interleaved 20"
    (alone,) = findings([disturbed.model_copy(update={"rounds": disturbed.rounds[:1]})], PLACEMENT, measure)[:1]
    assert alone.rule == "too_few_rounds"  # no interleaved round was measured: LoadGen's is the only one
    without = disturbed.model_copy(update={"scenario": "single_stream"})
    assert list(loadgen_disagrees([interleaved, without])) == []  # no latencies to compare
    other_batch = far.model_copy(update={"batch_size": 8})
    assert list(loadgen_disagrees([interleaved, other_batch])) == []


def test_interleaved_rounds_are_judged_by_what_others_did() -> None:
    """LoadGen's rules about queries, duration and warm-up are not theirs."""
    measure = Measure(scenarios=("interleaved",))
    few = speed(*[conditions()] * 3, queries=6, warmup_ended="one pass over the same batches")
    few = few.model_copy(update={"scenario": "interleaved"})
    assert findings([few], PLACEMENT, measure) == []
    disturbed = speed(*[conditions(other=50.0)] * 3).model_copy(update={"scenario": "interleaved"})
    assert [finding.rule for finding in findings([disturbed], PLACEMENT, measure)] == ["disturbed"]


@pytest.mark.parametrize("scenario", ["single_stream", "multi_stream", "offline", "server"])
def test_rounds_that_differ_are_no_fault(scenario: str) -> None:
    even = speed(*[conditions()] * 3, qps=100.0, p50_ms=100.0, p90_ms=100.0, p99_ms=100.0)
    rounds = [*even.rounds[:2], even.rounds[2].model_copy(update={"qps": 310.0, "p90_ms": 310.0, "p99_ms": 310.0})]
    assert findings([even.model_copy(update={"scenario": scenario, "rounds": rounds})], PLACEMENT, Measure()) == []


@pytest.mark.parametrize(("threads", "rules"), [(2, []), (3, ["too_many_threads"])])
def test_threads_above_the_processors_that_are_there(threads: int, rules: list[str]) -> None:
    used = conditions().model_copy(update={"threads": threads})
    failed = findings([speed(*[used] * 3)] * 2, PLACEMENT, Measure())
    assert [finding.rule for finding in failed] == rules
    assert all(finding.bound == "2 processors that the cell may use" for finding in failed)


@pytest.mark.parametrize(
    ("integer", "promised", "bound"),
    [
        (900, 900, ""),
        (892, 900, ""),  # 99% of 900 are 891
        (890, 900, "90.0%, which the graph asks for"),
        (0, 900, "90.0%, which the graph asks for"),
        (0, 0, ""),  # a scheme that keeps all products in floating point
        (0, None, "more than 0%"),
        (1, None, ""),
    ],
)
def test_integer_products_that_ran_in_float(integer: int, promised: int | None, bound: str) -> None:
    found = list(ran_float({"int8_macs": integer, "total_macs": 1000, "promised_macs": promised}))
    assert [(finding.rule, finding.bound) for finding in found] == ([("ran_float", bound)] if bound else [])
    assert all(finding.measured.startswith(f"{integer / 10:.1f}% of") for finding in found)


def test_energy_is_a_figure_a_query_over_rounds() -> None:
    """By hand: 200 and 300 joules over 100 queries each."""
    figures = summarise(speed(conditions(energy_joules=200.0), conditions(energy_joules=300.0)).rounds)
    assert figures["joules_a_query"] is not None
    assert figures["joules_a_query"].value == pytest.approx(2.5)
    assert summarise(speed(conditions(energy_joules=200.0), conditions()).rounds)["joules_a_query"] is None
