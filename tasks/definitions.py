"""One definition for each task: from it follow facts, columns, class names, metrics, file layout and hub repository.

Row counts, sizes, and the SHA-256 of SQuAD's two files, are those that Hugging Face publishes (`dataset_infos.json` of `squad`
and the dataset card of `nyu-mll/glue`). Each `content` hash was taken from a copy that was checked: SQuAD's development set by the SHA-256 of its file; GLUE's
splits by their size as Arrow, which equals the published `num_bytes` to the byte, and by the known shares of their classes.
A split without a hash was not available when the hashes were taken.

`quantboard plan` reads this module, so it imports nothing but the standard library.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tasks.base import Kind, TaskError, TaskFacts

VERSIONS: Mapping[Kind, int] = {
    "question_answering": 1,
    "classification": 1,
    "regression": 1,
    "multi_label": 1,
    "token_classification": 1,
    "similarity": 1,
}
"""The version of the code of each kind of task, part of every cell's key. Raised on purpose when predictions or metrics of
the same model change."""

TRAIN = "train"
"""The split to train on; a task is evaluated on all its other splits."""


@dataclass(frozen=True)
class OfficialSplit:
    """One official split: its number of rows, and hashes where they are known."""

    rows: int
    content: str | None = None
    """`tasks.rows.content_key` of the split."""
    file: str | None = None
    """SHA-256 of the published file's bytes."""
    members: str | None = None
    """A file beside this module with the beginning of every row's key (see `tasks.rows.are_members`)."""
    size: int | None = None
    """The published `num_bytes` of the split, for splits without a content hash (see `tasks.rows.arrow_size`)."""


@dataclass(frozen=True)
class RawFiles:
    """How a task's published files are named and laid out below the folder of `--data`.

    Folder names are compared without case, dashes and underscores. The parent in `folder` may be left out.
    """

    folder: str
    """Such as `glue/SST-2`."""
    names: Mapping[str, str]
    """The file of each split."""
    other_names: Mapping[str, str] = field(default_factory=dict)
    """Other names of the same files, which are taken where there is none of the first."""
    format: Literal["tsv", "squad_json"] = "tsv"
    """`tsv`: columns separated by tabs; a quote is a plain character."""
    other_folders: tuple[str, ...] = ()
    """Other names that people give the folder."""
    distinctive: bool = False
    """Whether no other task has files or columns of these names: then `--data` may name their folder, whatever it is called."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The file's name of a column, where it differs from ours. Ours is accepted too."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """The place of each column in a file without a header line, counted from 0."""
    width: int = 0
    """The number of columns in a file without a header line."""
    class_numbers: bool = False
    """Whether the file gives a class by its number instead of by its name."""
    ignored_labels: tuple[str, ...] = ()
    """Rows with one of these labels are left out."""
    rows_for_each_broken: int = 0
    """The file may have one row with too few columns for so many rows, which is left out; 0: no broken row is accepted."""


@dataclass(frozen=True)
class Definition:
    """All that is special about one task. `tasks.open_task` finds the code by `kind`."""

    name: str
    """As in suites: `squad_v1`, `glue/cola` ..."""
    kind: Kind
    metrics: tuple[str, ...]
    """Official names, as in `Scores.metrics`."""
    primary_metric: str
    """The metric that ranks."""
    texts: tuple[str, ...]
    """The columns of text, in the order in which the model reads them; for question answering `context` and `question`."""
    splits: Mapping[str, OfficialSplit]
    raw: RawFiles
    hub: tuple[str, str | None]
    """The data set's repository on the hub, and its configuration."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The name of each class, in the order of the class numbers, and other names that models give it (in lower case, with
    underscores for spaces and dashes). Classification only."""
    score_range: tuple[float, float] = (0.0, 1.0)
    """The lowest and the highest score. Regression and similarity only."""
    id_pattern: str | None = None
    """What the ids of the official rows look like, where rows have an `id`: a regular expression."""
    unanswerable: bool = False
    """Whether a question may have no answer. Question answering only."""
    benchmark: str | None = None
    """The benchmark whose macro average takes this task."""
    short: str = ""
    """What tables call the task: its name without the benchmark's prefix. Empty: its name."""
    typical_tokens: int = 0
    """Tokens of a mean sequence before padding, in BERT's uncased pieces; 0 where it is not known."""
    sample: str | None = None
    """`module:function` that generates the rows of a split: `function(definition, split)`. None: the sample has no such task."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row, in the order in which hashes take them."""
        if self.kind == "question_answering":
            return ("id", "title", *self.texts, "answers")
        return (*self.texts, "label")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the model's outputs: the classes, `score` for regression, none for question answering."""
        return ("score",) if self.kind == "regression" else tuple(self.classes)

    @property
    def eval_splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.splits if split != TRAIN)

    @property
    def facts(self) -> TaskFacts:
        return TaskFacts(
            self.kind, self.metrics, self.benchmark, self.short or self.name, self.typical_tokens, self.eval_splits
        )


def definition_of(name: str) -> Definition:
    """Raises TaskError for a name without a definition."""
    if name not in DEFINITIONS:
        near = difflib.get_close_matches(name, DEFINITIONS, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(DEFINITIONS)}"
        raise TaskError(f"no data is known for task '{name}'; {hint}")
    return DEFINITIONS[name]


def _glue(folder: str, texts: str, raw: Mapping[str, Any] | None = None, **fields: Any) -> Definition:
    """A GLUE task (Wang et al. 2018). folder: as in the published archive, such as `SST-2`. raw: fields of `RawFiles`."""
    short = folder.lower().replace("-", "")
    files: dict[str, Any] = {"names": {"train": "train.tsv", "validation": "dev.tsv"}, **(raw or {})}
    return Definition(
        name=f"glue/{short}",
        short=short,
        benchmark="GLUE",
        texts=tuple(texts.split()),
        raw=RawFiles(folder=f"glue/{folder}", **files),
        hub=("nyu-mll/glue", short),
        **fields,
    )


_ENTAILMENT: Mapping[str, tuple[str, ...]] = {
    "entailment": ("entail", "entails"),
    "not_entailment": ("non_entailment", "no_entailment", "not_entail"),
}
_TASKS = (
    Definition(
        name="squad_v1",
        kind="question_answering",
        metrics=("exact_match", "f1"),
        primary_metric="f1",
        texts=("context", "question"),
        splits={
            "train": OfficialSplit(87_599, file="3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"),
            "validation": OfficialSplit(
                10_570,
                "bfe8074a73a0de5c918691968fbf961677f421ca08a10a57ffde576f2cb723c9",
                members="squad_validation.keys",
            ),
        },
        raw=RawFiles(
            folder="squad",
            names={"train": "train-v1.1.json", "validation": "dev-v1.1.json"},
            format="squad_json",
            other_folders=("squad_v1", "squad_v1.1", "squad_offline"),
            distinctive=True,
        ),
        hub=("rajpurkar/squad", None),
        id_pattern="[0-9a-f]{24}",
        typical_tokens=176,
        sample="tasks.sample.squad:squad_rows",
    ),
    Definition(
        name="squad_v2",
        kind="question_answering",
        metrics=("f1", "exact", "best_f1", "best_exact"),
        primary_metric="f1",
        texts=("context", "question"),
        splits={
            "train": OfficialSplit(130_319, file="68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002"),
            "validation": OfficialSplit(
                11_873, file="80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8"
            ),
        },
        raw=RawFiles(
            folder="squad_v2",
            names={"train": "train-v2.0.json", "validation": "dev-v2.0.json"},
            other_names={"train": "train-v1.1.json", "validation": "dev-v1.1.json"},
            format="squad_json",
            other_folders=("squad", "squad2", "squad_v2.0"),
            distinctive=True,
        ),
        hub=("rajpurkar/squad_v2", None),
        unanswerable=True,
        typical_tokens=176,
    ),
    _glue(
        "CoLA",
        "sentence",
        {"positions": {"sentence": 3, "label": 1}, "width": 4, "class_numbers": True},
        kind="classification",
        metrics=("matthews_correlation",),
        primary_metric="matthews_correlation",
        classes={"unacceptable": ("ungrammatical", "not_acceptable"), "acceptable": ("grammatical",)},
        splits={
            "train": OfficialSplit(8_551, "4ab183e0b0bfa29f066216bc911d7135f0a73ca033a5a8289ed4f46a48c251b8"),
            "validation": OfficialSplit(1_043, "cc1c5b1425a8fdcd8476cf637ddaad394aac53bc79e8a2b3d5ace35db55c5cfd"),
        },
        typical_tokens=11,
        sample="tasks.sample.grammar:cola_rows",
    ),
    _glue(
        "SST-2",
        "sentence",
        {"class_numbers": True},
        kind="classification",
        metrics=("accuracy",),
        primary_metric="accuracy",
        classes={"negative": ("neg",), "positive": ("pos",)},
        splits={
            "train": OfficialSplit(67_349, "091adc944297e2da4fcd4287985ad5336a00394253538cf7ec10a4c594168224"),
            "validation": OfficialSplit(872, "528f8ecd90ebdc0d6f7d8ce8648feb7dcb9be7732c7173bb5ebfad0e1cf1a68d"),
        },
        typical_tokens=13,
        sample="tasks.sample.opinions:sst2_rows",
    ),
    _glue(
        "MRPC",
        "sentence1 sentence2",
        {
            "headers": {"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"},
            "class_numbers": True,
        },
        kind="classification",
        metrics=("accuracy", "f1"),
        primary_metric="f1",
        classes={"not_equivalent": ("not_paraphrase", "no_paraphrase"), "equivalent": ("paraphrase",)},
        splits={
            "train": OfficialSplit(3_668, "e49fbb8817687b488697927335fc6ec9cd38b04a2a7959856381413e28ab8211"),
            "validation": OfficialSplit(408, "624e875e701af534f352f7e3b13104e55867e368d5f2485e438877695ceb2a57"),
        },
        typical_tokens=53,
        sample="tasks.sample.pairs:mrpc_rows",
    ),
    _glue(
        "STS-B",
        "sentence1 sentence2",
        {"headers": {"label": "score"}},
        kind="regression",
        metrics=("pearson", "spearman"),
        primary_metric="spearman",
        score_range=(0.0, 5.0),
        splits={
            "train": OfficialSplit(5_749, "06c47f3e4bf38d9f8fb6b4b5e84dbd3b268b327bd1cf6cfe6ab2711c35ebe4d1"),
            "validation": OfficialSplit(1_500, "5d8fd9d0fb7add9ec6c42f06573cf0e5fa23441f3938b63a8af6e8405d124e67"),
        },
        typical_tokens=28,
        sample="tasks.sample.pairs:stsb_rows",
    ),
    _glue(
        "QQP",
        "question1 question2",
        # the official training file has some twenty short rows in 363,870
        {"headers": {"label": "is_duplicate"}, "class_numbers": True, "rows_for_each_broken": 10_000},
        kind="classification",
        metrics=("accuracy", "f1"),
        primary_metric="f1",
        classes={
            "not_duplicate": ("no_duplicate", "not_paraphrase"),
            "duplicate": ("is_duplicate", "paraphrase"),
        },
        splits={
            "train": OfficialSplit(363_846, size=50_900_820),
            "validation": OfficialSplit(40_430, size=5_653_754),
        },
        typical_tokens=30,
        sample="tasks.sample.pairs:qqp_rows",
    ),
    _glue(
        "MNLI",
        "premise hypothesis",
        {
            "names": {
                "train": "train.tsv",
                "validation_matched": "dev_matched.tsv",
                "validation_mismatched": "dev_mismatched.tsv",
            },
            "headers": {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"},
            "ignored_labels": ("-",),  # the annotators had no majority
        },
        kind="classification",
        metrics=("accuracy",),
        primary_metric="accuracy",
        classes={
            "entailment": ("entail", "entails"),
            "neutral": (),
            "contradiction": ("contradict", "contradicts", "contradictory"),
        },
        splits={
            "train": OfficialSplit(392_702, size=74_619_646),
            "validation_matched": OfficialSplit(9_815, size=1_833_783),
            "validation_mismatched": OfficialSplit(9_832, size=1_949_231),
        },
        typical_tokens=39,
        sample="tasks.sample.pairs:mnli_rows",
    ),
    _glue(
        "QNLI",
        "question sentence",
        kind="classification",
        metrics=("accuracy",),
        primary_metric="accuracy",
        classes=_ENTAILMENT,
        splits={
            "train": OfficialSplit(104_743, size=25_612_443),
            "validation": OfficialSplit(5_463, "f3ecb3423cc21301691c50ec18a77c2a20ac4f8482b545b7b0a8f0d0ae37f491"),
        },
        typical_tokens=52,
        sample="tasks.sample.pairs:qnli_rows",
    ),
    _glue(
        "RTE",
        "sentence1 sentence2",
        kind="classification",
        metrics=("accuracy",),
        primary_metric="accuracy",
        classes=_ENTAILMENT,
        splits={
            "train": OfficialSplit(2_490, "01db6dbb3c79fabbedf4b0b47f074bda04ff46b52b60cde8d9f93b44358dc3db"),
            "validation": OfficialSplit(277, "2ba1a672425bca44394426034d82b3468638f9e8d748083d8ab44f24faa51be2"),
        },
        typical_tokens=67,
        sample="tasks.sample.pairs:rte_rows",
    ),
)
_STSB = next(task for task in _TASKS if task.name == "glue/stsb")
_SIMILARITY = replace(
    _STSB,
    name="sts_b",
    short="",
    kind="similarity",
    metrics=("spearman", "pearson"),
    benchmark=None,
    sample="tasks.sample.pairs:similarity_rows",
)
"""STS-B as sentence encoders are judged on it: by the cosine of two vectors, without training."""
DEFINITIONS: dict[str, Definition] = {task.name: task for task in (*_TASKS, _SIMILARITY)}
