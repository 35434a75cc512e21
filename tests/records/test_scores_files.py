"""Scores files are on the disk before their record, and are believed only where they can be those of their record."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.artefacts import sha256_of
from harness.cli.main import main
from harness.errors import RecordError
from harness.records import store
from harness.records.schema import Record
from harness.records.scores import ScoreStore, copy_scores
from tests.records.records import make_record
from tests.report.stored_scores import add, answers

Columns = dict[str, np.ndarray[Any, Any]]


def with_nan(columns: Columns) -> None:
    columns["validation/correct"][3] = np.nan


def inverted(columns: Columns) -> None:
    columns["validation/correct"] = 1 - columns["validation/correct"]


def shorter(columns: Columns) -> None:
    columns["validation/correct"] = columns["validation/correct"][:-1]


def scalar(columns: Columns) -> None:
    columns["validation/correct"] = np.array(1.0)


def words(columns: Columns) -> None:
    columns["validation/correct"] = np.array(["right"] * len(columns["validation/id"]))


def huge(columns: Columns) -> None:
    """Zeros compress a thousand times."""
    columns["validation/correct"] = np.zeros((len(columns["validation/id"]), 100_000))


DAMAGES: list[tuple[Callable[[Columns], None], str]] = [
    (with_nan, "a value of 'correct' is not finite"),
    (inverted, "they give accuracy 30.0000, the record says 70.0000"),
    (shorter, "99 values in 'correct' for 100 examples"),
    (scalar, "no values in 'correct' for 100 examples"),
    (words, "accuracy cannot be computed"),
    (huge, "bytes for 100 examples"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_scores_that_cannot_be_those_of_the_record_are_told(
    tmp_path: Path, damage: Callable[[Columns], None], words: str
) -> None:
    record = add(tmp_path, "a", answers(100, 30))
    file = tmp_path / "scores" / "run-a.npz"
    with np.load(file) as stored:
        columns = {name: stored[name] for name in stored.files}
    damage(columns)
    np.savez_compressed(file, **columns)
    told: list[str] = []
    assert ScoreStore(store.read(tmp_path), told.append).scores(record, "validation") is None
    (line,) = told
    assert line.startswith(f"{file}: not the scores of its record: ")
    assert words in line
    with pytest.raises(RecordError, match="not the scores of its record"):
        ScoreStore(store.read(tmp_path)).scores(record, "validation")


def test_the_hash_in_the_record_is_that_of_its_scores(tmp_path: Path) -> None:
    record = add(tmp_path, "a", answers(100, 30))
    file = tmp_path / "scores" / "run-a.npz"
    part = record.accuracy[0].model_copy(update={"scores_sha256": sha256_of(file)})
    hashed = record.model_copy(update={"accuracy": [part]})
    stored = ScoreStore(store.read(tmp_path))
    assert stored.scores(hashed, "validation") is not None
    assert stored.fault(hashed, part, tmp_path / "hashes") == stored.fault(record, record.accuracy[0], tmp_path) == ""
    with np.load(file) as content:
        columns = {name: content[name] for name in content.files}
    columns["validation/id"] = columns["validation/id"][::-1]  # the same metric
    np.savez_compressed(file, **columns)
    assert stored.fault(hashed, part, tmp_path / "hashes") == "its hash is not the record's"
    with pytest.raises(RecordError, match="its hash is not the record's"):
        ScoreStore(store.read(tmp_path)).scores(hashed, "validation")
    file.unlink()
    assert stored.fault(hashed, part, tmp_path / "hashes") == "is missing"


def test_a_record_is_on_the_disk_after_its_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of fsync(2), and that each file had its content by then: what a power cut leaves is the beginning of this."""
    (tmp_path / "kept.npz").write_bytes(b"scores")
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        assert path.is_dir() or path.stat().st_size
        synced.append(path.relative_to(tmp_path).as_posix().partition(".npz")[0])
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    copy_scores(tmp_path / "kept.npz", tmp_path / "results" / "suite" / "scores" / "a.npz")
    store.append(tmp_path / "results" / "suite" / "run.jsonl", make_record())
    made = ["results/suite", "results", "."]
    assert sorted(synced[:3]) == sorted(made), "the names of new folders"
    assert synced[3:] == [
        "results/suite/scores/a",
        "results/suite/scores",
        "results/suite/run.jsonl",
        "results/suite",
    ]


def test_a_bad_line_costs_that_record_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(tmp_path / "one", "a", answers(100, 30))
    add(tmp_path / "one", "b", answers(100, 20))
    (tmp_path / "two.jsonl").write_text(
        '{"schema_version": 7}\nnot JSON\n' + make_record(key="c").model_dump_json() + "\n"
    )
    (tmp_path / "folder.jsonl").mkdir()
    told: list[str] = []
    assert [record.key for _, record in store.read(tmp_path, told.append)] == ["a", "b", "c"]
    assert [line.removeprefix(f"{tmp_path}/").partition("; ")[0].partition(" (")[0] for line in told] == [
        "folder.jsonl: not a file",
        told[1].removeprefix(f"{tmp_path}/").partition("; ")[0],
        "two.jsonl: line 2: not a JSON object",
    ]
    assert "two.jsonl: line 1: schema_version" in told[1]
    assert main(["compare", "a", "b", "--results", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err.count("left out: ") == 3
    assert "accuracy" in said.out


def test_broken_scores_cost_a_comparison_and_not_the_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("a", "b"):
        add(tmp_path / "results", key, answers(100, 30), baseline=key == "a")
    (tmp_path / "results" / "scores" / "run-b.npz").write_bytes(b"PK")
    assert main(["site", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "site")]) == 1
    assert "run-b.npz: not a scores file" in capsys.readouterr().err


def test_a_gate_takes_no_damaged_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would pass where it should have compared."""
    add(tmp_path, "a", answers(100, 30))
    (tmp_path / "b.jsonl").write_text("not JSON\n\n")
    assert main(["gate", "--against", str(tmp_path), "--results", str(tmp_path)]) == 2
    assert "b.jsonl: line 1: not a JSON object" in capsys.readouterr().err


def gone(file: Path) -> None:
    file.unlink()


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "header",
    ["{(", "  x\n y", "'''", "(" * 900, "{'descr': ',f8', 'fortran_order': False, 'shape': (5,), }", "x" * 9000],
)
def test_columns_with_damaged_headers_are_told(tmp_path: Path, header: str) -> None:
    """NumPy lets errors of Python's own parser through."""
    record = add(tmp_path, "a", answers(100, 30))
    file = tmp_path / (record.accuracy[0].scores_file or "")
    with np.load(file) as stored:
        columns = dict(stored)
    np.savez(file, **columns)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("validation/em.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode())
    told: list[str] = []
    assert ScoreStore([(tmp_path / "run.jsonl", record)], told.append).scores(record, "validation") is None
    assert len(told) == 1 and "not a scores file" in told[0]


@pytest.mark.parametrize("damage", [gone, flipped])
@pytest.mark.parametrize("hashed", [True, False])
def test_fault_finds(tmp_path: Path, damage: Callable[[Path], None], hashed: bool) -> None:
    record: Record = add(tmp_path, "a", answers(100, 30))
    file = tmp_path / "scores" / "run-a.npz"
    part = record.accuracy[0].model_copy(update={"scores_sha256": sha256_of(file) if hashed else None})
    record = record.model_copy(update={"accuracy": [part]})
    stored = ScoreStore(store.read(tmp_path))
    assert stored.fault(record, part, tmp_path / "hashes") == ""
    damage(file)
    assert stored.fault(record, part, tmp_path / "hashes")
