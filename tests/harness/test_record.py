"""Records are appended whole, survive a kill, and are refused when they are not what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness import record
from harness.errors import RecordError
from harness.record import Figure, Record
from tests.harness.records import make_record


def test_what_is_appended_is_read_back_unrounded(tmp_path: Path) -> None:
    file = tmp_path / "suite" / "run.jsonl"
    first, second = make_record(key="a", f1=100 / 3), make_record(key="b")
    record.append(file, first)
    record.append(file, second)
    assert [entry for _, entry in record.read(tmp_path)] == [first, second]
    assert json.loads(file.read_text().splitlines()[0])["accuracy"][0]["metrics"]["f1"]["value"] == 100 / 3


def test_a_line_cut_short_by_a_kill_loses_itself_alone(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    whole = make_record(key="a")
    record.append(file, whole)
    with file.open("a") as out:
        out.write(whole.model_dump_json()[:200])
    record.append(file, make_record(key="b"))
    assert [entry.key for _, entry in record.read(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("line", ["not json", '{"schema_version": 99}', '{"schema_version": 1, "key": "a"}', "[]"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "run.jsonl"
    record.append(file, make_record())
    with file.open("a") as out:
        out.write(line + "\n")
    with pytest.raises(RecordError, match=r"run\.jsonl: line 2: "):
        list(record.read(tmp_path))


def test_a_figure_is_a_finite_number() -> None:
    with pytest.raises(ValidationError):
        Figure(value=float("nan"))
    with pytest.raises(ValidationError):
        Record.model_validate_json(make_record().model_dump_json().replace('"status":"ok"', '"status":"fine"'))


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write the record"):
        record.append(tmp_path / "file" / "run.jsonl", make_record())
