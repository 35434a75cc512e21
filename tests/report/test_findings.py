"""docs/findings.md is what the records say; some of its figures are computed again from the records' JSON alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.measure.paired import PairedTest
from harness.records import store
from harness.report import findings

TOP = Path(__file__).parents[2]
FILE = TOP / "docs" / "findings.md"

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="a source tree without the records")


def table(title: str) -> list[dict[str, str]]:
    """The rows of a section, by column."""
    section = FILE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"
    )
    return [dict(zip(head, row, strict=True)) for row in rows]


def records_of(cell: str) -> list[dict[str, Any]]:
    """Of the file that a cell links to."""
    file = FILE.parent / re.findall(r"\((.*?)\)", cell)[-1]
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_committed_page_is_made_of_the_committed_records() -> None:
    """Where this fails: nox -s docs, and commit what it wrote."""
    assert findings.page(store.read(TOP / "results")) == FILE.read_text()


def test_speed_ups_are_geometric_means_of_interleaved_rounds() -> None:
    rows = [row for row in table("Which method wins where") if row["task"].startswith("STS-B, cosine")]
    assert rows
    for row in rows:
        records = {record["label"]: record for record in records_of(row["record"]) if record["turns"]}
        label = {
            "ONNX Runtime INT8, dynamic": "onnxruntime_int8_dynamic",
            "ONNX Runtime INT8, static": "onnxruntime_int8",
        }
        mine, base = (
            next(part["rounds"] for part in records[name]["turns"] if part["batch_size"] == 32)
            for name in (label[row["ship"]], "torch_fp32")
        )
        logs = np.log([theirs["seconds"] / ours["seconds"] for ours, theirs in zip(mine, base, strict=True)])
        interval = stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs))
        value, low, high = np.exp([logs.mean(), *interval])
        assert row["speed-up"] == f"{value:.2f}× [{low:.2f}, {high:.2f}]"


def test_differences_are_of_the_stored_answers() -> None:
    """SQuAD's F1 is the mean of the examples' F1, so its difference is that of two means of stored columns."""
    rows = [row for row in table("Static against dynamic") if row["task"] == "SQuAD v1.1, minilm"]
    assert rows
    for row in rows:
        means = []
        for label in ("onnxruntime_int8", "onnxruntime_int8_dynamic"):
            record = next(record for record in records_of(row["record"]) if record["label"] == label)
            (part,) = record["accuracy"]
            means.append(part["metrics"]["f1"]["value"])
        assert row["points"].startswith(f"{means[0] - means[1]:+.2f} ")


def test_the_other_way_round() -> None:
    """Of a difference and of a ratio, value and interval; p stays."""
    assert findings._turned(PairedTest(2.0, 1.0, 4.0, 0.03)) == PairedTest(-2.0, -4.0, -1.0, 0.03)
    turned = findings._inverse(PairedTest(2.0, 1.6, 4.0, 0.03))
    assert (turned.value, turned.low, turned.high, turned.p) == pytest.approx((0.5, 0.25, 0.625, 0.03))


def test_what_is_significant_is_counted_by_its_direction() -> None:
    tests = [PairedTest(1.2, p=0.01), PairedTest(0.9, p=0.04), PairedTest(1.5, p=0.06), PairedTest(0.5)]
    assert findings._counts(tests, 1.0) == (1, 1)
