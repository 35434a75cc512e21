"""Old nights go, the newest and one a week stay; what stays is byte for byte the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main
from harness.records import store
from harness.records.thin import old_runs
from tests.records.records import make_record
from tests.report.stored_scores import add, answers


def nights(folder: Path, count: int) -> None:
    """A baseline and a row a night; the baseline's scores are shared, the row's are its own."""
    for number in range(count):
        day = f"2026-01-{1 + number:02}"
        parts: dict[str, Any] = {"run_id": f"run-{number:02}", "finished": f"{day}T01:00:00+00:00"}
        for label in ("base", "row"):
            record = add(folder / f"made-{label}-{number}", f"{label}{number}", answers(10, 1), **parts)
            name = "scores/shared.npz" if label == "base" else f"scores/{number}.npz"
            part = record.accuracy[0].model_copy(update={"scores_file": name})
            record = record.model_copy(update={"label": label, "accuracy": [part]})
            store.append(folder / "results" / f"run-{number:02}.jsonl", record)
            (folder / "results" / "scores").mkdir(exist_ok=True)
            (folder / "results" / name).write_bytes(b"scores")


def test_the_newest_and_the_first_of_a_week_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nights(tmp_path, 20)
    results = tmp_path / "results"
    before = {path.name: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert main(["thin", "--keep", "5", "--results", str(results)]) == 0
    assert {path.name: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before
    assert main(["thin", "--keep", "5", "--write", "--results", str(results)]) == 0
    # nights 15 to 19 are the newest; before, 1 January 2026 is a Thursday, then Mondays the 5th and the 12th
    kept = {0, 4, 11, 15, 16, 17, 18, 19}
    after = {path.name: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    wanted = {"shared.npz", *(f"run-{n:02}.jsonl" for n in kept), *(f"{n}.npz" for n in kept)}
    assert set(after) == wanted and all(before[name] == text for name, text in after.items())
    assert "12 old nights with 24 records and 12 files of scores: dropped" in capsys.readouterr().out


def test_a_cell_that_was_measured_seldom_keeps_its_runs() -> None:
    often = [
        make_record(key=f"a{n}", run_id=f"r{n}", record_id=f"a{n}", finished=f"2026-01-{6 + n:02}T00:00:00+00:00")
        for n in range(4)
    ]
    seldom = make_record(key="b", run_id="r1", record_id="b", label="seldom", finished="2026-01-07T00:00:00+00:00")
    assert old_runs(often, 1) == {"r1", "r2"}
    assert old_runs([*often, seldom], 1) == {"r2"}


def test_failed_nights_do_not_push_out_measured_ones() -> None:
    good = make_record(key="a", run_id="r0", record_id="a0", finished="2026-01-06T00:00:00+00:00")
    bad = [
        make_record(
            key="a",
            run_id=f"r{n}",
            record_id=f"a{n}",
            status="failed",
            accuracy=[],
            finished=f"2026-01-{6 + n:02}T00:00:00+00:00",
        )
        for n in range(1, 5)
    ]
    assert "r0" not in old_runs([good, *bad], 1)
