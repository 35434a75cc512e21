"""The record of a cell: one versioned JSON object, readable without our code.

A run appends its records to one file, a line each, and syncs it before the next cell starts. Per-example scores lie beside
it in compressed NPZ files without pickled objects. Units are in the names: `_seconds`, `_bytes`, `_ms` (milliseconds), `_percent`.
Figures are unrounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.records.figure import Figure, Part
from harness.records.speed_schema import ColdStart, Roofline, Speed, Turns

SCHEMA_VERSION = 1

Status = Literal["ok", "invalid", "failed", "skipped"]

Rule = Literal[
    "wrong_provider",
    "ran_float",
    "no_answer",
    "too_few_rounds",
    "too_many_threads",
    "too_few_queries",
    "too_short",
    "not_steady",
    "throttled",
    "disturbed",
    "bound_not_held",
    "noisy",
    "loadgen_disagrees",
]


NO_FAULT = ("noisy", "loadgen_disagrees")
"""Findings that make no figure wrong. `noisy`, of earlier versions: how far rounds differ is what the interval says.
`loadgen_disagrees`: tables show the interleaved figure."""


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
    missing: list[str] = Field(default_factory=list, description="splits of the data set that were not found")


class Quantization(Part):
    """The quantization ranges that a checkpoint holds."""

    tensors: int = Field(description="embedding tables, weights, biases and outputs of operators")
    quantized: int = Field(description="how many of them the scheme rounds")
    share: float = Field(description="quantized over tensors, 0 to 1")
    worst: dict[str, float] = Field(
        description="the tensors that rounding changes most, with their signal to quantization noise ratio in decibels"
    )
    noise: dict[str, float] = Field(
        default_factory=dict,
        description="that ratio of every rounded tensor, to a tenth of a decibel; empty in earlier records",
    )
    notes: list[str] = Field(default_factory=list, description="remarks from calibration or training")


class Checkpoint(Part):
    key: str
    recipe: str
    source: str
    stand_in: bool = Field(False, description="the sample's small stand-in replaced the suite's model")
    architecture: dict[str, int] = Field(
        description="num_hidden_layers, hidden_size, num_attention_heads, intermediate_size, vocab_size"
    )
    generic: bool = Field(
        False,
        description="its family is not known here: it runs as transformers has it, and its FLOPs are counted, since there is no "
        "formula; False in earlier records",
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
        None,
        description="devices that shared each batch, perhaps fewer than the settings allow; None in earlier records",
    )
    train_threads: int | None = Field(
        None, description="threads of each training process, after the last resume; None in earlier records"
    )
    train_precision: str | None = Field(
        None, description="the precision used: fp32, bf16 or fp16; None when loaded, and in earlier records"
    )
    train_examples: int | None = None
    stages: list[dict[str, Any]] = Field(
        default_factory=list,
        description="of a distilled student, in order: stage, sequences (augmented ones included), steps, seconds",
    )
    corpus: dict[str, Any] = Field(
        default_factory=dict,
        description="text of a student's general stage: label, files (SHA-256 by name), bytes, sequences; empty in earlier records",
    )
    calibration_seconds: float | None = None
    parent: str | None = None
    lineage: dict[str, str] = Field(
        default_factory=dict,
        description="SHA-256 by checkpoint key: of its own weights, its ancestors' and its teachers'; empty in earlier records",
    )
    made_by: dict[str, Any] = Field(default_factory=dict, description="software and machine that made it")


class ClassRecord(Part):
    """Of one class: examples that have it, that were predicted to have it, and of which both holds."""

    examples: int
    predicted: int
    right: int


class Accuracy(Part):
    split: str
    metrics: dict[str, Figure] = Field(description="in percent, by official name")
    primary: str
    examples: int
    examples_of_split: int
    whole: bool = Field(
        description="False when --limit evaluated a random part, which is never ranked with whole evaluations"
    )
    missing: int = Field(0, description="examples without a prediction, counted as wrong")
    selected_on: str = Field(
        "nothing", description="the data that choices (epochs, ranges) were made on; never the evaluation split"
    )
    padding: str = Field(description="longest (of each batch) or max_length")
    batch_formation: str = Field(description="how batches were formed; dynamic quantization depends on it")
    forward_seconds: float = Field(description="time inside the session's run, for the whole split")
    tokens: int = Field(description="tokens given to the engine, padding included")
    classes: dict[str, ClassRecord] = Field(
        default_factory=dict, description="of a classification, by name; empty in earlier records"
    )
    scores_file: str | None = Field(None, description="NPZ beside the record with predictions and per-example scores")
    scores_sha256: str | None = Field(None, description="SHA-256 of that file; None in earlier records")

    @model_validator(mode="after")
    def _has_its_primary(self) -> Self:
        """Charts and ranks show the primary metric."""
        if self.primary not in self.metrics:
            raise ValueError(f"metrics has no '{self.primary}', which primary names")
        return self


class Flops(Part):
    """Operations for one sequence of sequence_length: 2 x multiply-accumulates of all matrix products, attention and head
    included."""

    sequence_length: int
    total: int
    encoder: int
    head: int
    int8_share: float = Field(
        description="share of the multiply-accumulates that ran as integer products, 0 to 1, by the engine's placement"
    )
    cross_check: str = Field(description="the count of an independent counter, and where that is known to be wrong")


class Memory(Part):
    peak_rss_bytes: int = Field(description="peak resident memory of the cell's own process, speed rounds included")
    import_rss_bytes: int = Field(description="resident memory before the checkpoint was loaded")
    peak_device_bytes: int | None = None
    device_source: str = Field("", description="what peak_device_bytes was read from")


class PlacementRecord(Part):
    claimed: str
    nodes: dict[str, int]
    int8_macs: int
    total_macs: int
    promised_macs: int | None = Field(
        None,
        description="those of int8_macs that the graph asks the engine for; None in earlier records, and where the backend does "
        "not know",
    )
    detail: list[list[str]] = Field(
        default_factory=list, description="(name, operator, provider or kernel) of each node"
    )
    notes: list[str] = Field(default_factory=list)


class Record(Part):
    schema_version: Literal[1] = 1
    record_id: str
    key: str = Field(description="content key of the cell: settings, checkpoint, data, libraries, machine")
    run_id: str
    finished: str = Field(description="UTC, ISO 8601: when the measurement ended")
    rescored: str | None = Field(
        None, description="UTC, ISO 8601: when its accuracy was scored again; the rest of the copy is unchanged"
    )
    status: Status
    reason: str = Field("", description="why it is invalid, failed or was skipped; empty when ok")
    remedy: str = ""
    log_tail: list[str] = Field(default_factory=list, description="last lines of a failed cell's log")
    suite: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    suite_title: str
    suite_folder: str = Field(
        "",
        description="hash of the folder of a suite file of one's own; empty for a suite of ours, and in earlier records",
    )
    model: str
    seed: int
    task: str
    backend: str
    label: str
    scheme: str | None = None
    baseline: bool = False
    device: str
    simulated: bool = Field(False, description="a simulation: carries no speed figure")
    settings: dict[str, Any] = Field(description="the whole planned cell")
    command: str = Field(description="the command that repeats it")
    commit: str | None = None
    dirty: bool | None = Field(
        None, description="the checkout had changes outside results/ when the run started; None outside a checkout"
    )
    machine: dict[str, Any]
    software: dict[str, str]
    data: Data | None = None
    checkpoint: Checkpoint | None = None
    accuracy: list[Accuracy] = Field(
        default_factory=list, description="one for each evaluated split; none of random weights"
    )
    flops: Flops | None = None
    speed: list[Speed] = Field(default_factory=list)
    turns: list[Turns] = Field(
        default_factory=list, description="interleaved rounds, one entry for each load and batch size"
    )
    roofline: Roofline | None = Field(
        None, description="share of what the processor can multiply; None in earlier records, and on GPUs"
    )
    memory: Memory | None = None
    placement: PlacementRecord | None = None
    artifact_bytes: int | None = Field(None, description="what the engine loads: ONNX file, engine plan or weights")
    build_seconds: float | None = Field(
        None, description="time of export and engine build; None when it came from the cache or nothing is built"
    )
    cold_start_seconds: float | None = Field(
        None, description="from process start to first answer, without build_seconds; median of the rounds"
    )
    cold_start: ColdStart | None = None
    findings: list[Finding] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def faults(self) -> list[Finding]:
        """The findings by the rules of today: what makes a figure wrong. Earlier records may have more."""
        return [finding for finding in self.findings if finding.rule not in NO_FAULT]

    @property
    def standing(self) -> Status:
        """The status by the rules of today. Pages, ranks and messages go by it; `status` is what was written then."""
        return "ok" if self.status == "invalid" and self.findings and not self.faults else self.status

    @property
    def why(self) -> str:
        """The reason for its standing; empty when that is ok."""
        if self.status != "invalid" or len(self.faults) == len(self.findings):
            return self.reason
        return "; ".join(finding.what for finding in self.faults)

    @property
    def measured(self) -> bool:
        """The cell ran to its end and has figures, whether or not a validity rule fails for them."""
        return self.status in ("ok", "invalid")

    @property
    def speed_only(self) -> bool:
        """The cell ran to its end, and its weights, or those that they were calibrated from, are random: they have no accuracy."""
        spec = self.settings.get("checkpoint")
        recipes: set[object] = {self.checkpoint.recipe} if self.checkpoint else set()
        while isinstance(spec, dict):
            recipes.add(spec.get("recipe"))
            spec = spec.get("parent")
        return self.measured and "random" in recipes


class _Free(BaseModel):
    """What is read of a part whose form is free: other keys are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Measure(_Free):
    min_accuracy: float = 0.0
    precision: float = Field(0.05, gt=0)
    rounds: int = Field(0, ge=0)
    max_rounds: int | None = Field(None, ge=1)
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
