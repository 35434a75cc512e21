"""docs/reproduce.md: hours and commands of the committed runs."""

from __future__ import annotations

import importlib.util
import json
from datetime import datetime
from pathlib import Path

import pytest

from harness.records import store
from harness.report import reproduce

TOP = Path(__file__).parents[2]
FILE = TOP / "docs" / "reproduce.md"

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="a source tree without the records")


def test_the_committed_page_is_made_of_the_committed_records() -> None:
    """Where this fails: nox -s docs, and commit what it wrote."""
    assert reproduce.page(store.read(TOP / "results")) == FILE.read_text()


def test_hours_are_from_the_names_of_runs_to_their_last_record() -> None:
    """Computed again from the JSON of a suite that trains nothing."""
    hours = 0.0
    for file in (TOP / "results" / "minilm_sts").glob("*.jsonl"):
        ends = [datetime.fromisoformat(json.loads(line)["finished"]) for line in file.read_text().splitlines()]
        hours += (max(ends) - datetime.fromisoformat(file.name.partition("-")[0])).total_seconds() / 3600
    row = next(line for line in FILE.read_text().splitlines() if line.startswith("| `minilm_sts` | AVX2 |"))
    assert [cell.strip() for cell in row.split("|")][5:7] == [f"{hours:.1f}", "0.0"]


def test_every_committed_suite_is_repeated() -> None:
    spec = importlib.util.spec_from_file_location("noxfile_of_the_test", TOP / "noxfile.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    committed = {folder.name for folder in (TOP / "results").iterdir() if any(folder.glob("*.jsonl"))}
    assert committed <= set(module.REPRODUCED)
    assert all((TOP / "suites" / f"{name}.toml").is_file() for name in module.REPRODUCED)
