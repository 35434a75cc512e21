"""What a cell leaves behind: one JSON object, versioned, that can be read without any of our code.

A run appends its records to one file, a line each, synced before the next cell starts. Per-example scores lie beside it
in compressed NPZ files without objects. Units are in the names: `_seconds`, `_bytes`, `_ms` (milliseconds), `_percent`.
Figures are unrounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.records.figure import Figure, Part
from harness.records.speed_schema import ColdStart, Speed, Turns

SCHEMA_VERSION = 1


Status = Literal["ok", "invalid", "failed", "skipped"]


Rule = Literal[
    "wrong_provider",
    "no_answer",
    "too_few_rounds",
    "too_few_queries",
    "too_short",
    "not_steady",
    "throttled",
    "disturbed",
    "bound_not_held",
    "noisy",
]


class Finding(Part):
    """A validity rule that fails. A cell with one is `invalid`: shown, marked, not ranked."""

    rule: Rule
    what: str
    measured: str
    bound: str
    remedy: str


class SplitData(Part):
    rows: int
    official_rows: int | None
    sha256: str
    label: str


class Data(Part):
    kind: str = Field(description="raw, saved, hub or sample")
    label: str = Field(description="official, subset (n of N), substitute or sample")
    splits: dict[str, SplitData]
    origin: str = Field("", description="repository and revision, for data from the hub")
    missing: list[str] = Field(default_factory=list, description="splits of the data set that are not there")


class Quantization(Part):
    """The ranges that a checkpoint holds."""

    tensors: int = Field(description="tables, weights and biases, and what each operator computes")
    quantized: int = Field(description="how many of them the scheme rounds")
    share: float = Field(description="quantized over tensors, 0 to 1")
    worst: dict[str, float] = Field(
        description="the tensors that rounding disturbs most, with signal to quantization noise in decibels"
    )
    notes: list[str] = Field(default_factory=list, description="remarks of calibration or training")


class Checkpoint(Part):
    key: str
    recipe: str
    source: str
    stand_in: bool = Field(False, description="a small stand-in of the sample took the place of the suite's model")
    architecture: dict[str, int] = Field(
        description="num_hidden_layers, hidden_size, num_attention_heads, intermediate_size, vocab_size"
    )
    parameters: int
    weights_bytes: int
    scheme: str | None = None
    quantization: Quantization | None = None
    train: dict[str, Any] = Field(default_factory=dict, description="settings of training or calibration")
    train_seconds: float | None = Field(
        None, description="wall time of training on train_device, evaluation excluded; None when loaded"
    )
    train_device: str | None = None
    train_devices: int | None = Field(
        None, description="that shared each batch, which may be fewer than settings ask for; None in earlier records"
    )
    train_threads: int | None = Field(
        None, description="of each of its processes, of the last where it was resumed; None in earlier records"
    )
    train_precision: str | None = Field(
        None, description="fp32, bf16 or fp16, as it was; None when loaded, and in earlier records"
    )
    train_examples: int | None = None
    stages: list[dict[str, Any]] = Field(
        default_factory=list,
        description="of a distilled student, in order: stage, sequences, made-up ones too, steps, seconds",
    )
    corpus: dict[str, Any] = Field(
        default_factory=dict,
        description="of a student's general stage: label, files (SHA-256 by name), bytes, sequences; empty in earlier records",
    )
    calibration_seconds: float | None = None
    parent: str | None = None
    lineage: dict[str, str] = Field(
        default_factory=dict,
        description="SHA-256 of its weights, and of all checkpoints that it was made from or taught by, by their keys; empty in earlier records",
    )
    made_by: dict[str, Any] = Field(default_factory=dict, description="software and machine that made it")


class Accuracy(Part):
    split: str
    metrics: dict[str, Figure] = Field(description="in percent, by official name")
    primary: str
    examples: int
    examples_of_split: int
    whole: bool = Field(description="False when --limit evaluated a seeded part: never ranked with the whole")
    missing: int = Field(0, description="examples without a prediction, counted as wrong")
    selected_on: str = Field(
        "nothing", description="what choices (epochs, ranges) were made on; never the evaluation split"
    )
    padding: str = Field(description="longest (of each batch) or max_length")
    batch_formation: str = Field(description="how batches were formed; dynamic quantization depends on it")
    forward_seconds: float = Field(description="time in the session's run alone, whole split")
    tokens: int = Field(description="tokens fed, padding included")
    scores_file: str | None = Field(None, description="NPZ beside the record with predictions and per-example scores")

    @model_validator(mode="after")
    def _has_its_primary(self) -> Self:
        """Charts and ranks are of it."""
        if self.primary not in self.metrics:
            raise ValueError(f"metrics has no '{self.primary}', which primary names")
        return self


class Flops(Part):
    """Of one sequence at sequence_length; 2 x multiply-accumulates of all matrix products, attention and head included."""

    sequence_length: int
    total: int
    encoder: int
    head: int
    int8_share: float = Field(
        description="share of the MACs that ran as integer products, 0 to 1, by the engine's placement"
    )
    cross_check: str = Field(description="what an independent counter says, and where it is known to be wrong")


class Memory(Part):
    peak_rss_bytes: int = Field(description="peak resident memory of the cell's own process, speed rounds included")
    import_rss_bytes: int = Field(description="resident memory before the checkpoint was loaded")
    peak_device_bytes: int | None = None
    device_source: str = Field("", description="how peak_device_bytes was found")


class PlacementRecord(Part):
    claimed: str
    nodes: dict[str, int]
    int8_macs: int
    total_macs: int
    detail: list[list[str]] = Field(default_factory=list, description="(name, operator, provider or kernel) a node")
    notes: list[str] = Field(default_factory=list)


class Record(Part):
    schema_version: Literal[1] = 1
    record_id: str
    key: str = Field(description="content key of the cell: settings, checkpoint, data, libraries, machine")
    run_id: str
    finished: str = Field(description="UTC, ISO 8601: when it had been measured")
    rescored: str | None = Field(
        None, description="UTC, ISO 8601: when its accuracy was scored again, in a copy that is otherwise as it was"
    )
    status: Status
    reason: str = Field("", description="why it failed or was skipped; empty when ok")
    remedy: str = ""
    log_tail: list[str] = Field(default_factory=list, description="last lines of a failed cell's log")
    suite: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    suite_title: str
    model: str
    seed: int
    task: str
    backend: str
    label: str
    scheme: str | None = None
    baseline: bool = False
    device: str
    simulated: bool = Field(False, description="a simulation: carries no speed figure")
    settings: dict[str, Any] = Field(description="the whole cell as it was planned")
    command: str = Field(description="the command that repeats it")
    commit: str | None = None
    dirty: bool | None = Field(
        None, description="the checkout had changes outside results/ when the run started; None outside a checkout"
    )
    machine: dict[str, Any]
    software: dict[str, str]
    data: Data | None = None
    checkpoint: Checkpoint | None = None
    accuracy: list[Accuracy] = Field(default_factory=list, description="one an evaluated split")
    flops: Flops | None = None
    speed: list[Speed] = Field(default_factory=list)
    turns: list[Turns] = Field(default_factory=list, description="one a load and batch size")
    memory: Memory | None = None
    placement: PlacementRecord | None = None
    artifact_bytes: int | None = Field(None, description="what the engine loads: ONNX file, engine plan or weights")
    build_seconds: float | None = Field(
        None, description="export and engine build, None when it came from the cache or nothing is built"
    )
    cold_start_seconds: float | None = Field(
        None, description="process start to first answer without build_seconds, median of rounds"
    )
    cold_start: ColdStart | None = None
    findings: list[Finding] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def measured(self) -> bool:
        """The cell ran to its end and has figures, whether or not a validity rule fails for them."""
        return self.status in ("ok", "invalid")


class _Free(BaseModel):
    """What is read of a part whose form is free: other keys are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Measure(_Free):
    min_accuracy: float = 0.0
    threads: int | None = None


class _Settings(_Free):
    limit: int | None = Field(None, ge=1)
    ancestor: str | None = None
    measure: _Measure = _Measure()


class _Gpu(_Free):
    name: str


class _Machine(_Free):
    cpu: str | None = None
    cpu_model: str | None = None
    cores: int | None = None
    flags: list[str] | None = None
    gpus: list[_Gpu] | None = None


class _FreeParts(_Free):
    settings: _Settings
    machine: _Machine


def check_free_parts(settings: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
    """Check what pages and comparisons read of `settings` and `machine`. Raises pydantic's ValidationError."""
    _FreeParts.model_validate({"settings": settings, "machine": machine})
