"""The suite file that `pick` writes: it is read back as it was meant, whatever the names are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import QuantboardError
from harness.suite.guess import Columns
from harness.suite.load import load_suite
from harness.suite.own import LEAST, MARK, SLICE, Own, set_aside, slug, write_rows, write_suite


def own(folder: Path) -> Own:
    return Own(
        name="tickets-mine",
        title='mine on "tickets".csv',
        task="tickets",
        model="mine",
        source=str(folder / "elsewhere" / "model"),
        max_length=128,
        columns=Columns("classification", 'my "text" \\ here', None, "töpic\x7f", ("yes, please", "no")),
        validation=folder / "tickets.csv",
        train=folder / "picks" / "tickets-mine" / "train.jsonl",
        backends=[{"name": "torch_fp32"}, {"name": "onnxruntime_int8", "scheme": "engine_int8"}],
    )


def test_it_is_a_suite_and_says_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "model").mkdir(parents=True)
    file = tmp_path / "picks" / "tickets-mine.toml"
    write_suite(own(tmp_path), file)
    suite = load_suite(str(file))
    declaration = suite.declaration("tickets")
    assert declaration is not None
    assert (declaration.text, declaration.label) == ('my "text" \\ here', "töpic\x7f")
    assert declaration.labels == ("yes, please", "no")
    assert declaration.data["validation"] == str(tmp_path / "tickets.csv")
    assert suite.baseline == "torch_fp32"
    assert (suite.folder / suite.models["mine"].source).resolve() == tmp_path / "elsewhere" / "model"
    write_suite(replace(own(tmp_path), rounds=3), file)
    assert load_suite(str(file)).measure.rounds == 3


def test_a_file_of_ones_own_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("title = 'by hand'\n")
    with pytest.raises(QuantboardError, match="give another --name"):
        write_suite(own(tmp_path), file)
    assert MARK not in file.read_text()


@pytest.mark.parametrize(("count", "aside"), [(2 * LEAST, LEAST), (100, 20), (640, SLICE), (5000, SLICE)])
def test_a_slice_is_set_aside_and_never_scored(count: int, aside: int) -> None:
    calibration, evaluation = set_aside(range(count))
    assert len(calibration) == aside
    assert sorted([*calibration, *evaluation]) == list(range(count))
    assert (calibration, evaluation) == set_aside(range(count))


def test_a_file_that_is_too_short_for_a_slice_is_refused() -> None:
    with pytest.raises(QuantboardError, match="give --train FILE"):
        set_aside(range(2 * LEAST - 1))


def test_rows_are_written_with_the_columns_that_are_read(tmp_path: Path) -> None:
    table = [{"text": 'a "b"\nc', "bad": 1, "good": 0, "more": "x"}]
    write_rows(tmp_path / "a.jsonl", table, Columns("multi_label", "text", None, None, ("bad", "good")))
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"text": 'a "b"\nc', "bad": 1, "good": 0}


@pytest.mark.parametrize(
    ("text", "name"),
    [("Tickets 2024 (final)", "tickets-2024-final"), ("../..", "mine"), ("Ünï", "n"), ("a" * 80, "a" * 28)],
)
def test_names_are_those_that_suites_may_have(text: str, name: str) -> None:
    assert slug(text) == name
