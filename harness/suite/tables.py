"""A suite file to a Suite. The forms here say what a well-formed file is; `suite_checks` says what makes sense.

Every problem of a file is told at once, and nothing heavy is imported for it. `python -m harness.suite.schema` writes
`suites/schema.json`, the same forms for editors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from harness.suite.measure import Measure
from harness.suite.train import Distill, TrainSettings
from tasks import Shape

T = TypeVar("T")


List = Annotated[tuple[T, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


Text = Annotated[str, Field(min_length=1, max_length=2000)]


Length = Annotated[int, Field(ge=8, le=8192)]


Stride = Annotated[int, Field(ge=1, le=8192)]


Sizes = Annotated[List[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1, max_length=16)]


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Architecture(Table):
    """Sizes of a BERT encoder with random weights; its vocabulary is the sample's."""

    num_hidden_layers: int = Field(ge=1, le=96)
    hidden_size: int = Field(ge=8, le=8192)
    num_attention_heads: int = Field(ge=1, le=128)
    intermediate_size: int = Field(ge=8, le=32768)


class ShapeOverride(Table):
    max_length: Length | None = Field(None, description="tokens of a sequence, special tokens included")
    doc_stride: Stride | None = Field(None, description="tokens between the starts of two windows; questions only")
    max_query_length: Stride | None = Field(None, description="tokens that a question is cut to; questions only")


class AugmentOverride(Table):
    copies: int | None = Field(None, ge=1, le=100, description="new examples an example, at most")
    probability: float | None = Field(None, gt=0, le=1, description="with which each word is exchanged")
    candidates: int | None = Field(None, ge=1, le=1000, description="most likely words, of which one is drawn")


class TaskOverride(Table):
    """What is different for one task."""

    shape: ShapeOverride = ShapeOverride()
    train: dict[str, Any] = Field({}, description="settings of training that replace the model's")
    distill: dict[Literal["general", "intermediate", "prediction", "labels"], dict[str, Any]] = Field(
        {}, description="settings that replace those of a stage of recipe 'distill'"
    )
    augment: AugmentOverride = Field(AugmentOverride(), description="replaces what the model's distill.augment says")


class Calibration(Table):
    samples: int = Field(128, ge=1, le=100_000, description="training examples that ranges are found on")
    batch_size: int = Field(16, ge=1, le=4096)


class Model(Table):
    source: Text = Field(
        description="hub:ID, package:NAME/FOLDER, model:NAME of this suite, scratch, or a folder below the suite file's"
    )
    recipe: Literal["load", "finetune", "qat", "distill"] = Field(
        description="load: use as it is; finetune: train on the task; qat: train with quantizers; distill: make it like a teacher"
    )
    scheme: Text | None = Field(None, description="for recipe = 'qat': the quantizers that are trained")
    teacher: Text | None = Field(None, description="for recipe = 'distill': model:NAME of this suite")
    distill: Distill | None = Field(None, description="for recipe = 'distill': its stages")
    calibration: Calibration | None = Field(
        None, description="for recipe = 'qat': what its first ranges are found on; default: the suite's"
    )
    architecture: Architecture | None = Field(None, description="for source = 'scratch'")
    train: TrainSettings | None = Field(None, description="for every recipe but 'load'")
    task: dict[str, TaskOverride] = Field({}, description="overrides by task name")


class ShapeTable(Table):
    max_length: Length = Field(description="tokens of a sequence, special tokens included")
    doc_stride: Stride = Field(Shape(0).doc_stride, description="tokens between the starts of two windows; questions")
    max_query_length: Stride = Field(Shape(0).max_query_length, description="tokens that a question is cut to")
    padding: Literal["longest", "max_length"] = Field("longest", description="how batches are padded for accuracy")
    batch_sizes: Sizes = Field((1, 32), description="of offline load; accuracy is measured at the largest")


class BackendEntry(Table):
    """A backend and its scheme; every other key is an option of that backend."""

    model_config = ConfigDict(extra="allow")

    name: Text = Field(description="which engine at which precision")
    scheme: Text | None = Field(None, description="post-training, for checkpoints that bring no ranges")
    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+()-]{0,63}$")] | None = Field(
        None, description="how the row is called; default: the name"
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class MeasureTable(Table):
    """How speed is measured."""

    profile: Literal["quick", "mlperf"] = Field(
        Measure.profile,
        description="quick: the durations and counts given here; mlperf: those of LoadGen's own mlperf.conf for BERT",
    )
    scenarios: Annotated[List[Literal["single_stream", "multi_stream", "offline", "server"]], Field(min_length=1)] = (
        "single_stream",
        "offline",
    )
    loads: Annotated[List[Literal["fixed", "real"]], Field(min_length=1)] = Field(
        ("fixed", "real"), description="fixed: every sample max_length tokens; real: the task's own lengths"
    )
    seeds: Literal["first", "all"] = Field(
        "first",
        description="whose cells' speed is measured: weights that differ by their seed alone take the same time",
    )
    rounds: int = Field(Measure.rounds, ge=1, le=100, description="fresh processes that repeat the measurement")
    min_duration: float = Field(Measure.min_duration, gt=0, le=3600, description="seconds of one measurement")
    min_queries: int = Field(Measure.min_queries, ge=1, le=10_000_000)
    server_latency_ms: float | None = Field(
        None, gt=0, le=3_600_000, description="what server has to hold with its 99th percentile; default: MLPerf's 130"
    )
    max_warmup: float = Field(Measure.max_warmup, ge=0, le=3600, description="seconds after which warm-up ends")
    threads: int = Field(Measure.threads, ge=0, le=1024, description="of every engine; 0: all physical cores")
    min_accuracy: float = Field(Measure.min_accuracy, gt=0, le=1, description="share of the baseline's: a badge")


class Reference(Table):
    """A published figure from elsewhere: shown beside ours, never ranked with ours."""

    system: Text
    hardware: Text | None = None
    task: Text
    model: Text | None = None
    precision: Text | None = None
    metrics: dict[str, float] = Field({}, description="by the task's official metric names")
    qps: float | None = Field(None, gt=0, description="sequences a second")
    latency_ms: float | None = Field(None, gt=0, description="milliseconds a batch")
    batch_size: int | None = Field(None, ge=1)
    sequence_length: int | None = Field(None, ge=1)
    notes: Annotated[List[Text], Field(min_length=1)] = Field(description="what makes it incomparable with our rows")
    source: Text = Field(description="where it was published")


class StandIn(Table):
    """What is different for one model on the sample."""

    architecture: Architecture | None = Field(None, description="default: sample.model")
    train: dict[str, Any] = Field({}, description="settings that replace those of sample.train")
    distill: dict[Literal["general", "intermediate", "prediction", "labels", "augment"], dict[str, Any]] = Field(
        {}, description="settings that replace those of the model's distill table"
    )


class Sample(Table):
    """What stands in for every model of the suite where the data is the generated sample; of the seeds the first is run."""

    max_length: Length
    doc_stride: Stride = Shape(0).doc_stride
    max_query_length: Stride = Shape(0).max_query_length
    batch_sizes: Sizes | None = Field(None, description="default: the suite's")
    model: Architecture
    train: TrainSettings
    models: dict[str, StandIn] = Field(
        {}, description="overrides by model name: students and QAT models need their own"
    )
    task: dict[str, TaskOverride] = Field({}, description="overrides by task name")
    measure: MeasureTable = Field(MeasureTable(), description="what is given here replaces the suite's")
    calibration: Calibration = Field(Calibration(), description="what is given here replaces the suite's")


class Suite(Table):
    """A whole suite file, checked. `name` is the file's stem."""

    title: Text
    description: Text | None = None
    data: Literal["sample"] | None = Field(None, description="'sample': always runs on generated data")
    tasks: Annotated[List[Text], Field(min_length=1)]
    baseline: Text = Field(description="the backend that others are compared with: a name or label of [[backends]]")
    seeds: Annotated[List[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1, max_length=100)] = Field(
        (1,), description="of training and of calibration"
    )
    models: Annotated[dict[str, Model], Field(min_length=1)]
    shape: ShapeTable
    backends: Annotated[List[BackendEntry], Field(min_length=1)]
    measure: MeasureTable = MeasureTable()
    calibration: Calibration = Calibration()
    references: List[Reference] = ()
    sample: Sample | None = None

    _file: Path = PrivateAttr(Path())

    @property
    def name(self) -> str:
        return self._file.stem

    @property
    def folder(self) -> Path:
        """Local folders of models are relative to it."""
        return self._file.parent

    @property
    def labels(self) -> tuple[str, ...]:
        """How the row of each backend entry is called."""
        return tuple(label(entry.name, entry.label, entry.scheme, self._names) for entry in self.backends)

    @property
    def _names(self) -> list[str]:
        return [entry.name for entry in self.backends]

    def is_baseline(self, index: int) -> bool:
        """Whether the backend entry at `index` is the one that others are compared with."""
        by_label = self.baseline in self.labels
        return self.baseline == (self.labels[index] if by_label else self.backends[index].name)


def label(name: str, given: str | None, scheme: str | None, names: list[str]) -> str:
    """An entry's own label, else its backend's name, with the scheme where entries share the name."""
    return given or (f"{name} ({scheme})" if scheme and names.count(name) > 1 else name)
