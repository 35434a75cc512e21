"""What is fuzzed: commands of the command line on a file that a stranger made.

Each target writes an input into its folder and runs commands on it, in this process. The input must end in an answer or in lines
about it: any exception, more than LIMIT seconds, or characters that a terminal obeys are a finding.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from harness.cli.main import main
from harness.errors import visible
from tasks.base import Kind

LIMIT = 30
"""Seconds that one input may take."""
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "id2label": {"0": "unacceptable", "1": "acceptable"},
    "label2id": {"unacceptable": 0, "acceptable": 1},
}
SUITE = """
title = "A fuzzed suite"
tasks = ["mine"]
baseline = "torch_fp32"
[models.small]
source = "./model"
recipe = "load"
[task.mine]
kind = "{kind}"
{columns}
data = {{ train = "rows{suffix}", validation = "rows{suffix}" }}
[shape]
max_length = 64
doc_stride = 24
[[backends]]
name = "torch_fp32"
[[backends]]
name = "onnxruntime_int8"
scheme = "engine_int8"
"""


class Hang(BaseException):
    """An input took too long; no `except Exception` catches it."""


@contextlib.contextmanager
def limited(seconds: int = LIMIT) -> Iterator[None]:
    def hang(number: int, frame: object) -> None:
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def quantboard(*words: str) -> tuple[int, str, str]:
    """Exit code and output of a command. Raises AssertionError for output that a terminal obeys, and whatever the command does."""
    out, err = io.StringIO(), io.StringIO()
    with limited(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    assert code in (0, 1, 2), (words, code)
    for text in (out.getvalue(), err.getvalue()):
        assert visible(text) == text, (words, text)
    said = err.getvalue()
    assert code != 2 or said.strip(), words
    assert max(map(len, said.splitlines()), default=0) < 4000, (words, said[:1000])
    return code, out.getvalue(), said


@dataclass(frozen=True)
class Target:
    """A fuzzer. prepare: fills its folder, once. check: one input."""

    name: str
    prepare: Callable[[Path], None]
    check: Callable[[Path, bytes], None]


def split(content: bytes) -> tuple[str, bytes]:
    """An input of several forms begins with a line that names its form."""
    form, _, rest = content.partition(b"\n")
    return form.decode(errors="replace"), rest


def checkout(folder: Path) -> None:
    """A folder that the command line takes for a checkout."""
    root = Path(__file__).resolve().parents[2]
    (folder / "suites").mkdir()
    (folder / "suites" / "schema.json").write_text("{}")
    (folder / "site").symlink_to(root / "site")
    (folder / "docs").symlink_to(root / "docs")


def suite(folder: Path, content: bytes) -> None:
    (folder / "one.toml").write_bytes(content)
    if quantboard("validate", "./one.toml")[0] == 0:
        quantboard("plan", "./one.toml", "--data", "sample")


def records_file(folder: Path, content: bytes) -> Path:
    """A results folder with the input as its newest file, between whole records."""
    from tests.report.stored_scores import add, answers

    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    add(results / "squad", "b", answers(40, 5), label="torch_fp32", baseline=True)
    (results / "squad" / "run2.jsonl").write_bytes(content)
    return results


def records(folder: Path, content: bytes) -> None:
    results = str(records_file(folder, content))
    quantboard("compare", "torch_fp32", "a", "--results", results)
    quantboard("pick", "--from", results)
    quantboard("rescore", "--results", results, "--data", "sample")
    quantboard("gate", "--against", results, "--results", results)


def site(folder: Path, content: bytes) -> None:
    results = records_file(folder, content)
    shutil.rmtree(folder / "_site", ignore_errors=True)
    quantboard("site", "--results", str(results), "--out", str(folder / "_site"))
    for page in (folder / "_site").glob("*.html"):
        text = page.read_text()
        assert "<img src=x" not in text and "<script>alert" not in text, page.name
        assert visible(text) == text, page.name


def scores(folder: Path, content: bytes) -> None:
    """A file of scores whose record has no hash of it, as early ones have none."""
    from tests.report.stored_scores import add, answers

    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    for key in "ab":
        add(results / "squad", key, answers(40, 5 + ord(key) % 2), qps=(1.0, 2.0, 3.0))
    (results / "squad" / "scores" / "run-b.npz").write_bytes(content)
    quantboard("compare", "a", "b", "--results", str(results))
    quantboard("rescore", "--results", str(results), "--data", "sample")


COLUMNS = {
    "classification": 'text = "text"\nlabel = "label"',
    "pair": 'text = "text"\ntext_pair = "other"\nlabel = "label"',
    "regression": 'text = "text"\nlabel = "label"',
    "multi_label": 'text = "text"\nlabel = "label"',
    "similarity": 'text = "text"\ntext_pair = "other"\nlabel = "label"',
    "token_classification": "",
    "question_answering": "",
}


def data(folder: Path, content: bytes) -> None:
    """The form is `KIND SUFFIX`, or the name of a task of ours, with its raw file."""
    from tests.tasks.raw_files import GLUE

    form, rest = split(content)
    if form in GLUE or form == "squad_v1":
        raw = folder / "raw"
        shutil.rmtree(raw, ignore_errors=True)
        for part in ("train", "dev"):
            name = f"squad/{part}-v1.1.json" if form == "squad_v1" else f"glue/{GLUE[form][0].format(part)}"
            (raw / name).parent.mkdir(parents=True, exist_ok=True)
            (raw / name).write_bytes(rest)
        (folder / "own.toml").write_text(
            SUITE.format(kind="classification", columns=COLUMNS["classification"], suffix=".csv").replace(
                'tasks = ["mine"]', f'tasks = ["{form}"]'
            )
        )
        quantboard("plan", "./own.toml", "--data", str(raw))
        return
    kind, _, suffix = form.partition(" ")
    (folder / f"rows{suffix}").write_bytes(rest)
    (folder / "own.toml").write_text(SUITE.format(kind=kind, columns=COLUMNS[kind], suffix=suffix))
    for more in ((), ("--skip-bad-rows",)):
        if quantboard("plan", "./own.toml", *more)[0] == 0:
            _read(folder, kind, suffix, skip=bool(more))


def _read(folder: Path, kind: str, suffix: str, *, skip: bool) -> None:
    """What was planned can be opened: examples, and a score of what the file itself says."""
    from tasks import DataRef, TaskError, open_task
    from tasks.declared import Declaration

    columns = dict(line.split(" = ") for line in COLUMNS[kind].splitlines())
    values = {name: json.loads(value) for name, value in columns.items()}
    declaration = Declaration(
        name="mine",
        kind=cast(Kind, kind),
        data={"validation": str(folder / f"rows{suffix}")},
        skip_bad_rows=skip,
        **values,
    )
    with limited(), contextlib.suppress(TaskError):
        task = open_task("mine", DataRef("declared", declaration.to_json()))
        assert task.examples("validation")


def predictions(folder: Path, content: bytes) -> None:
    """The form is the name of a task."""
    form, rest = split(content)
    (folder / "predictions.json").write_bytes(rest)
    quantboard("score", form, "predictions.json", "--data", "sample")


def config(folder: Path, content: bytes) -> None:
    """The form is the name of a file of the model's folder."""
    form, rest = split(content)
    model = folder / "model"
    shutil.rmtree(model)
    shutil.copytree(folder / "whole", model)
    (model / form).write_bytes(rest)
    quantboard("plan", "./own.toml")
    with limited():
        _load(model)


def _load(model: Path) -> None:
    """What a run reads first."""
    from backends import BackendError
    from backends.checkpoint import read_architecture, read_encoder
    from harness.checkpoints.base_model import load_config
    from harness.errors import QuantboardError
    from harness.plan.spec import CheckpointSpec
    from tasks import DataRef, Shape, TaskError
    from tasks.tokens import load_tokenizer

    spec = CheckpointSpec("small", "mine", "load", str(model), 0, Shape(64, 24, 24), DataRef("sample"))
    steps: tuple[Callable[[], Any], ...] = (
        lambda: read_architecture(model),
        lambda: read_encoder(model),
        lambda: load_config(spec, model),
        lambda: load_tokenizer(model),
    )
    for step in steps:
        with contextlib.suppress(BackendError, QuantboardError, TaskError):
            step()


def model_folder(folder: Path) -> None:
    """A whole model and rows that it fits, as a suite of one's own has them."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from tests.tasks.tokenizers import make_tokenizer

    checkout(folder)
    torch.manual_seed(0)
    fields = {name: value for name, value in CONFIG.items() if name not in ("model_type", "architectures", "label2id")}
    fields["id2label"] = {int(number): name for number, name in CONFIG["id2label"].items()}
    model: Any = BertForSequenceClassification(BertConfig(**fields))
    model.save_pretrained(folder / "whole")
    make_tokenizer("bert", folder).save_pretrained(folder / "whole")
    (folder / "whole" / "config.json").write_text(json.dumps(CONFIG))
    shutil.copytree(folder / "whole", folder / "model")
    (folder / "rows.csv").write_text("text,label\na,acceptable\nb,unacceptable\n")
    (folder / "own.toml").write_text(
        SUITE.format(kind="classification", columns=COLUMNS["classification"], suffix=".csv")
    )


TARGETS = {
    target.name: target
    for target in (
        Target("suite", checkout, suite),
        Target("records", checkout, records),
        Target("data", model_folder, data),
        Target("predictions", checkout, predictions),
        Target("config", model_folder, config),
        Target("scores", checkout, scores),
        Target("site", checkout, site),
    )
}
