"""What has run where: the committed pages are what the committed records say, and what a table cell counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.records import store
from harness.records.schema import Finding
from harness.records.scores import ScoreStore
from harness.report import coverage, machines
from harness.report.boards import make_boards
from tests.records.records import make_record, of_a_part
from tests.report.stored_scores import add, answers
from tests.suite.suite_mistakes import GOOD

TOP = Path(__file__).parents[2]
VNNI = {"cpu": "made up", "cores": 2, "gpus": [], "flags": ["avx2", "avx512f", "avx512_vnni"]}
NOISY = Finding(
    rule="disturbed", what="offline, real, batch 16: rounds differ", measured="30%", bound="25%", remedy="again"
)


@pytest.mark.skipif(not (TOP / "docs" / "coverage.md").is_file(), reason="a source tree without the records")
def test_the_committed_pages_are_made_of_the_committed_records(tmp_path: Path) -> None:
    """Where this fails: nox -s docs, and commit what it wrote."""
    for folder in ("results", "suites"):
        (tmp_path / folder).symlink_to(TOP / folder, target_is_directory=True)
    (tmp_path / "docs").mkdir()
    shutil.copy(TOP / "README.md", tmp_path)
    coverage.write(tmp_path)
    for name in ("docs/coverage.md", "README.md"):
        assert (tmp_path / name).read_text() == (TOP / name).read_text(), f"{name} is not what results/ says"
    assert len(coverage.MARKED.findall((TOP / "README.md").read_text())) == 1


@pytest.mark.parametrize(
    ("device", "flags", "kind"),
    [
        ("cpu", ["avx2", "avx512_vnni", "amx_int8"], "AMX"),
        ("cpu", ["avx2", "avx512_vnni"], "AVX-512 VNNI"),
        ("cpu", ["avx2", "avx512f"], "AVX2"),
        ("cpu", ["asimddp", "i8mm"], "Arm I8MM"),
        ("cpu", [], "other processor"),
        ("cuda", ["avx2"], "GPU"),
    ],
)
def test_the_kind_of_a_machine(device: str, flags: list[str], kind: str) -> None:
    assert machines.kind_of(make_record(device=device, machine={"cpu": "made up", "flags": flags})) == kind


def test_a_table_cell_counts_what_rules_leave_and_says_what_they_took(tmp_path: Path) -> None:
    records = [
        make_record(key="a", seed=1, machine=VNNI),
        make_record(key="b", seed=2, machine=VNNI, status="invalid", findings=[NOISY]),
        make_record(key="c", seed=3, machine=VNNI, speed=[], settings={"measure": {"rounds": 0}}),
        make_record(key="d", seed=4, machine=VNNI, status="invalid", findings=[NOISY.model_copy(update={"rule": "no_answer"})]),
        of_a_part(10, key="e", seed=5, machine=VNNI),
        make_record(key="f", backend="tensorrt_int8", machine=VNNI, status="skipped", reason="no | GPU", accuracy=[], speed=[]),
        make_record(key="g", task="glue/rte", device="cuda"),
    ]  # fmt: skip
    text = coverage.coverage(records, tmp_path)
    rows = [line for line in text.splitlines() if line.startswith("| `squad`")]
    assert rows == [
        "| `squad` | `glue/rte` | official |  |  |  | `torch_fp32` 1, 1, 0 |",
        "| `squad` | `squad_v1` | official |  | `tensorrt_int8` 0, 0, 0 (1 no &#124; GPU)"
        "<br>`torch_fp32` 3, 1, 0 (1 disturbed; 1 first seed only; 1 no_answer; 1 a part of the split) |  |  |",
    ]


def test_the_sample_is_left_out_and_what_is_missing_is_listed(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(GOOD)
    data = make_record().data
    assert data is not None
    sample = make_record(suite="one", data=data.model_copy(update={"kind": "sample"}))
    assert coverage.coverage([sample], tmp_path).splitlines()[-1] == "- `one`: all of it"
    text = coverage.coverage([make_record(suite="one", model="base")], tmp_path)
    assert "- `one`: squad_v1" in text
    assert "all of it" not in text


def test_the_result_names_the_fastest_cells_against_their_baseline() -> None:
    records = [
        make_record(key=name, label=name, qps=qps, baseline=name == "base", f1=f1)
        for name, qps, f1 in (("base", 10, 80), ("a", 40, 79), ("b", 30, 80), ("c", 20, 80.5), ("d", 5, 80))
    ]
    first, *lines = coverage.result(make_boards(records)[0]).splitlines()
    assert "`squad` on made up" in first
    assert "Baseline: `base`, f1 80.00" in first
    assert "`results/squad/run.jsonl`" in first
    # they were not measured together: no speed-up is claimed
    assert lines == ["- `a`: f1 -1.00 points", "- `b`: f1 +0.00 points", "- `c`: f1 +0.50 points"]


def test_an_interleaved_speed_up_stands_in_the_result_with_its_interval(tmp_path: Path) -> None:
    add(tmp_path, "base", answers(300, 20), baseline=True, turns=(1.0, 1.5, 0.9, 1.2))
    add(tmp_path, "fast", answers(300, 20), turns=(0.5, 0.76, 0.44, 0.61))
    read = list(store.read(tmp_path))
    (board,) = make_boards([record for _, record in read], ScoreStore(read))
    last = coverage.result(board).splitlines()[-1]
    assert last == "- `fast`: 2.00 [1.94, 2.05] times as fast as `base`, precise, accuracy +0.00 [-0.65, +0.65] points"


def test_no_result_without_a_baseline() -> None:
    with pytest.raises(ValueError, match="no cell is compared"):
        coverage.result(make_boards([make_record()])[0])
