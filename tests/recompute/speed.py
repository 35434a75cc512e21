"""Speed: rounds from LoadGen's own lines, figures over rounds, interleaved rounds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import stats

from tests.recompute.tally import EXACT, Record, Tally

FIGURES = ("qps", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "early_stopping_ms")
BY_CLOCK = 0.02  # relative: from the first issue to the last completion, without what LoadGen does before and after


def mean_and_t(values: list[float]) -> tuple[float, float | None, float | None]:
    """Mean and 95% interval by Student's t, its low end not below 0."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return mean, max(0.0, mean - half), mean + half


def median_and_quantile_test(values: list[float], looks: int) -> tuple[float, float | None, float | None]:
    """Median and its interval, of 96% at one of several looks."""
    ends = stats.quantile_test(values, q=0, p=0.5).confidence_interval(0.95 if looks == 1 else 0.96)
    return float(np.median(values)), float(ends.low), float(ends.high)


def median_and_order_statistics(values: list[float]) -> tuple[float, float, float, float]:
    """Median, the innermost order statistics that hold it in at least 92.96%, and in how much they do."""
    count, ordered = len(values), np.sort(values)
    inner = max(k for k in range(count // 2) if 2 * stats.binom.cdf(k, count, 0.5) <= 0.0704)
    held = 1 - 2 * float(stats.binom.cdf(inner, count, 0.5))
    return float(np.median(values)), float(ordered[inner]), float(ordered[-1 - inner]), held


def check_round(tally: Tally, where: str, scenario: str, one: Record) -> None:
    """A round's figures from LoadGen's own result lines."""
    log = one["loadgen"]
    if not log.get("result_query_count"):
        return
    kind = "figures of a LoadGen round"
    rate = log["result_samples_per_second"] if scenario == "offline" else log.get("result_qps_with_loadgen_overhead")
    tally.compare(
        "queries of a LoadGen round",
        where,
        one["queries"],
        log["result_query_count"] * log["effective_samples_per_query"],
    )
    if scenario in ("offline", "single_stream"):
        tally.compare(kind, where, one["qps"], rate)
        if clock := one.get("conditions"):
            seconds = clock["ended_seconds"] - clock["began_seconds"]
            tally.compare("LoadGen's rate by our clock", where, one["qps"], one["queries"] / seconds, BY_CLOCK)
    if scenario == "offline":
        return
    lines = {"mean_ms": "mean_latency_ns"} | {f"p{p}_ms": f"{p}.00_percentile_latency_ns" for p in (50, 90, 99)}
    for figure, line in lines.items():
        tally.compare(kind, where, one[figure], log[f"result_{line}"] / 1e6)
    early = {"single_stream": "early_stopping_latency_ss", "multi_stream": "early_stopping_latency_ms"}.get(scenario)
    if early and one.get("early_stopping_ms") is not None:
        tally.compare(kind, where, one["early_stopping_ms"], log[early] / 1e6)


def check_speed(tally: Tally, record: Record) -> None:
    for speed in record["speed"]:
        rounds = speed["rounds"]
        where = f"{record['record_id']} {speed['scenario']} {speed['load']} {speed['batch_size']}"
        for one in rounds:
            check_round(tally, where, speed["scenario"], one)
        samples = {name: [one.get(name) for one in rounds] for name in FIGURES}
        energy = [(one.get("conditions") or {}).get("energy_joules") for one in rounds]
        samples["joules_a_query"] = [e and e / one["queries"] for e, one in zip(energy, rounds, strict=True)]
        for name, values in samples.items():
            figure = speed.get(name)
            if None in values or not values:
                tally.compare("speed: means over rounds", f"{where} {name}", figure and figure["value"], None)
                continue
            fixed = re.fullmatch(
                rf"median and interval of order statistics over {len(values)} fresh-process rounds, which holds in (\d+\.\d)%",
                figure["method"],
            )
            looks = re.fullmatch(
                rf"median and interval of order statistics over {len(values)} fresh-process rounds, at one of (\d) looks",
                figure["method"],
            )
            if looks:
                mean, low, high = median_and_quantile_test(values, int(looks[1]))
            elif fixed:
                mean, low, high, level = median_and_order_statistics(values)
                tally.compare("speed: level of an interval", where, float(fixed[1]), round(100 * level, 1))
            elif len(values) == 1 and figure["method"] == "no interval: a single round":
                mean, low, high = values[0], None, None
            elif figure["method"] == f"no interval: {len(values)} rounds are too few for a median":
                mean, low, high = float(np.median(values)), None, None
            elif figure["method"] == f"mean and t interval over {len(values)} fresh-process rounds":
                mean, low, high = mean_and_t(values)
            else:
                tally.fail("speed: means over rounds", where, f"no recomputation of {figure['method']!r}")
                continue
            tally.compare("speed: means over rounds", f"{where} {name}", figure["value"], mean)
            tally.compare("speed: t ends over rounds", f"{where} {name} low", figure["low"], low)
            tally.compare("speed: t ends over rounds", f"{where} {name} high", figure["high"], high)
        tokens = [one.get("mean_tokens") for one in rounds]
        if tokens and None not in tokens:
            tally.compare("mean tokens of a sample", where, speed["mean_tokens"], float(np.mean(tokens)))
    check_interleaved(tally, record)
    check_findings(tally, record)


def check_interleaved(tally: Tally, record: Record) -> None:
    """Samples a second and calls of an interleaved round are those of the turn with the same work."""
    turns = {(turn["load"], turn["batch_size"]): turn["rounds"] for turn in record.get("turns") or []}
    for speed in record["speed"]:
        if speed["scenario"] != "interleaved":
            continue
        where = f"{record['record_id']} interleaved {speed['load']} {speed['batch_size']}"
        for one, turn in zip(speed["rounds"], turns[speed["load"], speed["batch_size"]], strict=True):
            kind = "figures of an interleaved round"
            tally.compare(kind, where, one["qps"], turn["samples"] / turn["seconds"])
            tally.compare(kind, where, one["queries"], turn["samples"] * turn["passes"])
            tally.compare(kind, where, one["mean_tokens"], turn["tokens"] / turn["samples"])
            calls = turn["batches"] * turn["passes"]
            tally.compare(kind, where, one["mean_ms"], 1000 * one["duration_seconds"] / calls)
            in_order = one["p50_ms"] <= one["p90_ms"] <= one["p99_ms"]
            tally.compare("interleaved percentiles in order", where, True, in_order)


def check_findings(tally: Tally, record: Record) -> None:
    """What the rules measured: the spread of rounds, the time that others took."""
    spreads: set[float] = set()
    others: set[float] = set()
    for speed in record["speed"]:
        for name in FIGURES:
            values = [one.get(name) for one in speed["rounds"]]
            if values and None not in values:
                spreads |= {100 * (max(values) - min(values)) / np.mean(values)}
        conditions = [one["conditions"] for one in speed["rounds"] if one.get("conditions")]
        if conditions:
            seconds = [c["ended_seconds"] - c["began_seconds"] for c in conditions]
            for name in ("other_cpu_percent", "steal_percent"):
                if all(c[name] is not None for c in conditions):
                    others.add(float(np.average([c[name] for c in conditions], weights=seconds)))
    for finding in record["findings"]:
        near = {"noisy": spreads, "disturbed": others}.get(finding["rule"])
        if near is None:
            tally.left_out[f"what rule {finding['rule']} measured"] += 1
            continue
        stored = float(re.match(r"[\d.]+", finding["measured"])[0])  # type: ignore[index]
        best = min(near, key=lambda v: abs(v - stored), default=np.nan)
        bound = 0.05 if "." in finding["measured"].split("%")[0] else 0.5  # as printed
        what = f"{finding['measured']}, recomputed {best}"
        tally.add(
            "findings",
            f"{record['record_id']} {finding['rule']}",
            abs(best - stored),
            bound + EXACT,
            what,
            "as printed",
        )


def check_turns(tally: Tally, records: Iterable[Record]) -> None:
    """All cells that were interleaved in a round ran the same work."""
    work: dict[tuple[str, str, int], set[tuple[Any, ...]]] = defaultdict(set)
    for record in records:
        for turn in record.get("turns") or []:
            for one in turn["rounds"]:
                key = (one["together"], turn["load"], turn["batch_size"])
                work[key].add(tuple(one[name] for name in ("work", "samples", "tokens", "batches")))
                fits = (one["batches"] - 1) * turn["batch_size"] < one["samples"] <= one["batches"] * turn["batch_size"]
                tally.compare("interleaved rounds: samples fit the batches", str(key), True, fits)
    for key, kinds in work.items():
        tally.compare("interleaved rounds: equal work of all cells", str(key), len(kinds), 1)
