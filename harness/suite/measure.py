from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Profile = Literal["quick", "mlperf"]


MLPERF_ROUNDS = 5


MLPERF_SECONDS = 600.0
"""min_duration of every scenario in the mlperf.conf that LoadGen holds."""


MLPERF_STREAMS = 8
"""Samples of a query of multi_stream, there."""


MLPERF_LATENCY_MS = 130.0
"""Bound of the server scenario's p99 for BERT, there."""


@dataclass(frozen=True)
class Measure:
    """How speed is measured. Durations in seconds; `rounds` are fresh processes, 0 where speed is not measured. loads: `fixed`
    (every sample padded to max_length) and `real` (the task's own lengths). scenarios: MLPerf Inference's names.

    profile `quick`: the durations and counts below. `mlperf`: those of the mlperf.conf that LoadGen holds, for BERT;
    rounds, loads and batch sizes stay ours. Neither is verified by MLCommons.
    """

    scenarios: tuple[str, ...] = ("single_stream", "offline")
    loads: tuple[str, ...] = ("fixed", "real")
    rounds: int = 3
    min_duration: float = 2.0
    min_queries: int = 64
    max_warmup: float = 20.0
    threads: int = 0
    """Threads of every engine; 0 means all physical cores this process may use."""
    min_accuracy: float = 0.99
    profile: Profile = "quick"
    server_latency_ms: float | None = None
    """What `server` has to hold with its 99th percentile."""

    def sizes(self, scenario: str, batch_sizes: Sequence[int]) -> tuple[int, ...]:
        """The batch sizes at which a scenario is measured, of those of a cell. multi_stream asks for so many samples a query,
        eight with MLPerf's settings; offline is measured at each; server may form batches up to the largest."""
        if scenario == "single_stream":
            return (1,)
        if scenario == "server":
            return (max(batch_sizes),)
        if scenario == "multi_stream":
            many = tuple(size for size in batch_sizes if size > 1)
            return (MLPERF_STREAMS,) if self.profile == "mlperf" else many
        return tuple(batch_sizes)

    def turns(self, batch_sizes: Sequence[int]) -> tuple[tuple[str, int], ...]:
        """Under which load and at which batch sizes a cell takes turns with others: what tables show, which is single samples
        and the largest batch at real lengths (at full length, where that is all that is asked for)."""
        sizes = {size for name in self.scenarios for size in self.sizes(name, batch_sizes)}
        load = "real" if "real" in self.loads else self.loads[0]
        return tuple((load, size) for size in sorted({min(sizes), max(sizes)})) if sizes else ()

    def in_key(self) -> dict[str, Any]:
        """What decides how a cell is measured. The badge's bound does not; a setting that came later counts only where it is
        not at its default, so that it leaves the keys of earlier records alone."""
        if not self.rounds:
            return {"rounds": 0, "threads": self.threads, "profile": self.profile}
        content = asdict(self)
        del content["min_accuracy"]
        for name, default in (("profile", "quick"), ("server_latency_ms", None)):
            if content[name] == default:
                del content[name]
        return content


def mlperf_settings(settings: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """What stands in the place of a default: MLPerf's bound of the server scenario, and profile `mlperf`'s duration. Its counts
    LoadGen itself takes from its mlperf.conf."""
    found: dict[str, Any] = {}
    if "server" in settings["scenarios"] and settings["server_latency_ms"] is None:
        found["server_latency_ms"] = MLPERF_LATENCY_MS
    if settings["profile"] == "mlperf":
        found["min_duration"] = MLPERF_SECONDS
        if "rounds" not in given:
            found["rounds"] = MLPERF_ROUNDS
    return found
