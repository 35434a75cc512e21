"""`quantboard pick` on stored records whose right answer is known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main
from harness.records.schema import Data, Finding
from tests.report.stored_scores import add, answers

SLOW = (2.0, 2.02, 1.98, 2.01, 1.99)
FAST, FASTER = (1.0, 1.01, 0.99, 1.0, 1.0), (0.67, 0.66, 0.67, 0.66, 0.67)
QPS = (10.0, 10.1, 9.9, 10.0, 10.05)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """FP32; an engine twice as fast with the same answers; one three times as fast that loses 8 of 280 right answers."""
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=QPS, turns=SLOW)
    add(tmp_path, "int8", answers(300, 20), qps=QPS, turns=FAST)
    add(tmp_path, "rough", answers(300, 28), qps=QPS, turns=FASTER)
    return tmp_path


def picked(results: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["pick", "--from", str(results), "--json", *options]) == 0
    (contest,) = json.loads(capsys.readouterr().out)
    return dict(contest)


def test_the_fastest_that_keeps_enough_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contest = picked(results, capsys)
    assert contest["pick"]["ship"]["name"] == "int8"
    assert contest["pick"]["ship"]["speed_up"]["value"] == pytest.approx(2.0, rel=0.01)
    assert contest["pick"]["ship"]["kept"]["value"] == 1.0
    rough = next(method for method in contest["methods"] if method["name"] == "rough")
    assert rough["kept"]["value"] == pytest.approx(272 / 280)
    assert [why for _, why in contest["pick"]["outside"]] == ["keeps 97.1%"]


def test_limits_change_the_answer(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert picked(results, capsys, "--keep", "0.97")["pick"]["ship"]["name"] == "rough"
    contest = picked(results, capsys, "--size-mib", "0.001")
    assert contest["pick"]["ship"] is None


def test_seeds_count_by_their_median_and_their_worst_interval(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, wrong in ((2, 20), (3, 21)):
        add(results, f"base-{seed}", answers(300, 20), label="fp32", baseline=True, seed=seed, qps=QPS, turns=SLOW)
        add(results, f"int8-{seed}", answers(300, wrong), label="int8", seed=seed, qps=QPS, turns=FAST)
    contest = picked(results, capsys)
    int8 = next(method for method in contest["methods"] if method["name"] == "int8")
    assert int8["kept"]["value"] == 1.0, "the median of 1, 1 and 279/280"
    assert int8["kept"]["low"] < 279 / 280


def test_the_terminal_shows_it_in_80_columns(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pick", "--from", str(results)]) == 0
    shown = capsys.readouterr().out
    assert "Ship int8: 2.00× fp32 [" in shown
    assert max(map(len, shown.splitlines())) <= 80
    verdict = {line.split()[0]: line.split()[-1] for line in shown.splitlines() if line.startswith("  ")}
    assert (verdict["int8"], verdict["fp32"], verdict["rough"]) == ("ship", "base", "4")
    assert "  4  rough: keeps 97.1%." in shown.splitlines()
    assert "without a range" not in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "glue/cola"], "no cell of this task and model on real data has a valid speed-up"),
        (["--model", "other"], "no cell of this task and model on real data has a valid speed-up"),
    ],
)
def test_nothing_to_pick_from_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["pick", "--from", str(results), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_no_pick_is_made_from_the_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = Data(kind="sample", label="sample", splits={})
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=QPS, turns=SLOW, data=sample)
    add(tmp_path, "int8", answers(300, 20), qps=QPS, turns=FAST, data=sample)
    assert main(["pick", "--from", str(tmp_path)]) == 2
    assert "on real data" in capsys.readouterr().err


def test_an_invalid_figure_ranks_nothing_and_interleaved_rounds_still_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without interleaved rounds the speed-up is of LoadGen's figures, which must be valid."""
    disturbed = Finding(rule="disturbed", what="all", measured="9%", bound="5%", remedy="wait")
    invalid: dict[str, Any] = {"qps": QPS, "status": "invalid", "findings": [disturbed]}
    alone, together = tmp_path / "alone", tmp_path / "together"
    add(alone, "fp32", answers(300, 20), baseline=True, qps=QPS)
    add(alone, "int8", answers(300, 20), **invalid)
    assert main(["pick", "--from", str(alone)]) == 2
    assert "valid speed-up" in capsys.readouterr().err
    add(together, "fp32", answers(300, 20), baseline=True, qps=QPS, turns=SLOW)
    add(together, "int8", answers(300, 20), turns=FAST, **invalid)
    assert main(["pick", "--from", str(together)]) == 0
    assert "Ship int8" in capsys.readouterr().out


def test_a_speed_up_that_could_not_be_tested_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=QPS[:1], turns=SLOW[:1])
    add(tmp_path, "int8", answers(300, 20), qps=QPS[:1], turns=FAST[:1])
    assert main(["pick", "--from", str(tmp_path)]) == 0
    assert "A speed-up without a range was not tested" in capsys.readouterr().out
