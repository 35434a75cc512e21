"""The rules by which a measurement is valid. Each rule that fails is a finding: what, measured, bound, and what to do about it.

A rule looks at all rounds of a figure together. One disturbed round among many widens the figure's interval, which is enough;
when most of them are disturbed the figure is wrong, and its interval does not show it. That rounds differ is no fault: the
interval says by how much, and `harness.measure.precision` in a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from harness.machine.nvidia import HARMFUL
from harness.measure.conditions import OTHERS_BOUND, WORST_BOUND, are_others_there
from harness.measure.steady import BESIDE_OTHERS, ENDED_STEADY, NOT_STEADY, STEADY, WINDOWS
from harness.records.schema import Finding
from harness.records.speed_schema import Conditions, Speed, SpeedRound
from harness.suite.measure import Measure

MIN_ROUNDS = {"quick": 3, "mlperf": 5}
"""By profile. Fewer rounds say next to nothing about how rounds differ."""


STEAL_BOUND = 5.0
"""Percent of the processors' time, over all rounds, that the hypervisor may take."""


THROTTLED_BOUND = 1.0
"""Percent of the processors' time, or of the GPU's samples, over all rounds."""


AGAIN = "run it again with --fresh on a quiet machine"


def findings(speeds: Sequence[Speed], placement: Mapping[str, Any], measure: Measure) -> list[Finding]:
    """The rules that fail for a cell's speed."""
    interleaved = any(speed.scenario == "interleaved" for speed in speeds)
    judged = [speed for speed in speeds if not (interleaved and speed.scenario in CROSS_CHECKED)]
    failed = [*_wrong_provider(placement), *_too_few_rounds(judged), *_too_many_threads(judged)]
    of_loadgen = (_too_few_queries, _too_short, _not_steady, _bound_not_held)
    for speed in judged:
        for rule in (*(() if speed.scenario == "interleaved" else of_loadgen), _throttled, _disturbed):
            failed += rule(speed_name(speed), speed, measure)
    return failed


CROSS_CHECKED = {"single_stream": "p50_ms", "offline": "qps", "multi_stream": "p50_ms"}
"""LoadGen's scenarios that are a cross-check beside interleaved rounds, and the figure that both have. Where no interleaved round
was measured they are the only figures, and judged."""


DISAGREEMENT = 1.25
"""LoadGen's figure and the interleaved one may be so many times apart. Between them the speed of a shared machine wanders by a
tenth, and a session that takes turns finds its caches filled by others."""


def loadgen_disagrees(speeds: Sequence[Speed]) -> Iterator[Finding]:
    """Where LoadGen's round and the interleaved rounds of the same work do not confirm each other, one of the two is wrong."""
    interleaved = {(speed.load, speed.batch_size): speed for speed in speeds if speed.scenario == "interleaved"}
    for speed in speeds:
        other, name = interleaved.get((speed.load, speed.batch_size)), CROSS_CHECKED.get(speed.scenario)
        figures = [getattr(part, name) for part in (speed, other) if part and name]
        if len(figures) < 2 or None in figures:
            continue
        loadgens, ours = (figure.value for figure in figures)
        if max(loadgens / ours, ours / loadgens) > DISAGREEMENT:
            yield Finding(
                rule="loadgen_disagrees",
                what=f"{speed_name(speed)}: LoadGen's figure is far from the interleaved one",
                measured=f"{name} {loadgens:.4g}, interleaved {ours:.4g}",
                bound=f"a factor of {DISAGREEMENT:g}",
                remedy="run it again with --remeasure on a quiet machine; if they still differ, report it",
            )


def speed_name(speed: Speed) -> str:
    """How findings about its figures begin; pages match findings with figures by it."""
    return f"{speed.scenario}, {speed.load} lengths, batch {speed.batch_size}"


def _wrong_provider(placement: Mapping[str, Any]) -> Iterator[Finding]:
    elsewhere = [
        (name, provider)
        for name, operator, provider in placement["detail"]
        if is_product(operator) and placement["claimed"] not in provider and "Provider" in provider
    ]
    if elsewhere:
        name, provider = elsewhere[0]
        yield Finding(
            rule="wrong_provider",
            what=f"matrix products did not run on {placement['claimed']}",
            measured=f"{len(elsewhere)} nodes, the first is {name} on {provider}",
            bound="none",
            remedy="install the engine for this device (`quantboard doctor` shows how), or run the cell on the CPU",
        )


PROMISED_SHARE = 0.99
"""Of the integer products that a graph asks for, by multiply-accumulates, the share that must have run as such."""


def ran_float(placement: Mapping[str, Any]) -> Iterator[Finding]:
    """Of an integer backend: products that its graph has as integers ran in floating point. Then neither accuracy nor speed is
    that of the backend's name. Where the promise is not known, at least one product must be an integer one."""
    integer, total, promised = placement["int8_macs"], placement["total_macs"], placement.get("promised_macs")
    if integer < PROMISED_SHARE * (promised or 0) or (promised is None and not integer):
        yield Finding(
            rule="ran_float",
            what="the engine ran products in floating point that should be integer products",
            measured=f"{100 * integer / total:.1f}% of the multiply-accumulates were integer products",
            bound="more than 0%" if promised is None else f"{100 * promised / total:.1f}%, which the graph asks for",
            remedy="use a version of the engine, or a device, with integer kernels for them; the cell's page shows what ran where",
        )


def is_product(operator: str) -> bool:
    """Whether a graph node of this kind is a matrix product."""
    return any(word in operator for word in ("MatMul", "Gemm", "Attention"))


def no_answer(splits: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Of the splits that were evaluated: an engine that returns NaN has no accuracy, whatever the metrics make of it."""
    for split in splits:
        if split["missing"]:
            yield Finding(
                rule="no_answer",
                what=f"{split['split']}: the engine returned no finite numbers",
                measured=f"for {split['missing']:,} of {split['examples']:,} examples, which count as wrong",
                bound="none",
                remedy="values may overflow in this precision: choose a wider one, or check the checkpoint's weights",
            )


def _too_few_rounds(speeds: Sequence[Speed]) -> Iterator[Finding]:
    """One finding for the whole cell, since its figures share their rounds."""
    for profile, least in MIN_ROUNDS.items():
        fewest = min((len(speed.rounds) for speed in speeds if speed.profile == profile), default=least)
        if fewest < least:
            yield Finding(
                rule="too_few_rounds",
                what="too few rounds",
                measured=str(fewest),
                bound=f"at least {least} with profile {profile}",
                remedy=f"set measure.rounds to {least} or more",
            )


def _too_few_queries(name: str, speed: Speed, measure: Measure) -> Iterator[Finding]:
    """Fewer than LoadGen was asked for; profile `mlperf` takes the number from LoadGen's own mlperf.conf."""
    least = measure.min_queries if speed.profile == "quick" else _mlperf_queries(speed.rounds)
    fewest = min(speed_round.queries for speed_round in speed.rounds)
    if fewest < least:
        yield Finding(
            rule="too_few_queries",
            what=f"{name}: too few queries in a round",
            measured=str(fewest),
            bound=f"at least {least}",
            remedy="raise measure.min_duration",
        )


def _mlperf_queries(rounds: Sequence[SpeedRound]) -> int:
    return max(int(speed_round.loadgen.get("effective_min_sample_count", 0)) for speed_round in rounds)


def _too_short(name: str, speed: Speed, measure: Measure) -> Iterator[Finding]:
    short = [
        speed_round.duration_seconds
        for speed_round in speed.rounds
        if speed_round.loadgen.get("result_min_duration_met") is False
    ]
    if short:
        yield Finding(
            rule="too_short",
            what=f"{name}: ended before its minimum duration",
            measured=f"{min(short):.2f} s in {len(short)} rounds",
            bound=f"at least {measure.min_duration:g} s",
            remedy=f"{AGAIN}, or raise measure.max_warmup",
        )


def _not_steady(name: str, speed: Speed, measure: Measure) -> Iterator[Finding]:
    ended = [speed_round.warmup_ended for speed_round in speed.rounds]
    unsteady = [why for why in ended if not why.startswith(ENDED_STEADY)]
    if 2 * len(unsteady) > len(ended):
        longer = f"raise measure.max_warmup, now {measure.max_warmup:g} s"
        judged = any(why.startswith(NOT_STEADY) for why in unsteady)
        others = any(BESIDE_OTHERS in why for why in unsteady)
        yield Finding(
            rule="not_steady",
            what=f"{name}: the speed was not steady after warm-up",
            measured=f"{len(unsteady)} of {len(ended)} rounds, the first {unsteady[0]}",
            bound=f"{WINDOWS} windows within {STEADY:.0%} in at least half of the rounds",
            remedy=AGAIN if others else f"{AGAIN}, or {longer}" if judged else longer,
        )


def _bound_not_held(name: str, speed: Speed, measure: Measure) -> Iterator[Finding]:
    broken = [speed_round for speed_round in speed.rounds if speed_round.search and speed_round.qps == 0]
    if broken:
        probes = [probe for speed_round in broken for probe in speed_round.search]
        whole = [probe for probe in probes if probe.confirming]
        best = min(probe.p99_ms for probe in whole or probes)
        yield Finding(
            rule="bound_not_held",
            what=f"{name}: no arrival rate held the latency bound",
            measured=f"{len(broken)} of {len(speed.rounds)} rounds; "
            f"p99 {best:.1f} ms at best in {'whole' if whole else 'short'} tests",
            bound=f"{speed.latency_bound_ms:g} ms" if speed.latency_bound_ms else "a latency",
            remedy="raise measure.server_latency_ms, or use a faster engine",
        )


def _throttled(name: str, speed: Speed, measure: Measure) -> Iterator[Finding]:
    for what, percent, remedy in (
        (
            "the cgroup's quota held its threads back",
            _mean_percent(speed, lambda conditions: conditions.quota_throttled_percent),
            "raise the container's processor quota, or lower measure.threads to it",
        ),
        (
            "the processor lowered its clocks because of heat",
            _mean_percent(speed, lambda conditions: conditions.thermal_throttled_percent),
            "cool the machine, then run it again with --fresh",
        ),
        (
            "the GPU lowered its clocks because of heat or power supply",
            _mean_percent(speed, _gpu_harm),
            "cool the GPU or check its power supply, then run it again with --fresh",
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


def _gpu_harm(conditions: Conditions) -> float | None:
    gpu = conditions.gpu
    return max((gpu.throttled_percent.get(reason, 0.0) for reason in HARMFUL), default=0.0) if gpu else None


def _disturbed(name: str, speed: Speed, measure: Measure) -> Iterator[Finding]:
    others, worst_other, waited, steal, worst_steal = (
        _mean_percent(speed, attrgetter(f"{quantity}_percent"))
        for quantity in ("other_cpu", "worst_other", "waited", "steal", "worst_steal")
    )
    if are_others_there(others, worst_other, waited):
        in_line = f"; its threads waited for one for {waited:.1f}% of the time" if waited is not None else ""
        yield _disturbance(f"{name}: other processes took processor time", others, worst_other, "stop them", in_line)
    if (steal or 0.0) > STEAL_BOUND or (worst_steal or 0.0) > WORST_BOUND:
        remedy = "use a machine with dedicated processors"
        yield _disturbance(f"{name}: the hypervisor took processor time", steal, worst_steal, remedy)
    gpus = [
        speed_round.conditions.gpu
        for speed_round in speed.rounds
        if speed_round.conditions and speed_round.conditions.gpu
    ]
    most = max((gpu.processes for gpu in gpus if gpu.processes is not None), default=0)
    if most > 1:
        yield Finding(
            rule="disturbed",
            what=f"{name}: another process was on the GPU",
            measured=f"{most} at once",
            bound="the cell's own",
            remedy="stop it, or choose a free GPU with CUDA_VISIBLE_DEVICES, then run it again with --fresh",
        )


def _disturbance(what: str, mean: float | None, worst: float | None, remedy: str, more: str = "") -> Finding:
    of_one = f", up to {worst:.1f}% of a single one" if worst is not None else ""
    return Finding(
        rule="disturbed",
        what=what,
        measured=f"{mean or 0.0:.1f}% of the cell's processors over all rounds{of_one}{more}",
        bound=f"{OTHERS_BOUND:g}%, and {WORST_BOUND:g}% of a single one",
        remedy=f"{remedy}, then run it again with --fresh",
    )


def _too_many_threads(speeds: Sequence[Speed]) -> Iterator[Finding]:
    """One finding for the whole cell: threads that share a processor wait for each other."""
    used = [round_.conditions for speed in speeds for round_ in speed.rounds if round_.conditions]
    threads, there = max(((each.threads, len(each.affinity)) for each in used), default=(0, 0))
    if threads > there:
        yield Finding(
            rule="too_many_threads",
            what="more threads than processors",
            measured=f"{threads} threads",
            bound=f"{there} processors that the cell may use",
            remedy=f"set measure.threads to {there} or less, or run it on more processors",
        )


def _mean_percent(speed: Speed, percent: Callable[[Conditions], float | None]) -> float | None:
    """Mean over all rounds, weighted by how long each took."""
    total = weighted = 0.0
    for speed_round in speed.rounds:
        conditions = speed_round.conditions
        if conditions is None or (value := percent(conditions)) is None:
            continue
        seconds = conditions.ended_seconds - conditions.began_seconds
        total += seconds
        weighted += seconds * value
    return weighted / total if total > 0 else None
