"""Records of older code are read, and every field of today's is described in docs/record.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from harness.errors import RecordError
from harness.records import store
from harness.records.schema import Record
from harness.report.boards import make_boards

HERE = Path(__file__).parent
FIELDS = HERE.parents[1] / "docs" / "record.md"


def old() -> dict[str, Any]:
    """What the first version wrote when it ran onnxruntime_int8 on the sample (rounds and placement cut short)."""
    record: dict[str, Any] = json.loads((HERE / "data" / "record_schema_1.json").read_text())
    return record


def test_a_record_of_the_first_schema_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text(json.dumps(old()) + "\n")
    ((_, record),) = store.read(tmp_path)
    assert holds(json.loads(record.model_dump_json()), old())
    (board,) = make_boards([record])
    assert board.rows[0].record.label == "onnxruntime_int8"


def holds(now: Any, then: Any) -> bool:
    """`now` holds everything that `then` does, unchanged, and perhaps more."""
    if isinstance(then, dict):
        return all(name in now and holds(now[name], value) for name, value in then.items())
    if isinstance(then, list):
        return len(now) == len(then) and all(map(holds, now, then))
    return bool(now == then)


def test_a_record_of_the_future_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text(json.dumps(old() | {"schema_version": 99}) + "\n")
    with pytest.raises(RecordError, match=r"line 1: .*schema"):
        list(store.read(tmp_path))


def parts(model: type[BaseModel]) -> dict[str, set[str]]:
    """Fields by class, of a part and all parts in it."""
    fields = {model.__name__: set(model.model_fields)}
    for field in model.model_fields.values():
        for kind in inside(field.annotation):
            fields |= parts(kind)
    return fields


def inside(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for argument in get_args(annotation) for kind in inside(argument)]


def described(text: str) -> dict[str, set[str]]:
    """Fields by class, as docs/record.md has them: the first column of the table below each `### Class: ...`."""
    fields = {}
    for section in re.split(r"^### ", text, flags=re.M)[1:]:
        rows = re.findall(r"^\| (`.*?) \|", section, flags=re.M)
        fields[section.split(":")[0]] = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    return fields


def test_every_field_of_a_record_is_described_and_nothing_else() -> None:
    known, documented = parts(Record), described(FIELDS.read_text())
    missing = [f"{kind}.{name}" for kind in known for name in sorted(known[kind] - documented.get(kind, set()))]
    unknown = [f"{kind}.{name}" for kind in documented for name in sorted(documented[kind] - known.get(kind, set()))]
    assert not missing, f"docs/record.md does not describe: {', '.join(missing)}"
    assert not unknown, f"docs/record.md describes fields that do not exist: {', '.join(unknown)}"


def test_a_field_without_a_description_would_be_noticed() -> None:
    text = FIELDS.read_text().replace("| `cross_check` |", "| |")
    assert "cross_check" not in described(text)["Flops"]
    assert "cross_check" in parts(Record)["Flops"]
