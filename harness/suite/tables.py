"""The tables of a suite file: which keys there are, and of which types and ranges. `checks` adds what makes sense together.

Nothing heavy is imported here. `python -m harness.suite.schema` writes `suites/schema.json`, the same tables for editors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr

from backends.schemes import changed_scheme
from harness.suite.measure import Measure
from harness.suite.scheme_tables import List, OwnScheme, Text
from harness.suite.train import Distill, Table, TrainSettings
from tasks import Shape, TaskFacts, task_facts

if TYPE_CHECKING:
    from tasks.declared import Declaration

Limit = Annotated[float | None, Field(gt=0, le=10_000_000)]
Length = Annotated[int, Field(ge=8, le=8192)]
Stride = Annotated[int, Field(ge=1, le=8192)]


Sizes = Annotated[List[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1, max_length=16)]


class Architecture(Table):
    """Sizes of an encoder with random weights. Of source 'scratch' it is a BERT with the vocabulary of the generated sample."""

    num_hidden_layers: int = Field(ge=1, le=96)
    hidden_size: int = Field(ge=8, le=8192)
    num_attention_heads: int = Field(ge=1, le=128)
    intermediate_size: int = Field(ge=8, le=32768)


class ShapeOverride(Table):
    max_length: Length | None = Field(None, description="tokens of a sequence, special tokens included")
    doc_stride: Stride | None = Field(
        None, description="tokens between the starts of two windows; question answering only"
    )
    max_query_length: Stride | None = Field(
        None, description="tokens that a question is cut to; question answering only"
    )


class AugmentOverride(Table):
    copies: int | None = Field(None, ge=1, le=100, description="the largest number of new examples per example")
    probability: float | None = Field(None, gt=0, le=1, description="with which each word is replaced")
    candidates: int | None = Field(None, ge=1, le=1000, description="number of most likely words of which one is drawn")


class TaskOverride(Table):
    """What is different for one task."""

    shape: ShapeOverride = ShapeOverride()
    train: dict[str, Any] = Field({}, description="training settings that replace the model's")
    distill: dict[Literal["general", "intermediate", "prediction", "labels"], dict[str, Any]] = Field(
        {}, description="settings that replace those of a stage of recipe 'distill'"
    )
    augment: AugmentOverride = Field(
        AugmentOverride(), description="settings that replace those of the model's distill.augment"
    )


class Calibration(Table):
    samples: int = Field(128, ge=1, le=100_000, description="training examples that ranges are calibrated on")
    batch_size: int = Field(16, ge=1, le=4096)


class Model(Table):
    source: Text = Field(
        description="hub:ID or hub:ID@REVISION, package:NAME/FOLDER, model:NAME of this suite, scratch, onnx:PATH (a file or folder below the suite file's, run as it is), or a folder below the suite file's"
    )
    recipe: Literal["load", "finetune", "qat", "distill", "random"] = Field(
        description="load: use it unchanged; finetune: train it on the task; qat: train it with quantizers; distill: train it to match a teacher; random: its tokenizer, family and sizes with random weights, which have a speed and no accuracy"
    )
    made_from: Text | None = Field(
        None, description="for source = 'onnx:PATH': model:NAME of this suite, the FP32 model that it is compared with"
    )
    labels: List[Text] = Field(
        (),
        description="for recipe = 'load': the task's name of each output, in their order, where the model calls them LABEL_0, LABEL_1 ...",
    )
    scheme: Text | None = Field(None, description="for recipe = 'qat': the scheme that it is trained with")
    teacher: Text | None = Field(None, description="for recipe = 'distill': model:NAME of this suite")
    distill: Distill | None = Field(None, description="for recipe = 'distill': its stages")
    calibration: Calibration | None = Field(
        None, description="for recipe = 'qat': how its initial ranges are calibrated; default: the suite's"
    )
    architecture: Architecture | None = Field(
        None, description="for source = 'scratch'; for recipe = 'random': sizes that replace the source's"
    )
    train: TrainSettings | None = Field(None, description="for every recipe that trains")
    task: dict[str, TaskOverride] = Field({}, description="overrides by task name")


class ShapeTable(Table):
    max_length: Length = Field(description="tokens of a sequence, special tokens included")
    doc_stride: Stride = Field(
        Shape(0).doc_stride, description="tokens between the starts of two windows; question answering only"
    )
    max_query_length: Stride = Field(
        Shape(0).max_query_length, description="tokens that a question is cut to; question answering only"
    )
    padding: Literal["longest", "max_length"] = Field(
        "longest", description="how batches are padded when accuracy is measured"
    )
    batch_sizes: Sizes = Field((1, 32), description="of scenario offline; accuracy is measured at the largest")


class BackendEntry(Table):
    """A backend and its scheme; every other key is an option of the backend."""

    model_config = ConfigDict(extra="allow")

    name: Text = Field(description="an engine at a precision")
    scheme: Text | None = Field(None, description="post-training scheme, for checkpoints without quantizer ranges")
    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+()-]{0,63}$")] | None = Field(
        None, description="name of the row in tables; default: the backend's name"
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class MeasureTable(Table):
    """How speed is measured."""

    profile: Literal["quick", "mlperf"] = Field(
        Measure.profile,
        description="quick: the durations and counts of this table; mlperf: those of LoadGen's own mlperf.conf for BERT",
    )
    scenarios: Annotated[
        List[Literal["interleaved", "single_stream", "multi_stream", "offline", "server"]], Field(min_length=1)
    ] = Field(
        ("interleaved", "single_stream", "offline"),
        description="interleaved: cells take turns with the same batches; the others are LoadGen's, and beside interleaved they "
        "run once, as a cross-check",
    )
    loads: Annotated[List[Literal["fixed", "real"]], Field(min_length=1)] = Field(
        ("fixed", "real"),
        description="fixed: every sample has max_length tokens; real: samples have the task's own lengths",
    )
    seeds: Literal["first", "all"] = Field(
        "first",
        description="seeds whose speed is measured; weights that differ only by seed take the same time",
    )
    rounds: int = Field(Measure.rounds, ge=1, le=100, description="fresh processes that repeat the measurement")
    max_rounds: int | None = Field(
        None,
        ge=1,
        le=400,
        description="rounds go on up to so many, until the compared figures are precise; needs rounds of at least 7, and at "
        "most four times as many",
    )
    min_duration: float = Field(Measure.min_duration, gt=0, le=3600, description="seconds of one measurement")
    min_queries: int = Field(Measure.min_queries, ge=1, le=10_000_000)
    server_latency_ms: float | None = Field(
        None,
        gt=0,
        le=3_600_000,
        description="bound on the 99th percentile of latency in scenario server; default: MLPerf's 130",
    )
    max_warmup: float = Field(Measure.max_warmup, ge=0, le=3600, description="seconds after which warm-up ends")
    threads: int = Field(Measure.threads, ge=0, le=1024, description="threads of every engine; 0: all physical cores")
    min_accuracy: float = Field(
        Measure.min_accuracy, gt=0, le=1, description="share of the baseline's accuracy that a badge asks for"
    )
    precision: float = Field(
        Measure.precision,
        gt=0,
        le=1,
        description="half-width of a speed figure's 95% interval, as a share of it, up to which it is called precise",
    )
    train_timeout: Limit = Field(None, description="seconds for making a checkpoint; default: 216000")
    accuracy_timeout: Limit = Field(None, description="seconds for building an engine and scoring; default: 21600")
    speed_timeout: Limit = Field(None, description="seconds for a round of speed; default: 21600")
    memory_gib: Limit = Field(None, description="GiB that a cell's process on the CPU may take; default: all")


class Reference(Table):
    """A published figure from elsewhere: shown beside ours, never ranked with ours."""

    system: Text
    hardware: Text | None = None
    task: Text
    model: Text | None = None
    precision: Text | None = None
    metrics: dict[str, float] = Field({}, description="by the task's official metric names")
    qps: float | None = Field(None, gt=0, description="sequences per second")
    latency_ms: float | None = Field(None, gt=0, description="milliseconds per batch")
    batch_size: int | None = Field(None, ge=1)
    sequence_length: int | None = Field(None, ge=1)
    notes: Annotated[List[Text], Field(min_length=1)] = Field(description="what makes it incomparable with our figures")
    source: Text = Field(description="where it was published")


class TaskFiles(Table):
    """The files of a task of one's own: CSV, TSV, JSON, JSONL, Parquet, CoNLL (.conll, .bio, .iob, .txt), or a folder written by
    save_to_disk."""

    train: Text | None = Field(
        None, description="what models are trained and calibrated on; relative to the suite file"
    )
    validation: Text = Field(description="what accuracy is measured on; relative to the suite file")


class DeclaredTask(Table):
    """A task of one's own, to be named in `tasks`."""

    kind: Literal[
        "classification",
        "pair",
        "regression",
        "multi_label",
        "token_classification",
        "question_answering",
        "similarity",
    ] = Field(
        description="classification: one of several classes for a text; pair: for two texts; regression: a number;"
        " multi_label: any number of classes; token_classification: a tag for each word;"
        " question_answering: a part of a paragraph, from files in SQuAD's form or with one question a row; similarity: how"
        " alike two texts are, by the cosine of a sentence encoder's vectors, which is loaded and not trained"
    )
    data: TaskFiles
    text: Text | None = Field(
        None, description="the column of the text; of token_classification that of the words, by default 'tokens'"
    )
    text_pair: Text | None = Field(
        None,
        description="the column of the second text, for kind = 'pair', 'regression', 'multi_label' or 'similarity'",
    )
    label: Text | None = Field(
        None,
        description="the column of the class or the number; of multi_label a list, or text with a separator, and without it"
        " each of labels is a column of 0 and 1; of token_classification that of the tags, by default 'ner_tags'",
    )
    labels: List[Text] = Field(
        (), description="names of the classes by number; default: the values in the files, sorted"
    )
    separator: Annotated[str, Field(min_length=1, max_length=8)] | None = Field(
        None, description="what stands between the labels of a row, for kind = 'multi_label'; default: the one found"
    )
    pooling: Literal["mean", "cls"] | None = Field(
        None,
        description="for kind = 'similarity': how states become one vector; default: as the model's folder says, else mean",
    )
    unanswerable: bool = Field(
        False, description="for kind = 'question_answering': whether some questions have no answer, as in SQuAD v2"
    )
    metrics: List[Text] = Field((), description="the first one ranks; default: all of the kind")
    skip_bad_rows: bool = Field(False, description="leave out rows that cannot be used, and count them")


class StandIn(Table):
    """What is different for one model on sample data."""

    architecture: Architecture | None = Field(None, description="default: sample.model")
    train: dict[str, Any] = Field({}, description="settings that replace those of sample.train")
    distill: dict[Literal["general", "intermediate", "prediction", "labels", "augment"], dict[str, Any]] = Field(
        {}, description="settings that replace those of a stage of the model's distill table"
    )


class Sample(Table):
    """The small model and settings that replace every model of the suite on generated data; only the first seed runs."""

    max_length: Length
    doc_stride: Stride = Shape(0).doc_stride
    max_query_length: Stride = Shape(0).max_query_length
    batch_sizes: Sizes | None = Field(None, description="default: the suite's")
    model: Architecture
    train: TrainSettings
    models: dict[str, StandIn] = Field(
        {}, description="overrides by model name; students and QAT models need their own"
    )
    task: dict[str, TaskOverride] = Field({}, description="overrides by task name")
    measure: MeasureTable = Field(MeasureTable(), description="settings that replace the suite's")
    calibration: Calibration = Field(Calibration(), description="settings that replace the suite's")


class Suite(Table):
    """A whole suite file."""

    title: Text
    description: Text | None = None
    data: Literal["sample"] | None = Field(None, description="'sample': the suite always runs on generated data")
    device: Literal["cuda"] | None = Field(
        None,
        description="'cuda': cells that would run on a CPU are skipped; default: each engine takes the GPU if it can",
    )
    tasks: Annotated[List[Text], Field(min_length=1)]
    baseline: Text = Field(description="the [[backends]] entry, by name or label, that others are compared with")
    seeds: Annotated[List[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1, max_length=100)] = Field(
        (1,), description="seeds of training and of calibration"
    )
    models: Annotated[dict[str, Model], Field(min_length=1)]
    shape: ShapeTable
    backends: Annotated[List[BackendEntry], Field(min_length=1)]
    measure: MeasureTable = MeasureTable()
    calibration: Calibration = Calibration()
    references: List[Reference] = ()
    sample: Sample | None = None
    task: dict[str, DeclaredTask] = Field({}, description="tasks of one's own, by name")
    schemes: dict[str, OwnScheme] = Field({}, description="schemes of one's own, by name")

    _file: Path = PrivateAttr(Path())

    @property
    def name(self) -> str:
        """The file name without `.toml`."""
        return self._file.stem

    @property
    def folder(self) -> Path:
        """The folder of the file, to which local folders of models are relative."""
        return self._file.parent

    def scheme_name(self, name: str) -> str:
        """The full name of a scheme: of one that the suite declares, its base with the changes."""
        if name not in self.schemes:
            return name
        return changed_scheme(self.schemes[name].base, self.schemes[name].changes())

    def facts(self, task: str) -> TaskFacts | None:
        """What is known of a task of the suite; None for an installed package's."""
        declared = self.declaration(task)
        return declared.facts if declared else task_facts(task)

    def declaration(self, task: str) -> Declaration | None:
        """A task of the suite's own, with absolute paths; None for any other."""
        if task not in self.task:
            return None
        from tasks.declared import Declaration

        table = self.task[task]
        files = table.data.model_dump(exclude_none=True)
        return Declaration(
            name=task,
            data={split: str((self.folder / file).resolve()) for split, file in files.items()},
            **table.model_dump(exclude={"data"}, exclude_none=True),
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each backend entry's row."""
        return tuple(row_label(entry.name, entry.label, entry.scheme, self._names) for entry in self.backends)

    @property
    def _names(self) -> list[str]:
        return [entry.name for entry in self.backends]

    def is_baseline(self, index: int) -> bool:
        """Whether others are compared with the backend entry at `index`."""
        by_label = self.baseline in self.labels
        return self.baseline == (self.labels[index] if by_label else self.backends[index].name)


def row_label(name: str, label: str | None, scheme: str | None, names: list[str]) -> str:
    """The name of a backend entry's row: its own label, or its backend's name, with the scheme where several entries have it."""
    return label or (f"{name} ({scheme})" if scheme and names.count(name) > 1 else name)
