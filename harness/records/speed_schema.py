"""The parts of a record about speed: scenarios, interleaved rounds, the conditions they ran under, cold start."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness.records.figure import Figure, Part


class Range(Part):
    """Range of the samples of a quantity."""

    lowest: float
    mean: float
    highest: float


class GpuConditions(Part):
    """The GPU that the cell ran on, sampled by the runner through NVML; None where the driver does not report a quantity."""

    sm_mhz: Range | None
    memory_mhz: Range | None
    celsius: Range | None
    watts: Range | None
    throttled_percent: dict[str, float] = Field(description="share of the samples with lowered clocks, by reason")
    processes: int | None = Field(description="largest number at once, the cell's own process included")
    memory_used_bytes: int | None = Field(description="largest sum over all processes")


class Conditions(Part):
    """What the machine did during one test. `_percent` is a share of the time of the processors in `affinity`."""

    began_seconds: float = Field(description="when the first query was issued, by the machine's monotonic clock")
    ended_seconds: float = Field(description="when the last query completed, by the same clock")
    threads: int = Field(description="size of the engine's thread pool")
    affinity: list[int] = Field(description="processors that the cell's process may use")
    own_cpu_percent: float
    other_cpu_percent: float = Field(description="time of all other processes, interrupts included")
    steal_percent: float = Field(description="time taken by the hypervisor")
    worst_other_percent: float | None = Field(
        None,
        description="time of all other processes on the single processor of which they took most, at most: what they took of "
        "all, or what the busiest was busy; None in earlier records",
    )
    worst_steal_percent: float | None = Field(
        None, description="time taken by the hypervisor of the single processor of which it took most"
    )
    waited_percent: float | None = Field(
        None,
        description="time that threads of the cell's process stood in line for a processor, all together, as a share of the "
        "test's duration; None where the kernel does not count it, and in earlier records",
    )
    quota_throttled_percent: float | None = Field(None, description="time throttled by the cgroup's quota")
    thermal_throttled_percent: float | None = Field(None, description="time with clocks lowered because of heat")
    energy_joules: float | None = None
    energy_source: str = Field(description="which counters, or 'not measured: why'")
    samples: int = Field(0, description="samples that the runner took of the fields below, one a second")
    cpu_mhz: Range | None = None
    cpu_mhz_source: str = ""
    gpu: GpuConditions | None = None
    runner_cpu_percent: float | None = Field(
        None, description="time of the runner while the cell's process ran, as a share of one processor's"
    )


class Probe(Part):
    """One test of the search for the highest rate in the server scenario."""

    qps: float = Field(description="mean rate of arrivals, samples per second")
    p99_ms: float
    queries: int
    held: bool
    confirming: bool = Field(description="a full-length test that also had to pass LoadGen's early stopping")


class SpeedRound(Part):
    """One fresh process."""

    qps: float = Field(
        description="samples per second; in the server scenario the highest rate of arrivals within the latency bound"
    )
    mean_ms: float | None = Field(None, description="mean latency of a query; percentiles follow")
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    early_stopping_ms: float | None = Field(
        None, description="LoadGen's early-stopping estimate of p90 (single_stream) or p99 (multi_stream)"
    )
    started: str = Field("", description="UTC, ISO 8601: when its process was started")
    run_id: str = Field(
        "", description="the run that measured it; another than the record's where the round was kept from a killed run"
    )
    queries: int = Field(description="samples that were run")
    mean_tokens: float | None = Field(
        None,
        description="mean true length of those samples, padding not counted; None in earlier records",
    )
    duration_seconds: float
    warmup_seconds: float
    warmup_ended: str
    search: list[Probe] = Field(default_factory=list, description="every test of the search in the server scenario")
    conditions: Conditions | None = None
    loadgen: dict[str, Any] = Field(default_factory=dict, description="LoadGen's own settings and result lines")


class Speed(Part):
    scenario: Literal["interleaved", "single_stream", "multi_stream", "offline", "server"]
    load: Literal["fixed", "real"] = Field(
        description="fixed: every sample has max_length tokens; real: the task's own lengths"
    )
    batch_size: int = Field(description="samples in one call of the engine (at most)")
    sequence_length: int = Field(description="tokens a sample (fixed), or the longest allowed (real)")
    mean_tokens: float = Field(
        description="mean true length of the samples offered, padding not counted, over rounds; in records of measuring "
        "version 1 that of all samples that could be offered (real), or max_length (fixed)"
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
        "quick", description="durations and query counts of a test; 'unverified by MLCommons' in either case"
    )
    latency_bound_ms: float | None = Field(None, description="bound on the 99th percentile in the server scenario")
    rounds: list[SpeedRound] = Field(min_length=1)
    timed: str = Field(description="what is inside the timed region")


class TurnRound(Part):
    """One interleaved round: fresh processes of several cells that ran the same batches, one batch at a time."""

    together: str = Field(description="identifies the round: the same for all cells in it")
    work: str = Field(description="hash of the token ids that the batches were taken from")
    seconds: float = Field(
        gt=0, description="time of the session's run for all batches once, each at the median of its calls"
    )
    samples: int = Field(description="samples in all batches together")
    tokens: int = Field(description="true length of those samples together, padding not counted")
    batches: int
    passes: int = Field(description="timed calls of each batch")
    affinity: list[int] = Field(description="processors that the processes could use")
    other_cpu_percent: float = Field(
        description="share of those processors' time that neither these cells nor the runner used"
    )
    steal_percent: float
    worst_other_percent: float | None = Field(
        None, description="as in Conditions: of a single processor, at most; None in earlier records"
    )
    worst_steal_percent: float | None = None
    quota_throttled_percent: float | None = None


class Turns(Part):
    """The time for the same work in interleaved rounds, for ratios between cells that share rounds. See docs/method.md,
    *Interleaved rounds*."""

    load: Literal["fixed", "real"]
    batch_size: int
    sequence_length: int
    rounds: list[TurnRound] = Field(min_length=1)


class ColdStart(Part):
    """Seconds from process start to the first answer, over rounds. The engine's build is not included: see build_seconds."""

    process_seconds: Figure = Field(description="from starting the process until its program runs, imports included")
    load_seconds: Figure = Field(description="importing the engine and loading the checkpoint into it")
    first_query_seconds: Figure = Field(description="the first answer, to one sequence of max_length")


class Ceiling(Part):
    """What a large matrix product reached, timed in the same run with the cell's number of threads."""

    precision: Literal["fp32", "bf16", "int8"]
    operations_a_second: float = Field(gt=0, description="of the fastest library and call; two a multiply-accumulate")
    how: str = Field(description="library, sizes of the product, threads")


class RooflineShare(Part):
    """One of the cell's speed figures as operations of its products."""

    scenario: Literal["interleaved", "single_stream", "multi_stream", "offline"]
    load: Literal["fixed", "real"]
    batch_size: int
    operations_a_second: float = Field(
        description="of all matrix products, by the rule of `flops`; padding counts where every sequence is padded to max_length"
    )
    share: float = Field(description="of the ceiling, 0 to about 1")


class Roofline(Part):
    """How near the cell's products came to the processor's: see docs/method.md, *Ceilings*."""

    floats: Literal["fp32", "bf16"] = Field(description="type of the products that are not integer")
    operations_a_second: float = Field(
        description="the ceiling: the rate if each product ran at that of its precision, `int8_share` of them at INT8's"
    )
    ceilings: list[Ceiling]
    shares: list[RooflineShare]
