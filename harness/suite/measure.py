"""How speed is measured: the settings of a cell, and those of MLPerf Inference."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Profile = Literal["quick", "mlperf"]


LEAST_ADAPTIVE, MOST_TIMES = 7, 4
"""With max_rounds: the least `rounds`, so that a median has an interval at the first look, and how many times as many there may
be at most, so that there are three looks."""


MLPERF_SECONDS = 600.0
"""min_duration of every scenario, by LoadGen's mlperf.conf."""


MLPERF_STREAMS = 8
"""Samples per query of scenario multi_stream, by LoadGen's mlperf.conf."""


MLPERF_LATENCY_MS = 130.0
"""Bound on the 99th percentile of latency in scenario server for BERT, by LoadGen's mlperf.conf."""


LIMITS = ("train_timeout", "accuracy_timeout", "speed_timeout", "memory_gib")
"""Bounds on a process, which change no figure."""


@dataclass(frozen=True)
class Measure:
    """How speed is measured. Durations are in seconds.

    scenarios: `interleaved` (the cells of a table take turns with the same batches), and those of MLPerf Inference by their names
    there. Beside `interleaved` these run in the first round only, as a cross-check. loads: `fixed` (every sample is padded to max_length) and `real` (the task's
    own lengths). rounds: fresh processes that repeat the measurement; 0: speed is not measured.
    profile `quick`: the durations and counts below; `mlperf`: those of LoadGen's mlperf.conf for BERT, while rounds, loads and
    batch sizes stay ours. MLCommons verifies neither.
    """

    scenarios: tuple[str, ...] = ("interleaved", "single_stream", "offline")
    loads: tuple[str, ...] = ("fixed", "real")
    rounds: int = 9
    """Two processes of one program differ by more than the calls of one: many short rounds say more than few long ones."""
    min_duration: float = 1.0
    min_queries: int = 64
    max_warmup: float = 20.0
    threads: int = 0
    """Of every engine; 0: all physical cores that this process may use."""
    min_accuracy: float = 0.99
    profile: Profile = "quick"
    server_latency_ms: float | None = None
    """Bound on the 99th percentile of latency in scenario `server`."""
    precision: float = 0.05
    """Half-width of a figure's interval, as a share of it, up to which the figure is called precise. Without max_rounds it
    changes no figure."""
    max_rounds: int | None = None
    """Rounds go on up to so many, until the compared figures are precise; None: there are as many as `rounds` says."""
    train_timeout: float | None = None
    accuracy_timeout: float | None = None
    speed_timeout: float | None = None
    """Seconds after which a process counts as hung: one that makes a checkpoint, scores all examples, or takes a round."""
    memory_gib: float | None = None
    """The most memory that the process of a cell may take for its data; None: all that there is."""

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many rounds it is looked whether the figures are precise; the last number ends them. Doubled each time."""
        planned = [self.rounds]
        while self.rounds and self.max_rounds and planned[-1] < self.max_rounds:
            planned.append(min(2 * planned[-1], self.max_rounds))
        return tuple(planned)

    @property
    def planned_looks(self) -> int | None:
        """How many looks the intervals must hold at; None where the number of rounds is fixed."""
        return len(self.looks) if self.max_rounds else None

    @property
    def is_interleaved(self) -> bool:
        """Whether interleaved rounds are the measurement. Otherwise they follow LoadGen's rounds, for ratios alone."""
        return "interleaved" in self.scenarios

    def loadgen_scenarios(self, number: int) -> tuple[str, ...]:
        """LoadGen's scenarios in a round; the first is number 1. Nothing but LoadGen measures `server`."""
        others = tuple(name for name in self.scenarios if name != "interleaved")
        return others if number == 1 or not self.is_interleaved else tuple(name for name in others if name == "server")

    def sizes(self, scenario: str, batch_sizes: Sequence[int]) -> tuple[int, ...]:
        """The batch sizes at which a scenario is measured, of those of a cell. multi_stream: the samples per query, eight in
        profile `mlperf`; server: the largest batch that may be formed; interleaved: one sample, for latency, and the largest
        batch; offline: all sizes."""
        if scenario == "single_stream":
            return (1,)
        if scenario == "interleaved":
            return tuple(sorted({1, max(batch_sizes)}))
        if scenario == "server":
            return (max(batch_sizes),)
        if scenario == "multi_stream":
            many = tuple(size for size in batch_sizes if size > 1)
            return (MLPERF_STREAMS,) if self.profile == "mlperf" else many
        return tuple(batch_sizes)

    def turns(self, batch_sizes: Sequence[int]) -> tuple[tuple[str, int], ...]:
        """(load, batch size) of the interleaved measurements, which tables show: the smallest and the largest batch at real
        lengths (at full length where the suite asks for that load alone)."""
        sizes = {size for name in self.scenarios for size in self.sizes(name, batch_sizes)}
        load = "real" if "real" in self.loads else self.loads[0]
        return tuple((load, size) for size in sorted({min(sizes), max(sizes)})) if sizes else ()

    def to_json(self) -> dict[str, Any]:
        """All settings, without those of `precision`, `max_rounds` and LIMITS that are at their default: plans and records from before
        them then stay as they are."""
        content = asdict(self)
        for name in ("precision", "max_rounds", *LIMITS):
            if content[name] == getattr(Measure, name):
                del content[name]
        return content

    def in_key(self) -> dict[str, Any]:
        """The settings that are part of a cell's key: all but the bounds that only words depend on. Settings that are younger than the first records
        count only where they are not at their default, so that they leave older keys alone."""
        if not self.rounds:
            return {"rounds": 0, "threads": self.threads, "profile": self.profile}
        content = asdict(self)
        for name in ("min_accuracy", *LIMITS):
            del content[name]
        if self.max_rounds is None:
            del content["max_rounds"], content["precision"]
        for name, default in (("profile", "quick"), ("server_latency_ms", None)):
            if content[name] == default:
                del content[name]
        return content


def mlperf_settings(settings: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Values that replace defaults: MLPerf's latency bound of scenario server, and the duration and scenarios of profile `mlperf`,
    which runs LoadGen in every round. LoadGen itself takes that profile's counts from its mlperf.conf. given: names of the settings that the suite file has."""
    replaced: dict[str, Any] = {}
    if "server" in settings["scenarios"] and settings["server_latency_ms"] is None:
        replaced["server_latency_ms"] = MLPERF_LATENCY_MS
    if settings["profile"] == "mlperf":
        replaced["min_duration"] = MLPERF_SECONDS
        if "scenarios" not in given:
            replaced["scenarios"] = ("single_stream", "offline")
    return replaced
