"""What a suite's page shows of the search that wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main
from harness.report.search_section import read_search, search_section
from tests.report.test_site import checkout

__all__ = ["checkout"]  # the fixture

QUERY, WIDE, NARROW = (
    "encoder.layer.0.attention.self.*",
    "encoder.layer.1.intermediate.dense",
    "encoder.layer.1.output.dense",
)


def candidate(way: str, kept: list[str], error: float, speed: float | None) -> dict[str, Any]:
    test = {"value": speed, "low": 1.9, "high": 2.1, "p": 0.01, "method": "t"} if speed else None
    difference = {"value": -0.5, "low": -1.0, "high": 0.0, "p": 0.1, "method": "t"}
    return {
        "scheme": way,
        "way": way,
        "kept": kept,
        "score": 81.5,
        "difference": difference,
        "error": error,
        "speed": test,
    }


BEST = candidate("smoothing <0.5>", [NARROW], 1e-3, 2.0)
FOUND: dict[str, Any] = {
    "suite": "squad",
    "model": "minilm",
    "task": "sts_b",
    "backend": "onnxruntime_int8",
    "baseline": "torch_fp32",
    "baseline_score": 82.0,
    "metric": "spearman",
    "examples": 512,
    "sensitivities": [[NARROW, 1e-2], [WIDE, 1.1e-3], [QUERY, 1e-4], ["pooler.dense", 1e-5]],
    "candidates": [candidate("as given", [], 1e-2, None), BEST],
    "best": BEST,
}


def test_parts_by_layer_in_decibels() -> None:
    """-10 log10 of the error; dark from half of the worst part's error on, pale below 3% of it."""
    section = search_section(FOUND)
    assert section.picture.layers == ("1", "2")
    rows = {kind: [(cell.text, cell.band) for cell in cells] for kind, cells in section.picture.rows}
    assert rows == {
        "feed-forward 2": [("", 0), ("20", 4)],
        "feed-forward 1": [("", 0), ("30", 2)],
        "query, key, value": [("40", 0), ("", 0)],
    }
    assert section.picture.others == (("pooler.dense", "50.0"),)
    assert section.kept == (NARROW,)
    assert [[value.text for value in row] for row in section.tried.rows] == [
        ["as given", "0", "81.50", "-0.50", "20.0", "", ""],
        ["smoothing <0.5>", "1", "81.50", "-0.50", "30.0", "2.00", "taken"],
    ]


def test_the_suites_page_has_it(checkout: Path) -> None:
    folder = checkout / "results" / "searches"
    folder.mkdir()
    (folder / "squad.json").write_text(json.dumps(FOUND))
    assert main(["site"]) == 0
    page = (checkout / "_site" / "suite-squad.html").read_text()
    assert "Which parts are sensitive" in page and 'class="q4">20<' in page and "smoothing &lt;0.5&gt;" in page
    (folder / "squad.json").write_text(json.dumps(FOUND | {"examples": 511}))
    assert main(["site", "--if-changed"]) == 0
    assert "511 training rows" in (checkout / "_site" / "suite-squad.html").read_text()
    (folder / "squad.json").unlink()
    assert main(["site", "--if-changed"]) == 0
    assert "Which parts are sensitive" not in (checkout / "_site" / "suite-squad.html").read_text()


@pytest.mark.parametrize(
    "text", ["{", "[]", json.dumps(FOUND | {"best": None}), json.dumps(FOUND | {"sensitivities": [1]})]
)
def test_a_file_that_is_no_search_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "searches").mkdir()
    (tmp_path / "searches" / "squad.json").write_text(text)
    told: list[str] = []
    assert read_search(tmp_path, "squad", False, told.append) is None
    assert len(told) == 1 and "repeat the search" in told[0]
    assert read_search(tmp_path, "other", False, told.append) is None and len(told) == 1
