"""What is to be run, as plain data: the plan makes these, the executor hands them to processes as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.base import DataRef, Shape

RECIPE_VERSIONS = {"load": 1, "finetune": 1, "ptq": 2, "qat": 2, "distill": 1, "pretrained": 1, "masked_lm": 1}
"""Raised on purpose when a recipe's outcome changes: part of every checkpoint key, so raising one retrains."""
CORPUS = "corpus"
"""Stands for a task where a checkpoint is made from plain text."""
MEASURE_VERSION = 2
"""Raised on purpose when the way of measuring changes: part of every cell key, so raising it measures again."""


def digest(value: Any) -> str:
    """16 hex digits that are equal when and only when the JSON of `value` is (keys in any order)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CheckpointSpec:
    """One checkpoint to be made: where its weights come from and what is done to them.

    recipe `load`, `finetune`: from `source`. recipe `ptq`: ranges for `scheme`, calibrated on training examples, from `parent`.
    recipe `qat`: `parent` trained with the quantizers of `scheme`. recipe `distill`: one stage (`distill["stage"]`) of making a
    student, begun at `source` or at `parent`, the stage before, like its `teacher`; `masked_lm` proposes words where it
    augments. On the task `corpus`: the general stage, recipe `pretrained` (`source` as it is, whatever its head: a teacher
    before it was fine-tuned) and recipe `masked_lm` (`source` trained to fill in words).
    source: `hub:ID`, `package:NAME/SUBDIR`, `scratch`, or an absolute folder. architecture: sizes for `scratch`
    (num_hidden_layers, hidden_size, num_attention_heads, intermediate_size). train: settings of `finetune`
    (harness.training.settings.TrainSettings). calibration: `samples` (examples) and `batch_size` of `ptq`.
    identity: hashes of source and data, so that the key changes when they do.
    """

    model: str
    task: str
    recipe: str
    source: str
    seed: int
    shape: Shape
    data: DataRef
    architecture: Mapping[str, int] | None = None
    train: Mapping[str, Any] | None = None
    scheme: str | None = None
    calibration: Mapping[str, int] | None = None
    parent: CheckpointSpec | None = None
    identity: Mapping[str, str] | None = None
    teacher: CheckpointSpec | None = None
    distill: Mapping[str, Any] | None = None
    masked_lm: CheckpointSpec | None = None

    @property
    def needs(self) -> tuple[CheckpointSpec, ...]:
        """Checkpoints that must be there before this one can be made."""
        return tuple(one for one in (self.parent, self.teacher, self.masked_lm) if one)

    @property
    def brings_ranges(self) -> bool:
        """Whether quantizers were trained with it: its ranges are never calibrated again."""
        return self.recipe == "qat"

    @property
    def key(self) -> str:
        """Content key: settings, recipe version, identities, parent. Names of models and places of data are not part of it."""
        from harness.training.settings import in_key

        content = {name: value for name, value in asdict(self).items() if value is not None}
        for name in ("model", "data", "parent"):
            content.pop(name, None)
        if self.parent or self.source.startswith("/"):
            del content["source"]
        if self.train:
            content["train"] = in_key(self.train)
        for name in ("teacher", "masked_lm"):
            if one := getattr(self, name):
                content[name] = one.key
        if self.distill and self.distill.get("augment"):  # the file of vectors is known by its hash, in identity
            augment = {name: value for name, value in self.distill["augment"].items() if name != "glove"}
            content["distill"] = {**self.distill, "augment": augment}
        content["version"] = RECIPE_VERSIONS[self.recipe]
        content["parent"] = self.parent.key if self.parent else None
        return digest(content)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CheckpointSpec:
        parts = dict(value)
        parts["shape"] = Shape(**parts["shape"])
        parts["data"] = DataRef(**parts["data"])
        for name in ("parent", "teacher", "masked_lm"):
            parts[name] = cls.from_json(parts[name]) if parts.get(name) else None
        return cls(**parts)


def folder_of(spec: CheckpointSpec, cache: Path) -> Path:
    """Where the checkpoint lies once it is made."""
    return cache / "checkpoints" / spec.key


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
    """How speed is measured. Durations in seconds; `rounds` are fresh processes. loads: `fixed` (every sample padded to
    max_length) and `real` (the task's own lengths). scenarios: MLPerf Inference's names.

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

    def in_key(self) -> dict[str, Any]:
        """What decides how a cell is measured. The badge's bound does not; a setting that came later counts only where it is
        not at its default, so that it leaves the keys of earlier records alone."""
        content = asdict(self)
        del content["min_accuracy"]
        for name, default in (("profile", "quick"), ("server_latency_ms", None)):
            if content[name] == default:
                del content[name]
        return content


@dataclass(frozen=True)
class Cell:
    """One (model, seed, task, backend, shape) to be run on one machine."""

    suite: str
    model: str
    seed: int
    task: str
    backend: str
    scheme: str | None
    label: str
    """How the row is called: the backend's name, with the scheme or an entry's own `label` where two entries share it."""
    options: Mapping[str, Any]
    shape: Shape
    padding: str
    """`longest` (of the batch) or `max_length`: how batches are padded when accuracy is measured."""
    batch_sizes: tuple[int, ...]
    measure: Measure
    limit: int | None
    data: DataRef
    checkpoint: CheckpointSpec
    device: str
    key: str
    baseline: bool = False
    """True on the baseline backend of the suite."""
    blocked: tuple[str, str] | None = None
    """(reason, remedy) when it cannot run here."""
    ancestor: str | None = None
    """The model that it is compared with on the baseline backend, where that is another: a QAT model's FP32 parent, a
    student's teacher."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cell:
        parts = dict(value)
        parts["shape"] = Shape(**parts["shape"])
        parts["data"] = DataRef(**parts["data"])
        parts["checkpoint"] = CheckpointSpec.from_json(parts["checkpoint"])
        measure = dict(parts["measure"])
        parts["measure"] = Measure(
            **{**measure, "scenarios": tuple(measure["scenarios"]), "loads": tuple(measure["loads"])}
        )
        parts["batch_sizes"] = tuple(parts["batch_sizes"])
        parts["blocked"] = tuple(parts["blocked"]) if parts["blocked"] else None
        return cls(**parts)
