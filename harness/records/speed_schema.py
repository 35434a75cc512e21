"""The parts of a record about speed: scenarios, interleaved rounds, the conditions they ran under, cold start."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness.records.figure import Figure, Part


class Range(Part):
    """Of samples."""

    lowest: float
    mean: float
    highest: float


class GpuConditions(Part):
    """Of the GPU that the cell ran on, sampled by the runner through NVML; None where the driver does not say."""

    sm_mhz: Range | None
    memory_mhz: Range | None
    celsius: Range | None
    watts: Range | None
    throttled_percent: dict[str, float] = Field(description="of the samples, by the reason why clocks were lowered")
    processes: int | None = Field(description="most at once, the cell's own included")
    memory_used_bytes: int | None = Field(description="most at once, of all processes")


class Conditions(Part):
    """What went on in the machine during one test. `_percent` is of the time of the processors in `affinity`."""

    began_seconds: float = Field(description="first issue, by the machine's monotonic clock")
    ended_seconds: float = Field(description="last completion")
    threads: int = Field(description="of the engine's own pool")
    affinity: list[int] = Field(description="processors that the cell's process may use")
    own_cpu_percent: float
    other_cpu_percent: float = Field(description="of all other processes, interrupts included")
    steal_percent: float = Field(description="taken by the hypervisor")
    quota_throttled_percent: float | None = Field(None, description="held back by the cgroup's quota")
    thermal_throttled_percent: float | None = Field(None, description="clocks lowered for heat")
    energy_joules: float | None = None
    energy_source: str = Field(description="which counters, or 'not measured: why'")
    samples: int = Field(0, description="taken by the runner meanwhile, one a second, of what follows")
    cpu_mhz: Range | None = None
    cpu_mhz_source: str = ""
    gpu: GpuConditions | None = None
    runner_cpu_percent: float | None = Field(
        None, description="of one processor's time, what the runner took while the cell's process ran"
    )


class Probe(Part):
    """One test of the search for a server's rate."""

    qps: float = Field(description="samples a second at which samples arrived, on average")
    p99_ms: float
    queries: int
    held: bool
    confirming: bool = Field(description="a whole test, which had to convince LoadGen's early stopping")


class SpeedRound(Part):
    """One fresh process."""

    qps: float = Field(description="samples per second; of server the highest rate of arrivals that held its bound")
    mean_ms: float | None = Field(None, description="latency of a query, and its percentiles")
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    early_stopping_ms: float | None = Field(
        None, description="LoadGen's early-stopping estimate of p90 (single_stream) or p99 (multi_stream)"
    )
    started: str = Field("", description="UTC, ISO 8601: when its process was asked for")
    run_id: str = Field(
        "", description="the run that measured it: not the record's where a killed run's round was kept"
    )
    queries: int = Field(description="samples that were run")
    mean_tokens: float | None = Field(
        None,
        description="mean true length of those samples, padding not counted; None in records of before it was kept",
    )
    duration_seconds: float
    warmup_seconds: float
    warmup_ended: str
    search: list[Probe] = Field(default_factory=list, description="every test that a server's rate was sought with")
    conditions: Conditions | None = None
    loadgen: dict[str, Any] = Field(default_factory=dict, description="LoadGen's own settings and result lines")


class Speed(Part):
    scenario: Literal["single_stream", "multi_stream", "offline", "server"]
    load: Literal["fixed", "real"] = Field(
        description="fixed: every sample max_length tokens; real: the task's own lengths"
    )
    batch_size: int = Field(description="samples in one call of the engine (at most)")
    sequence_length: int = Field(description="tokens a sample (fixed), or the longest allowed (real)")
    mean_tokens: float = Field(
        description="mean true length of the samples offered, padding not counted, over rounds; in records of measuring "
        "version 1 of all that could have been offered (real), or max_length (fixed)"
    )
    qps: Figure
    mean_ms: Figure | None = None
    p50_ms: Figure | None = None
    p90_ms: Figure | None = None
    p99_ms: Figure | None = None
    early_stopping_ms: Figure | None = None
    joules_a_query: Figure | None = None
    energy_source: str = Field("", description="what joules_a_query was read from, or 'not measured: why'")
    profile: Literal["quick", "mlperf"] = Field(
        "quick", description="whose durations and counts; 'unverified by MLCommons' in either case"
    )
    latency_bound_ms: float | None = Field(None, description="what server had to hold with its 99th percentile")
    rounds: list[SpeedRound] = Field(min_length=1)
    timed: str = Field(description="what is inside the timed region")


class TurnRound(Part):
    """One round of turns: fresh processes of several cells, which ran the same batches one after the other."""

    together: str = Field(description="the same for all cells that took turns in it")
    work: str = Field(description="hash of the token ids that the batches were taken from")
    seconds: float = Field(gt=0, description="of the session's run, all batches once, each at the median of its calls")
    samples: int = Field(description="of all batches")
    tokens: int = Field(description="true length of those samples together, padding not counted")
    batches: int
    passes: int = Field(description="timed calls of each batch")
    affinity: list[int] = Field(description="processors that the processes might use")
    other_cpu_percent: float = Field(
        description="of those processors' time, what went to none of the cells that took turns, nor to the runner"
    )
    steal_percent: float
    quota_throttled_percent: float | None = None


class Turns(Part):
    """The time for the same work in interleaved rounds, for ratios between cells that share rounds. See docs/method.md, *Interleaved rounds*."""

    load: Literal["fixed", "real"]
    batch_size: int
    sequence_length: int
    rounds: list[TurnRound] = Field(min_length=1)


class ColdStart(Part):
    """From nothing to the first answer, a round each; seconds. The engine's build is not in it: see build_seconds."""

    process_seconds: Figure = Field(description="from asking for the process until its program runs, imports included")
    load_seconds: Figure = Field(description="importing the engine and loading the checkpoint into it")
    first_query_seconds: Figure = Field(description="the first answer, to one sequence of max_length")
