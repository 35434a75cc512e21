"""The final tables of `quantboard run`: narrow, one line a row, and every note once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.cli.method_table import Notes, laid_out, table
from harness.cli.run_lines import run_lines
from harness.records import store
from harness.records.schema import Record
from harness.report.boards import latest
from harness.report.pick import Method, Ratio
from tests.records.records import make_record, of_a_part
from tests.report.stored_scores import add, answers

RESULTS = Path(__file__).parents[2] / "results"


def row_of(lines: list[str], name: str) -> list[str]:
    return next(line.split() for line in lines if line.strip().startswith(name))


@pytest.fixture(autouse=True)
def own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.machine.paths.results", lambda: tmp_path)


def test_a_method_has_one_line_with_what_it_keeps_and_its_speed_up(tmp_path: Path) -> None:
    fp32 = add(
        tmp_path,
        "fp32",
        answers(400, 40),
        baseline=True,
        backend="torch_fp32",
        label="torch_fp32",
        turns=(2.0, 2.2, 1.8),
    )
    int8 = add(tmp_path, "int8", answers(400, 42), backend="onnxruntime_int8_dynamic", label="onnxruntime_int8_dynamic", turns=(1.0, 1.1, 0.9))  # fmt: skip
    low = add(
        tmp_path, "low", answers(400, 80), backend="onnxruntime_fp32", label="onnxruntime_fp32", turns=(1.0, 1.1, 0.9)
    )
    lines = run_lines([fp32, int8, low])
    assert lines[0].startswith("glue/rte, tiny (official)")
    row = row_of(lines, "ORT INT8 dynamic")
    assert row[3] == "89.5" and f"{100 * 358 / 360:.1f}" in row and "2.00×" in row and row[-1] == "ship"
    assert row_of(lines, "PyTorch FP32")[-1] == "base"
    number = row_of(lines, "ORT FP32")[-1]
    assert any(
        line.startswith(f"  {number}  ORT FP32: keeps 88.8%") or line.startswith(f"  {number}  ORT FP32: keeps 88.9%")
        for line in lines
    )
    assert max(map(len, lines)) <= 80


def test_each_reason_is_told_once_with_its_cells(tmp_path: Path) -> None:
    def skipped(label: str, reason: str = "there is no GPU", status: str = "skipped") -> Record:
        unmeasured: dict[str, Any] = {"accuracy": [], "flops": None, "speed": [], "memory": None, "placement": None}
        return make_record(
            key=label, label=label, status=status, reason=reason, remedy="run it where there is one", **unmeasured
        )

    records = [
        make_record(baseline=True),
        *(skipped(f"engine_{number}") for number in range(8)),
        skipped("other", "no such file", "failed"),
    ]
    lines = run_lines(records)
    text = " ".join(" ".join(lines).split())
    assert text.count("there is no GPU") == 1
    assert "engine_4, engine_5 and 2 more did not run: there is no GPU. Run it where there is one." in text
    assert "other failed: no such file." in text
    assert max(map(len, lines)) <= 80


def test_parts_of_a_task_and_of_its_examples_are_named(tmp_path: Path) -> None:
    record = of_a_part(10, task="glue/mnli")
    parts = [
        part.model_copy(update={"split": f"validation_{name}"})
        for part, name in zip(record.accuracy * 2, ("matched", "mismatched"), strict=True)
    ]
    heads = [
        line for line in run_lines([record.model_copy(update={"accuracy": parts})]) if line.startswith("glue/mnli")
    ]
    assert heads == [f"glue/mnli validation_{name}, tiny (10 examples, official)" for name in ("matched", "mismatched")]


def test_a_simulation_and_a_row_without_a_baseline_are_shown(tmp_path: Path) -> None:
    lines = run_lines([make_record(label="fake", backend="fake_quant_w8a8", simulated=True, speed=[])])
    assert "sim" in row_of(lines, "fake")
    assert sum("rounds as an engine would" in line for line in lines) == 1
    lines = run_lines([make_record()])
    assert "75.0" in row_of(lines, "PyTorch FP32")


@pytest.mark.parametrize(
    "suite", sorted(path.name for path in RESULTS.iterdir() if path.is_dir() and path.name != "sample")
)
def test_the_committed_results_fit(suite: str) -> None:
    records = [record for record in latest(record for _, record in store.read(RESULTS)) if record.suite == suite]
    lines = run_lines(records)
    assert max(map(len, lines)) <= 80
    tables = [line for line in lines if re.match(r"  [A-Z]\w* ", line)]
    assert len(tables) > 1
    notes = re.split(r"^ {0,2}\d+  ", "\n".join(lines), flags=re.MULTILINE)[1:]
    assert len(set(notes)) == len(notes)


def test_what_gets_too_wide_is_left_out_in_order() -> None:
    methods = [
        Method(
            name,
            Ratio(0.9876, 0.9, 1.0),
            Ratio(123.4, 100.0, 150.0),
            12345.6,
            None,
            12345,
            12345,
            0,
            Ratio(98.76, 97.1, 99.9),
        )
        for name in ("short", "a name that is longer than any column has room for in eighty characters")
    ]
    titles = {method.name: method.name for method in methods}
    wide = table(methods[:1], "accuracy", {"short": "ship"}, titles, memory=True)
    assert "97.1-99.9" in wide[1] and wide[0].split()[-1] == "RAM"
    narrow = table(methods, "accuracy", {"short": "ship"}, titles, memory=True)
    assert max(map(len, narrow)) <= 80 and "…" in narrow[2] and "123×" in narrow[2]
    assert laid_out([("A", ["1", "22"], ">"), ("", ["", ""], "<"), ("B", ["x", "y"], "<")], 2) == [
        "   A  B",
        "   1  x",
        "  22  y",
    ]


def test_a_note_has_one_number() -> None:
    notes = Notes(["first"])
    assert (notes.add("second"), notes.add("first"), notes.add("second")) == (2, 1, 2)
    assert notes.lines() == ["  1  first", "  2  second"]
