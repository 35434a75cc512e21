"""`quantboard pick MODEL --data FILE`: from a folder and a file to an answer, and what is refused before anything runs."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.families.generic import NOTE
from harness.cli.main import main, parser
from harness.cli.pick_model import backends_of, find_model
from harness.cli.pick_run import choose, prepare
from harness.cli.suites import RunOptions, plan_offline
from harness.errors import QuantboardError
from harness.plan.fit import notes_on
from harness.suite.own import write_suite
from tests.run.own_tasks import save_model, tokenizer_of

NAMES = ["returns", "delivery", "payment due", "Account", "other"]
WORDS = ["the museum", "was founded", 'by a "rich", merchant', "in\nspring", "and opened ."]
TEXTS = [" ".join(WORDS[(row * step) % 5] for step in range(1, 2 + row % 7)) for row in range(60)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: `model`, `tickets.csv`, and its own cache and results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "schema.json").write_text("{}")  # so that results go here
    with (tmp_path / "tickets.csv").open("w", newline="") as file:
        rows = [(text, NAMES[row % 5]) for row, text in enumerate(TEXTS)]
        csv.writer(file).writerows([("message", "topic"), *rows])
    return tmp_path


@pytest.fixture
def model(folder: Path) -> Any:
    from transformers import BertForSequenceClassification

    return save_model(folder / "model", BertForSequenceClassification, NAMES)


def count_right(model: Any, rows: list[tuple[str, str]]) -> int:
    """How many (text, name of its class) plain transformers gets right."""
    import torch

    tokenizer = tokenizer_of(Path("model"))
    with torch.no_grad():
        guesses = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text, _ in rows]
    return sum(NAMES[guess] == name for guess, (_, name) in zip(guesses, rows, strict=True))


@pytest.mark.slow
def test_a_family_that_is_not_known_gets_an_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the generic way, which needs no rows for calibration."""
    from transformers import AlbertForSequenceClassification

    model = save_model(folder / "model", AlbertForSequenceClassification, NAMES, embedding_size=16)
    capsys.readouterr()
    assert main(["pick", "model", "--data", "tickets.csv", "--minutes", "0.1"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("Ship ")
    assert "set aside" not in shown.err
    records = [json.loads(line) for file in folder.glob("results/*/*.jsonl") for line in file.read_text().splitlines()]
    assert {record["backend"] for record in records} >= {"torch_fp32", "onnxruntime_fp32"}
    assert {record["status"] for record in records} <= {"ok", "invalid"}
    right = count_right(model, [(text, NAMES[row % 5]) for row, text in enumerate(TEXTS)])
    for record in records:
        assert record["accuracy"][0]["metrics"]["accuracy"]["value"] == pytest.approx(100 * right / 60)
        assert NOTE in record["placement"]["notes"]
        assert record["checkpoint"]["generic"] and record["roofline"] is None
        assert record["flops"]["total"] == 2 * record["placement"]["total_macs"]
    assert main(["export", "LAST", "out"]) == 0
    assert (folder / "out" / "model.onnx").is_file()


def test_a_model_of_which_no_graph_can_be_made_is_run_as_it_is_alone(folder: Path) -> None:
    from transformers import LongformerForSequenceClassification

    save_model(folder / "model", LongformerForSequenceClassification, NAMES, attention_window=8)
    given = find_model("model", None)
    assert [entry["name"] for entry in backends_of(given)] == ["torch_fp32"]
    assert "PyTorch's exporter makes no graph of 'longformer'" in notes_on(given.folder)[1]


def options(*words: str) -> Namespace:
    return parser().parse_args(["pick", "model", "--data", "tickets.csv", *words])


@pytest.mark.slow
def test_one_command_ends_with_an_answer(folder: Path, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The accuracy is transformers', on the rows that are scored; the slice for calibration is not."""
    capsys.readouterr()
    assert main(["pick", "model", "--data", "tickets.csv", "--minutes", "0.1"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].startswith("Ship ")
    assert max(map(len, lines)) <= 80
    assert "'message', label 'topic', 5 classes." in " ".join(shown.out.split())
    assert "12 of 60 rows are set aside" in shown.err
    scored = [json.loads(line) for line in next(folder.glob("picks/*/validation.jsonl")).read_text().splitlines()]
    assert len(scored) == 48
    right = count_right(model, [(row["message"], row["topic"]) for row in scored])
    records = [json.loads(line) for file in folder.glob("results/*/*.jsonl") for line in file.read_text().splitlines()]
    baseline = next(record for record in records if record["baseline"])
    assert baseline["accuracy"][0]["metrics"]["accuracy"]["value"] == pytest.approx(100 * right / 48)
    assert main(["pick"]) == 0, "the same answer from its records"
    assert lines[0].split(":")[0] in capsys.readouterr().out
    assert main(["export", "LAST", "out"]) == 0
    program = (
        "import json, predict, sys; print(json.dumps([predict.predict(json.load(sys.stdin)), sorted(sys.modules)]))"
    )
    texts = json.dumps([row["message"] for row in scored])
    ended = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, 'out'); {program}"],
        input=texts, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers, modules = json.loads(ended.stdout)
    assert sum(answer == row["topic"] for answer, row in zip(answers, scored, strict=True)) == right
    assert not {"torch", "transformers", "harness", "backends", "tasks"} & set(modules)
    assert "Share of `torch_fp32` that is kept" in (folder / "out" / "README.md").read_text()


def test_time_decides_on_rounds_rows_and_methods(folder: Path, model: Any) -> None:
    """What the suite file holds afterwards is what is run: no more, with the keys that the whole file gives."""
    prepared = prepare(options())
    keys = {cell.label: cell.key for cell in plan_offline(RunOptions(str(prepared.suite))).cells}
    whole, notes = choose(prepared, 60)
    assert (whole.backends, whole.limit, notes, labels(whole)) == ((), None, [], [*keys])
    if shutil.which("g++"):  # else it is no candidate
        middle, notes = choose(prepared, 13)
        assert notes == ["torch_compiled_fp32 does not fit 13 minutes; --minutes gives more."]
        assert {cell.label: cell.key for cell in plan_offline(middle).cells} == {
            label: key for label, key in keys.items() if label != "torch_compiled_fp32"
        }
        assert middle == RunOptions(str(prepared.suite)), "what `quantboard run picks/NAME.toml` takes"
        assert "rounds = 9" in prepared.suite.read_text()
    short, notes = choose(prepare(options()), 0.1)
    assert len(labels(short)) == 2 and labels(short)[0] == "torch_fp32"
    assert any("5 rounds" in note for note in notes)
    assert any("onnxruntime_int8 does not fit" in note for note in notes)
    text = prepared.suite.read_text()
    assert "rounds = 5" in text and "# These did not fit 0.1 minutes." in text
    whole_again = text.replace("\n# [[backends]]\n# ", "\n[[backends]]\n").replace("\n# scheme", "\nscheme")
    prepared.suite.write_text(whole_again)
    assert sorted(labels(short)) == sorted(keys), "without the marks of a comment it runs them"


def labels(run: RunOptions) -> list[str]:
    return [cell.label for cell in plan_offline(run).cells]


def test_fewer_rows_stand_in_the_command_that_repeats_the_run(folder: Path, model: Any) -> None:
    prepared = prepare(options())
    write_suite(replace(prepared.own, limit=500), prepared.suite)
    assert f"quantboard run {prepared.suite} --limit 500\n" in prepared.suite.read_text()


def test_equal_files_give_equal_suites_and_other_files_are_taken_for_calibration(folder: Path, model: Any) -> None:
    first = prepare(options()).suite.read_text()
    assert prepare(options()).suite.read_text() == first
    (folder / "train.csv").write_text((folder / "tickets.csv").read_text())
    prepared = prepare(options("--train", "train.csv"))
    text = prepared.suite.read_text()
    assert 'data = { train = "../train.csv", validation = "../tickets.csv" }' in text
    assert prepared.rows == 60


def test_names_are_given_to_outputs_in_their_order(folder: Path) -> None:
    from transformers import BertForSequenceClassification

    from harness.cli.suites import RunOptions, plan_offline

    save_model(folder / "model", BertForSequenceClassification, [f"LABEL_{number}" for number in range(5)])
    with pytest.raises(QuantboardError, match="--labels Account,delivery,other,payment due,returns"):
        prepare(options())
    prepared = prepare(options("--labels", ",".join(NAMES)))
    assert [cell.blocked for cell in plan_offline(RunOptions(str(prepared.suite))).cells if cell.baseline] == [None]


def test_a_file_named_for_its_split_has_its_folders_name_too(folder: Path, model: Any) -> None:
    (folder / "Tickets 2024").mkdir()
    (folder / "Tickets 2024" / "dev.csv").write_text((folder / "tickets.csv").read_text())
    prepared = prepare(parser().parse_args(["pick", "model", "--data", "Tickets 2024/dev.csv"]))
    assert prepared.own.task == "tickets-2024-dev"


def test_tabs_with_lone_quotes_are_read_as_they_stand(folder: Path, model: Any) -> None:
    (folder / "a.tsv").write_text('text\tlabel\n"it" is\tother\n' + 'a 5" disk\treturns\n"b\tAccount\n' * 10)
    prepared = prepare(parser().parse_args(["pick", "model", "--data", "a.tsv"]))
    assert any("read as plain tabs" in note for note in prepared.notes)
    rows = [json.loads(line) for file in (folder / "picks").rglob("*.jsonl") for line in file.read_text().splitlines()]
    assert {row["text"] for row in rows} == {'"it" is', 'a 5" disk', '"b'}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pick", "model"], "quantboard pick model --data FILE"),
        (["pick", "--data", "tickets.csv"], "quantboard pick MODEL --data tickets.csv"),
        (["pick", "nowhere", "--data", "tickets.csv"], "nowhere: no such folder"),
        (["pick", "modle", "--data", "tickets.csv"], "modle: no such folder; did you mean model?"),
        (["pick", "some/bert", "--data", "tickets.csv"], "a model of the hub is written hub:some/bert"),
        (["pick", "model", "--data", "nowhere.csv"], "--data: nowhere.csv: no such file; check the path"),
        (["pick", "model", "--data", "tickts.csv"], "no such file; did you mean tickets.csv?"),
        (
            ["pick", "model", "--data", "tickets.csv", "--train", "tickts.csv"],
            "--train: tickts.csv: no such file; did you",
        ),
        (["pick", "model", "--data", "imdb"], "a data set of the hub is written hub:imdb"),
        (["pick", "model", "--data", "https://a.example/b.csv"], "download the file"),
        (["pick", "model", "--data", "."], "name one of its files: few.csv, lacks.csv, other.csv, tickets.csv"),
        (["pick", "model", "--data", "few.csv"], "few.csv: 9 rows are too few"),
        (["pick", "model", "--data", "lacks.csv"], "lacks.csv: line 9: unknown label missing"),
        (["pick", "model", "--data", "sheet.xlsx"], "save the sheet as CSV"),
        (["pick", "model", "--data", "tickets.csv", "--label", "team"], "--label: tickets.csv has no column 'team'"),
        (["pick", "model", "--data", "other.csv"], "quantboard pick model --data other.csv --label team"),
        (["export", "LAST", "out"], "quantboard pick MODEL --data FILE"),
        (["pick", "package:nowhere/model", "--data", "tickets.csv"], "package nowhere is not installed"),
    ],
)
def test_what_is_wrong_is_one_line_with_a_command_that_works(
    folder: Path, model: Any, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    rows = [f"{row},s,the body of a ticket,{NAMES[row % 2]} team" for row in range(20)]
    (folder / "other.csv").write_text("\n".join(["id,subject,body,team", *rows]))
    (folder / "sheet.xlsx").write_bytes(b"PK")
    labelled = [f"a ticket {row},other" for row in range(20)]
    (folder / "few.csv").write_text("\n".join(["text,label", *labelled[:9]]))
    (folder / "lacks.csv").write_text("\n".join(["text,label", *labelled[:7], "a ticket,", *labelled]))
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
