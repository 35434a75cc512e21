"""The rules by which a measurement is valid. Each that fails is a finding: what, measured, bound, and what to do about it.

A rule asks of a figure's rounds together: one disturbed round among many widens the interval, which says it; most of them
disturbed make the figure wrong, which the interval does not say.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from harness.machine.nvidia import HARMFUL
from harness.measure.steady import ENDED_STEADY, NOT_STEADY, STEADY, WINDOWS
from harness.records.schema import Finding
from harness.records.speed_schema import Conditions, Speed, SpeedRound
from harness.suite.measure import Measure

NOISE_BOUND = 0.25
"""Largest (highest - lowest) / mean of a scenario's main figure over rounds."""


MAIN = {"single_stream": "p90_ms", "multi_stream": "p99_ms", "offline": "qps", "server": "qps"}
"""Of each scenario, as MLPerf Inference has it; server's qps is the rate that held its bound."""


LEAST_ROUNDS = {"quick": 3, "mlperf": 5}
"""Of each profile: fewer say next to nothing about how rounds differ."""


OTHERS_BOUND = STEAL_BOUND = 5.0
"""Percent of the processors' time, over all rounds, that other processes or the hypervisor may take."""


THROTTLED_BOUND = 1.0
"""Percent of the processors' time, or of the GPU's samples, over all rounds."""


AGAIN = "run it again with --fresh on a quiet machine"


def findings(speed: Sequence[Speed], placement: Mapping[str, Any], measure: Measure) -> list[Finding]:
    """The rules that fail."""
    found = [*_provider(placement), *_rounds(speed)]
    for one in speed:
        name = name_of(one)
        for rule in (_queries, _duration, _steady, _bound, _throttled, _disturbed, _noise):
            found += rule(name, one, measure)
    return found


def name_of(one: Speed) -> str:
    """How findings about its figures begin."""
    return f"{one.scenario}, {one.load} lengths, batch {one.batch_size}"


def _provider(placement: Mapping[str, Any]) -> Iterator[Finding]:
    elsewhere = [
        row
        for row in placement["detail"]
        if is_product(row[1]) and placement["claimed"] not in row[2] and "Provider" in row[2]
    ]
    if elsewhere:
        yield Finding(
            rule="wrong_provider",
            what=f"matrix products ran elsewhere than on {placement['claimed']}",
            measured=f"{len(elsewhere)} nodes, the first {elsewhere[0][0]} on {elsewhere[0][2]}",
            bound="none",
            remedy="install the engine for this device (`quantboard doctor`), or run the cell on the CPU and call it so",
        )


def unanswered(splits: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Of the splits that were evaluated: an engine that puts out NaN has no accuracy, whatever the metrics make of it."""
    for one in splits:
        if one["missing"]:
            yield Finding(
                rule="no_answer",
                what=f"{one['split']}: the engine put out no finite numbers",
                measured=f"for {one['missing']:,} of {one['examples']:,} examples, which count as wrong",
                bound="none",
                remedy="values may overflow in its precision: take one that holds them, or look at the checkpoint's weights",
            )


def _rounds(speed: Sequence[Speed]) -> Iterator[Finding]:
    """Of the whole cell: its figures have rounds in common."""
    for profile, least in LEAST_ROUNDS.items():
        fewest = min((len(one.rounds) for one in speed if one.profile == profile), default=least)
        if fewest < least:
            yield Finding(
                rule="too_few_rounds",
                what="too few rounds",
                measured=str(fewest),
                bound=f"at least {least} with profile {profile}",
                remedy=f"set measure.rounds to {least} or more",
            )


def is_product(operator: str) -> bool:
    return any(word in operator for word in ("MatMul", "Gemm", "Attention"))


def _queries(name: str, one: Speed, measure: Measure) -> Iterator[Finding]:
    """What LoadGen was asked for; with profile `mlperf` it took the number from its own mlperf.conf."""
    least = measure.min_queries if one.profile == "quick" else _asked(one.rounds)
    fewest = min(entry.queries for entry in one.rounds)
    if fewest < least:
        yield Finding(
            rule="too_few_queries",
            what=f"{name}: too few queries in a round",
            measured=str(fewest),
            bound=f"at least {least}",
            remedy="raise measure.min_duration",
        )


def _asked(rounds: Sequence[SpeedRound]) -> int:
    return max(int(entry.loadgen.get("effective_min_sample_count", 0)) for entry in rounds)


def _duration(name: str, one: Speed, measure: Measure) -> Iterator[Finding]:
    short = [entry for entry in one.rounds if entry.loadgen.get("result_min_duration_met") is False]
    if short:
        yield Finding(
            rule="too_short",
            what=f"{name}: done before the shortest duration",
            measured=f"{min(entry.duration_seconds for entry in short):.2f} s in {len(short)} rounds",
            bound=f"at least {measure.min_duration:g} s",
            remedy=f"{AGAIN}, or raise measure.max_warmup",
        )


def _steady(name: str, one: Speed, measure: Measure) -> Iterator[Finding]:
    unsteady = [entry for entry in one.rounds if not entry.warmup_ended.startswith(ENDED_STEADY)]
    if 2 * len(unsteady) > len(one.rounds):
        longer = f"raise measure.max_warmup, now {measure.max_warmup:g} s"
        judged = any(entry.warmup_ended.startswith(NOT_STEADY) for entry in unsteady)
        yield Finding(
            rule="not_steady",
            what=f"{name}: warm-up did not become steady",
            measured=f"{len(unsteady)} of {len(one.rounds)} rounds, the first {unsteady[0].warmup_ended}",
            bound=f"{WINDOWS} windows within {STEADY:.0%} in at least half of the rounds",
            remedy=f"{AGAIN}, or {longer}" if judged else longer,
        )


def _bound(name: str, one: Speed, measure: Measure) -> Iterator[Finding]:
    broken = [entry for entry in one.rounds if entry.search and entry.qps == 0]
    if broken:
        probes = [probe for entry in broken for probe in entry.search]
        best = min(probe.p99_ms for probe in [one for one in probes if one.confirming] or probes)
        tests = "whole tests" if any(one.confirming for one in probes) else "short tests"
        yield Finding(
            rule="bound_not_held",
            what=f"{name}: no rate held the bound",
            measured=f"{len(broken)} of {len(one.rounds)} rounds; p99 {best:.1f} ms at best in {tests}",
            bound=f"{one.latency_bound_ms:g} ms" if one.latency_bound_ms else "a latency",
            remedy="raise measure.server_latency_ms, or take a faster engine",
        )


def _throttled(name: str, one: Speed, measure: Measure) -> Iterator[Finding]:
    for what, percent, remedy in (
        (
            "the cgroup's quota held its threads back",
            _over(one, lambda found: found.quota_throttled_percent),
            "raise the container's processor quota, or lower measure.threads to it",
        ),
        (
            "the processor lowered its clocks for heat",
            _over(one, lambda found: found.thermal_throttled_percent),
            "cool the machine, then run it again with --fresh",
        ),
        (
            "the GPU lowered its clocks for heat or power supply",
            _over(one, _gpu_harm),
            "cool the GPU or see to its power supply, then run it again with --fresh",
        ),
    ):
        if percent is not None and percent > THROTTLED_BOUND:
            yield Finding(
                rule="throttled",
                what=f"{name}: {what}",
                measured=f"{percent:.1f}% of the time",
                bound=f"{THROTTLED_BOUND:g}%",
                remedy=remedy,
            )


def _gpu_harm(found: Conditions) -> float | None:
    return max((found.gpu.throttled_percent.get(reason, 0.0) for reason in HARMFUL), default=0.0) if found.gpu else None


def _disturbed(name: str, one: Speed, measure: Measure) -> Iterator[Finding]:
    others = _over(one, lambda found: found.other_cpu_percent)
    steal = _over(one, lambda found: found.steal_percent)
    for what, percent, bound, remedy in (
        ("other processes took processor time", others, OTHERS_BOUND, "stop them"),
        ("the hypervisor took processor time", steal, STEAL_BOUND, "take a machine with processors of its own"),
    ):
        if percent is not None and percent > bound:
            yield Finding(
                rule="disturbed",
                what=f"{name}: {what}",
                measured=f"{percent:.1f}% of the cell's processors over all rounds",
                bound=f"{bound:g}%",
                remedy=f"{remedy}, then run it again with --fresh",
            )
    processes = [entry.conditions.gpu.processes for entry in one.rounds if entry.conditions and entry.conditions.gpu]
    most = max((count for count in processes if count is not None), default=0)
    if most > 1:
        yield Finding(
            rule="disturbed",
            what=f"{name}: another process was on the GPU",
            measured=f"{most} at once",
            bound="the cell's own",
            remedy="stop it, or choose a free GPU with CUDA_VISIBLE_DEVICES, then run it again with --fresh",
        )


def _over(one: Speed, percent: Callable[[Conditions], float | None]) -> float | None:
    """Over all rounds, each as long as it took."""
    known = [(entry.conditions, percent(entry.conditions)) for entry in one.rounds if entry.conditions]
    times = [(found.ended_seconds - found.began_seconds, value) for found, value in known if value is not None]
    total = sum(seconds for seconds, _ in times)
    return sum(seconds * value for seconds, value in times) / total if total > 0 else None


def _noise(name: str, one: Speed, measure: Measure) -> Iterator[Finding]:
    figures = [value for entry in one.rounds if (value := getattr(entry, MAIN[one.scenario])) is not None]
    mean = statistics.fmean(figures) if figures else 0.0
    spread = (max(figures) - min(figures)) / mean if mean > 0 else 0.0
    if spread > NOISE_BOUND:
        yield Finding(
            rule="noisy",
            what=f"{name}: rounds differ",
            measured=f"{spread:.1%} of {MAIN[one.scenario].removesuffix('_ms')} between lowest and highest",
            bound=f"{NOISE_BOUND:.0%}",
            remedy=f"{AGAIN}, with a longer measure.min_duration",
        )
