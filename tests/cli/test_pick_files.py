"""What `pick` takes beside a model folder and a table: questions, data sets with splits, the hub, and ONNX files made elsewhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.cli.main import main, parser
from harness.cli.pick_data import find_places
from harness.cli.pick_model import find_model
from harness.cli.pick_run import Prepared, prepare
from harness.cli.suites import RunOptions, plan_offline
from harness.errors import QuantboardError
from harness.suite.load import load_suite
from harness.suite.own import write_suite
from tasks import TaskError, hub
from tests.cli.test_pick_run import NAMES, TEXTS, folder
from tests.run.own_tasks import save_model, tokenizer_of
from tests.tasks.loopback_hub import LoopbackHub

__all__ = ["folder"]  # fixtures

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def prepared(*words: str) -> Prepared:
    return prepare(parser().parse_args(["pick", *words]))


def blocked(ready: Prepared) -> list[object]:
    return [cell.blocked for cell in plan_offline(RunOptions(str(ready.suite))).cells if cell.blocked]


# --- questions --------------------------------------------------------------------------------------------------------


def squad(count: int = 10, *, none: bool = False) -> dict[str, Any]:
    """SQuAD's JSON with two questions a paragraph. none: a third one that has no answer."""
    articles = []
    for number in range(count):
        context = f"The museum was founded in {1800 + number} by a rich merchant ."
        asked = [("when was it founded ?", str(1800 + number)), ("who founded it ?", "a rich merchant")]
        questions: list[dict[str, Any]] = [
            {"id": f"{number}-{answer}", "question": question}
            | {"answers": [{"text": answer, "answer_start": context.index(answer)}]}
            for question, answer in asked
        ]
        if none:
            questions.append({"id": f"{number}", "question": "why ?", "answers": [], "is_impossible": True})
        articles.append({"title": f"t{number // 3}", "paragraphs": [{"context": context, "qas": questions}]})
    return {"version": "1", "data": articles}


@pytest.fixture
def answering(folder: Path) -> Path:
    from transformers import BertForQuestionAnswering

    save_model(folder / "qa", BertForQuestionAnswering)
    return folder


def test_questions_of_squads_form_are_read_and_a_slice_is_set_aside(answering: Path) -> None:
    (answering / "faq.json").write_text(json.dumps(squad()))
    ready = prepared("qa", "--data", "faq.json")
    suite = load_suite(str(ready.suite))
    assert suite.task["faq"].kind == "question_answering"
    assert not suite.task["faq"].unanswerable
    assert (suite.shape.max_length, suite.shape.doc_stride, ready.rows) == (384, 128, 12)
    assert not blocked(ready)
    (answering / "train.json").write_text(json.dumps(squad()))
    ready = prepared("qa", "--data", "faq.json", "--train", "train.json")
    assert (ready.rows, ready.own.validation) == (20, Path("faq.json"))
    assert not blocked(ready)


def test_windows_fit_a_short_model(answering: Path) -> None:
    from transformers import BertForQuestionAnswering

    save_model(answering / "short", BertForQuestionAnswering, max_position_embeddings=64)
    (answering / "faq.json").write_text(json.dumps(squad()))
    ready = prepared("short", "--data", "faq.json")
    shape = load_suite(str(ready.suite)).shape
    assert (shape.max_length, shape.doc_stride, shape.max_query_length) == (64, 21, 21)
    assert not blocked(ready)


def test_questions_without_answers_are_marked_or_many_and_a_few_are_faults(
    answering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (answering / "v2.json").write_text(json.dumps(squad(none=True)))
    assert load_suite(str(prepared("qa", "--data", "v2.json").suite)).task["v2"].unanswerable
    rows = [
        {
            "context": "a b",
            "question": f"{row} ?",
            "answers": {"text": ["a"] * (row % 2), "answer_start": [0] * (row % 2)},
        }
        for row in range(20)
    ]
    (answering / "flat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_suite(str(prepared("qa", "--data", "flat.jsonl").suite)).task["flat"].unanswerable
    one = squad()
    one["data"][4]["paragraphs"][0]["qas"][1]["answers"] = []
    (answering / "one.json").write_text(json.dumps(one))
    capsys.readouterr()
    assert main(["pick", "qa", "--data", "one.json"]) == 2
    error = capsys.readouterr().err
    assert "one.json: data[4].paragraphs[0].qas[1]" in error and error.count("\n") == 1
    assert "mark it with is_impossible = true, or leave such rows out with --skip-bad-rows" in error
    ready = prepared("qa", "--data", "one.json", "--skip-bad-rows")
    assert any("1 rows cannot be used and are left out" in note for note in ready.notes)
    assert ready.rows == 11
    with pytest.raises(QuantboardError, match="the columns of questions are called context, question and answers"):
        prepared("qa", "--data", "one.json", "--text", "context", "--skip-bad-rows")


@pytest.mark.slow
def test_a_pick_for_questions_ends_with_an_answer(answering: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (answering / "faq.json").write_text(json.dumps(squad(none=True)))
    assert main(["pick", "qa", "--data", "faq.json", "--minutes", "0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Ship ") and "of its f1" in " ".join(lines[:3])
    assert max(map(len, lines)) <= 80
    records = [
        json.loads(line) for file in answering.glob("results/*/*.jsonl") for line in file.read_text().splitlines()
    ]
    assert {*records[0]["accuracy"][0]["metrics"]} == {"f1", "exact", "best_f1", "best_exact"}


# --- data sets with splits --------------------------------------------------------------------------------------------


def save_splits(target: Path, **splits: int) -> None:
    import datasets

    rows = {name: [{"text": TEXTS[row], "label": row % 5} for row in range(count)] for name, count in splits.items()}
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)})
    datasets.DatasetDict(
        {name: datasets.Dataset.from_list(part, features=features) for name, part in rows.items()}
    ).save_to_disk(str(target))


@pytest.fixture
def model(folder: Path) -> Any:
    from transformers import BertForSequenceClassification

    return save_model(folder / "model", BertForSequenceClassification, NAMES)


def test_of_a_saved_data_set_validation_is_scored_and_train_gives_ranges(folder: Path, model: Any) -> None:
    save_splits(folder / "saved", train=40, validation=20, test=10)
    ready = prepared("model", "--data", "saved")
    assert (ready.own.validation, ready.own.train) == (Path("saved/validation"), Path("saved/train"))
    assert (ready.rows, ready.own.task) == (20, "saved")
    assert not blocked(ready)
    save_splits(folder / "only", test=20)
    ready = prepared("model", "--data", "only", "--train", "saved")
    assert (ready.own.validation, ready.own.train) == (Path("only/test"), Path("saved/train"))
    save_splits(folder / "whole", train=40)
    ready = prepared("model", "--data", "whole")
    assert ready.rows == 32, "a slice of the only split is set aside"
    save_splits(folder / "odd", first=20)
    with pytest.raises(QuantboardError, match="name the folder of one: first"):
        prepared("model", "--data", "odd")
    assert prepared("model", "--data", "odd/first").rows == 12


@pytest.mark.slow
def test_a_data_set_of_the_hub_is_downloaded_once(
    folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = folder / "served" / "datasets" / "acme" / "tickets"
    for config, words in (("plain", ""), ("other", "x ")):
        for split, count in (("train", 40), ("validation", 20)):
            (served / config).mkdir(parents=True, exist_ok=True)
            rows = [{"text": words + TEXTS[row], "label": NAMES[row % 5]} for row in range(count)]
            pq.write_table(pa.Table.from_pylist(rows), served / config / f"{split}-00000-of-00001.parquet")
    configs = "".join(
        f"- config_name: {config}\n  data_files:\n"
        + "".join(f"  - {{split: {split}, path: {config}/{split}-*}}\n" for split in ("train", "validation"))
        + ("  default: true\n" if config == "plain" else "")
        for config in ("plain", "other")
    )
    (served / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(folder / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(hub, "_probed", {})
    with LoopbackHub(folder / "served") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        ready = prepared("model", "--data", "hub:acme/tickets/other")
        assert ready.own.task == "tickets-other"
        count = len(server.requests)
        assert prepared("model", "--data", "hub:acme/tickets/other").suite == ready.suite
        assert len(server.requests) == count
        default = prepared("model", "--data", "hub:acme/tickets")
        with pytest.raises(TaskError, match=r"hub:acme/nothing: .*no such data set"):
            prepared("model", "--data", "hub:acme/nothing")
    for one, first in ((ready, f"x {TEXTS[0]}"), (default, TEXTS[0])):
        assert (one.rows, one.own.train.name if one.own.train else "") == (20, "train")
        assert not blocked(one)
        from tasks.tables import read_table

        assert read_table(one.own.validation)[0][1] == {"text": first, "label": NAMES[0]}
    assert main(["pick", "model", "--data", "hub:a/b/c/d"]) == 2
    assert "write hub:OWNER/NAME or hub:OWNER/NAME/CONFIG" in capsys.readouterr().err


# --- ONNX files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def exported(folder: Path, model: Any) -> Path:
    """A folder in optimum's layout with an FP32 and a quantized file."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits

    target = folder / "optimum"
    target.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(folder / "model" / name, target / name)
    model.set_attn_implementation("eager")
    example = tuple(torch.ones((2, 9), dtype=torch.int64) for _ in INPUTS)
    axes = {name: {0: "batch", 1: "length"} for name in INPUTS} | {"logits": {0: "batch"}}
    torch.onnx.export(
        Plain(), example, str(target / "model.onnx"), input_names=list(INPUTS), output_names=["logits"], dynamo=False,
        dynamic_axes=axes, opset_version=17,
    )  # fmt: skip
    quantize_dynamic(target / "model.onnx", target / "model_quantized.onnx", weight_type=QuantType.QInt8)
    return target


def test_an_onnx_file_is_compared_with_the_model_that_is_named(folder: Path, exported: Path) -> None:
    ready = prepared("optimum/model_quantized.onnx", "--made-from", "model", "--data", "tickets.csv")
    suite = load_suite(str(ready.suite))
    assert suite.baseline == "torch_fp32"
    assert suite.models["model_quantized.onnx"].made_from == f"model:{ready.own.model}"
    plan = plan_offline(RunOptions(str(ready.suite)))
    assert not [cell.blocked for cell in plan.cells if cell.blocked]
    assert [cell.model for cell in plan.cells if cell.backend == "onnxruntime_file"] == ["model_quantized.onnx"]
    write_suite(replace(ready.own, left_out=["model_quantized.onnx", "onnxruntime_file"]), ready.suite)
    rest = plan_offline(RunOptions(str(ready.suite))).cells
    assert [cell.key for cell in rest] == [cell.key for cell in plan.cells if cell.backend != "onnxruntime_file"]
    (folder / "optimum" / "model.safetensors").write_bytes((folder / "model" / "model.safetensors").read_bytes())
    ready = prepared("optimum/model_quantized.onnx", "--data", "tickets.csv")
    assert ready.own.model == "optimum", "the folder's own weights"
    plain = prepared("optimum", "--data", "tickets.csv")
    assert not plain.own.files
    assert "to compare one: quantboard pick optimum/model_quantized.onnx" in " ".join(plain.notes)


def test_the_files_of_an_onnx_folder_are_compared_with_its_fp32_file(folder: Path, exported: Path) -> None:
    for name in ("optimum", "onnx:optimum", "optimum/model_quantized.onnx"):
        ready = prepared(name, "--data", "tickets.csv")
        suite = load_suite(str(ready.suite))
        assert (suite.baseline, ready.rows) == ("onnxruntime_file", 60)
        assert [*suite.models] == ["model.onnx", "model_quantized.onnx"]
        assert not blocked(ready)
    inner = folder / "inner"
    (inner / "onnx").mkdir(parents=True)
    for file in exported.iterdir():
        shutil.copyfile(file, inner / ("onnx" if file.suffix == ".onnx" else "") / file.name)
    ready = prepared("inner", "--data", "tickets.csv")
    assert not blocked(ready)


def test_an_onnx_file_with_nothing_to_compare_is_one_line(folder: Path, exported: Path) -> None:
    for name in ("optimum/model.onnx", "optimum"):
        with pytest.raises(QuantboardError, match=rf"quantboard pick {name} --made-from MODEL --data FILE"):
            find_model(name, None)
        (exported / "model_quantized.onnx").unlink(missing_ok=True)
    with pytest.raises(QuantboardError, match=r"nowhere\.onnx: no such file"):
        find_model("nowhere.onnx", None)
    with pytest.raises(QuantboardError, match="--made-from: names what an ONNX file came from"):
        find_model("model", "model")
    (exported / "config.json").unlink()
    with pytest.raises(QuantboardError, match=r"no config\.json beside it"):
        find_model("optimum/model.onnx", None)


@pytest.mark.slow
def test_a_pick_for_an_onnx_file_scores_it_as_onnx_runtime_answers(
    folder: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    assert main(["pick", "optimum", "--data", "tickets.csv", "--minutes", "0.1", "--keep", "0.01"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Ship model") and max(map(len, lines)) <= 80
    assert not any("no accuracy to compare" in line for line in lines)
    records = [json.loads(line) for file in folder.glob("results/*/*.jsonl") for line in file.read_text().splitlines()]
    tokenizer = tokenizer_of(folder / "model")
    for record in records:
        session = onnxruntime.InferenceSession(str(exported / record["model"]), providers=["CPUExecutionProvider"])
        encoded = [dict(tokenizer(text, return_tensors="np")) for text in TEXTS]
        encoded = [{"token_type_ids": np.zeros_like(one["input_ids"])} | one for one in encoded]
        guesses = [int(session.run(["logits"], one)[0].argmax()) for one in encoded]
        right = sum(guess == row % 5 for row, guess in enumerate(guesses))
        share = record["accuracy"][0]["metrics"]["accuracy"]["value"]
        # a dynamically quantized row depends on what shares its batch
        assert share == pytest.approx(100 * right / 60, abs=5 if "quantized" in record["model"] else 1e-6)
    assert main(["export", "LAST", "out"]) == 0
    assert (folder / "out" / "model.onnx").is_file()


def test_places_are_named_for_what_tells_them_apart(folder: Path) -> None:
    (folder / "Tickets").mkdir()
    (folder / "Tickets" / "dev.csv").touch()
    assert find_places("Tickets/dev.csv", None).name == "Tickets-dev"
