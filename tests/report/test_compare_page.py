"""Every two methods of a leaderboard: the product's own tests, counts that a reader can make by hand."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from harness.records import store
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report.boards import latest, make_boards
from harness.report.compare_page import compare_page
from harness.report.leaderboards import Leaderboard, leaderboards
from harness.report.method_pairs import Pairs, method_pairs
from harness.report.pairs import pair_up
from harness.report.site import render
from tests.report.stored_scores import add, answers
from tests.report.test_history import timed_run
from tests.report.test_leaderboards import VNNI, timed

PAGE = "compare-glue-rte-tiny-avx-512-vnni.html"


def three(results: Path) -> None:
    """A baseline with 100 of 1,000 wrong; two methods with the first 130 and with 30 others wrong."""
    timed(results, "a", "torch_fp32", 1.0, 100, baseline=True)
    timed(results, "b", "onnxruntime_int8", 2.5, 130)
    correct = answers(1000, 30, start=500)
    add(results, "c", correct, qps=(20.0,) * 4, label="openvino_int8", backend="openvino_int8", machine=VNNI)


def compared(results: Path) -> tuple[Leaderboard, Pairs, ScoreStore]:
    read = list(store.read(results))
    stored = ScoreStore(read)
    boards = make_boards(latest(record for _, record in read), stored)
    (board,) = next(iter(leaderboards(boards).values()))
    return board, method_pairs(board, stored), stored


def test_pairs_are_those_of_quantboard_compare_and_of_scipy(tmp_path: Path) -> None:
    three(tmp_path)
    board, found, stored = compared(tmp_path)
    names = [entry.record.label for entry in board.entries]
    records = [entry.record for entry in board.entries]
    assert found.examples == 1000 and len(found.pairs) == 3
    for pair in found.pairs:
        (other,) = pair_up(records, names[pair.mine], names[pair.theirs], [], stored)
        assert pair.points == other.differences["accuracy"]
    by_names = {(names[pair.mine], names[pair.theirs]): pair for pair in found.pairs}
    int8 = by_names["onnxruntime_int8", "torch_fp32"]
    assert int8.points.value == pytest.approx(-3.0) and int8.same is None
    assert int8.points.p == pytest.approx(binomtest(0, 30).pvalue)
    rounds = [record.turns[0].rounds for record in (board.entries[0].record, board.entries[-1].record)]
    logs = [math.log(b.seconds / a.seconds) for a, b in zip(*rounds, strict=True)]
    assert int8.speed and int8.speed.p == pytest.approx(ttest_1samp(logs, 0).pvalue)
    assert int8.speed.value == pytest.approx(math.exp(np.mean(logs)))
    assert by_names["onnxruntime_int8", "openvino_int8"].speed is None  # never ran the same batches


def test_who_is_right_where_is_counted_over_all_methods(tmp_path: Path) -> None:
    three(tmp_path)
    board, found, _ = compared(tmp_path)
    place = {entry.record.label: at for at, entry in enumerate(board.entries)}

    def word(**right: int) -> str:
        letters = [""] * 3
        for label, value in right.items():
            letters[place[label]] = str(value)
        return "".join(letters)

    assert found.right == {
        word(torch_fp32=0, onnxruntime_int8=0, openvino_int8=1): 100,
        word(torch_fp32=1, onnxruntime_int8=0, openvino_int8=1): 30,
        word(torch_fp32=1, onnxruntime_int8=1, openvino_int8=0): 30,
        word(torch_fp32=1, onnxruntime_int8=1, openvino_int8=1): 840,
    }


def test_the_page_shows_the_pick_first_and_its_files_hold_every_pair(tmp_path: Path) -> None:
    three(tmp_path / "results")
    site = render(tmp_path / "results", tmp_path / "site").parent
    text = (site / PAGE).read_text()
    data: dict[str, Any] = json.loads(text.split('id="compared">')[1].split("</script>")[0])
    names = [method["name"] for method in data["methods"]]
    assert names[data["chosen"][0]] == "openvino_int8"  # loses nothing; int8 keeps 96.7%
    assert all(len(method["figures"]) == len(data["figures"]) for method in data["methods"])
    with (site / PAGE.replace(".html", ".csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and {row["examples"] for row in rows} == {"1000"}
    task = (site / PAGE.replace("compare-", "task-")).read_text()
    assert f'href="{PAGE}#onnxruntime_int8,openvino_int8"' in task and f'class="btn" href="{PAGE}"' in task
    assert re.search(r"<summary>Every pair", text)


def test_names_in_scripts_cannot_end_them(tmp_path: Path) -> None:
    timed(tmp_path, "a", "torch_fp32", 1.0, 100, baseline=True)
    timed(tmp_path, "b", "onnxruntime_int8", 2.5, 130, label="</script><b>")
    board, found, _ = compared(tmp_path)
    page = compare_page(board, found)
    assert "</script" not in page.data and json.loads(page.data)["methods"]
    assert "%3C%2Fscript%3E" in board.compare_link(board.entries)


def test_the_speed_up_of_one_at_a_time_is_of_the_rounds_with_the_baseline() -> None:
    """The newest committed run of SQuAD, whose rounds have batches of one and of sixteen."""
    records = timed_run()
    (board,) = [one for group in leaderboards(make_boards(latest(records), ScoreStore())).values() for one in group]
    data = json.loads(compare_page(board, method_pairs(board, ScoreStore())).data)
    at = data["figures"].index("Speed-up, one at a time")

    def seconds(record: Record) -> list[float]:
        return [one.seconds for turns in record.turns if turns.batch_size == 1 for one in turns.rounds]

    base = seconds(next(record for record in records if record.baseline))
    for method in data["methods"]:
        (record,) = [record for record in records if record.label == method["name"]]
        ratios = [theirs / mine for mine, theirs in zip(seconds(record), base, strict=True)]
        assert method["figures"][at]["text"] == f"{statistics.geometric_mean(ratios):.2f}×"
