"""The page of a task, decided without a template: the pick and its reasons, what the script needs, and the files."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from harness.report.frames import board_frame, to_csv, to_json, to_parquet
from harness.report.leaderboards import Leaderboard
from harness.report.pick import Limits
from harness.report.task_page import TaskPage, task_page
from harness.report.task_script import ties
from tests.report.test_leaderboards import AVX2, found, timed
from tests.report.test_site import build


def page_of(board: Leaderboard) -> TaskPage:
    return task_page(board, [board], set())


@pytest.fixture
def board(tmp_path: Path) -> Leaderboard:
    """Dynamic is a hair slower than static and loses less; QAT is fastest and loses most."""
    timed(tmp_path, "a", "torch_fp32", 1.0, 100, baseline=True)
    timed(tmp_path, "b", "onnxruntime_fp32", 1.3, 100)
    timed(tmp_path, "c", "onnxruntime_int8", 2.0, 108, artifact_bytes=50 * 2**20)
    timed(tmp_path, "d", "onnxruntime_int8_dynamic", 1.998, 103, artifact_bytes=60 * 2**20)
    timed(tmp_path, "e", "openvino_int8", 3.0, 150, artifact_bytes=40 * 2**20)
    timed(tmp_path, "f", "fake_quant_w8a8", 1.0, 300, simulated=True, speed=[])
    (found_board,) = found(tmp_path)
    return found_board


def test_the_card_names_the_pick_with_its_reason_and_ties(board: Leaderboard) -> None:
    answer = page_of(board).answer
    assert answer.title == "ONNX Runtime INT8, dynamic"
    assert answer.why == "Tied for fastest of 4 methods within your limits, and keeps the most accuracy of these."
    assert [figure for figure, *_ in answer.figures] == ["2.00×", "99.67%", "60 MiB"]
    assert answer.tied == "ORT INT8 static (2.00×, 99.11%)"
    assert answer.close == ""
    assert re.fullmatch(r"quantboard export run-d --format onnx out/", answer.command)


def test_a_close_call_names_what_surely_keeps(tmp_path: Path) -> None:
    timed(tmp_path, "a", "torch_fp32", 1.0, 100, baseline=True)
    timed(tmp_path, "b", "onnxruntime_fp32", 1.3, 100)
    timed(tmp_path, "c", "onnxruntime_int8", 2.0, 108)
    (board,) = found(tmp_path)
    answer = page_of(board).answer
    assert answer.title == "ONNX Runtime INT8, static"
    assert answer.close.startswith("may keep only 98.") and answer.close.endswith("; ORT FP32 surely keeps enough")


def test_rows_say_why_they_do_not_fit_and_simulations_are_apart(board: Leaderboard) -> None:
    page = page_of(board)
    verdicts = {row.title: row.verdict.text for row in page.rows}
    assert verdicts == {
        "OpenVINO INT8, static": "keeps 94.4%",
        "ONNX Runtime INT8, static": "fits, close call",
        "ONNX Runtime INT8, dynamic": "ship this",
        "ONNX Runtime FP32": "fits",
        "PyTorch FP32": "baseline",
    }
    assert [item.kept.text for item in page.accuracy_only] == ["77.78"]
    assert page.show_size and not page.show_p90  # no row has a latency of one query


def test_the_ties_that_the_script_gets_are_the_rules_own(board: Leaderboard) -> None:
    names = [entry.name.short for entry in board.entries]
    assert names == ["OpenVINO INT8 static", "ORT INT8 static", "ORT INT8 dynamic", "ORT FP32", "PyTorch FP32"]
    assert ties(board) == [[], [2], [], [], []]


def test_the_scripts_data_cannot_end_its_element(tmp_path: Path) -> None:
    timed(tmp_path, "a", "torch_fp32", 1.0, 100, baseline=True, model="</script><b>")
    timed(tmp_path, "b", "onnxruntime_int8", 2.0, 100, model="</script><b>")
    (board,) = found(tmp_path)
    page = page_of(board)
    assert "<" not in page.data
    assert len(json.loads(page.data)["methods"]) == 2


def test_the_chart_shows_every_method_with_both_figures_and_no_label_upon_another(board: Leaderboard) -> None:
    for chart in page_of(board).charts:
        assert sorted(mark.place for mark in chart.marks) == [0, 1, 2, 3, 4]
        assert [mark.label for mark in chart.marks if mark.picked] == [
            "ORT INT8 dynamic"[4 * (chart.name == "narrow") :]
        ]
        boxes = [(m.label_x, m.label_y, m.label_x + 6.5 * len(m.label), m.label_y + 11) for m in chart.marks]
        for place, a in enumerate(boxes):
            assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[place + 1 :])
        for mark in chart.marks:
            assert chart.left <= mark.x <= chart.right and chart.top <= mark.y <= chart.bottom
            assert mark.x_low <= mark.x <= mark.x_high and mark.y_high <= mark.y <= mark.y_low
            assert mark.fits == (mark.y <= chart.limit)


def test_a_label_that_is_far_from_its_mark_is_led_to(tmp_path: Path) -> None:
    """Eight methods that are about as fast and as accurate."""
    timed(tmp_path, "00000000000000f0", "torch_fp32", 1.0, 100, baseline=True)
    for place in range(7):
        timed(
            tmp_path,
            f"00000000000000f{place + 1}",
            f"onnxruntime_int8 (scheme {place})",
            1.5 + place / 100,
            100 + place,
        )
    (board,) = found(tmp_path)
    wide = page_of(board).charts[0]
    assert len(wide.marks) == 8
    for mark in wide.marks:
        across = max(mark.label_x - mark.x, mark.x - mark.label_x - 7 * len(mark.label), 0)
        down = max(mark.label_y - 11 - mark.y, mark.y - mark.label_y, 0)
        if max(across, down) > 40:
            assert mark.leader.startswith(f"M{mark.x:.1f} {mark.y:.1f}L")
        if max(across, down) < 10:
            assert not mark.leader
    assert any(mark.leader for mark in wide.marks) and not all(mark.leader for mark in wide.marks)


def test_the_files_have_the_boards_figures(board: Leaderboard) -> None:
    frame = board_frame(board, board.choose(Limits()))
    rows = list(csv.DictReader(to_csv(frame).splitlines()))
    assert [(row["method"], row["verdict"]) for row in rows][1:3] == [
        ("onnxruntime_int8", "tied"),
        ("onnxruntime_int8_dynamic", "ship"),
    ]
    assert float(rows[1]["kept"]) == pytest.approx(892 / 900)
    as_json = json.loads(to_json(frame))
    assert [row["record"] for row in as_json] == [row["record"] for row in rows]
    assert as_json[1]["speed_up"] == pytest.approx(float(rows[1]["speed_up"]))
    table = parquet.read_table(pyarrow.BufferReader(to_parquet(frame)))
    assert table.column_names == list(frame) and table["speed_up"].to_pylist() == list(frame["speed_up"])


def test_where_nothing_was_timed_the_page_says_so(tmp_path: Path) -> None:
    untimed: dict[str, Any] = {"speed": [], "turns": (), "qps": ()}
    timed(tmp_path, "a", "torch_fp32", 1.0, 100, baseline=True, **untimed)
    (board,) = found(tmp_path)
    page = page_of(board)
    assert (page.answer.found, page.answer.title) == (False, "No method was timed here")
    assert page.charts == ()


def test_a_page_has_at_most_forty_words_before_its_first_figure_and_little_caveat(tmp_path: Path) -> None:
    for key, backend, times in (("a", "torch_fp32", 1.0), ("b", "onnxruntime_int8", 2.0)):
        timed(tmp_path / "results", key, backend, times, 100, baseline=key == "a")
        timed(tmp_path / "results", f"{key}2", backend, times, 100, baseline=key == "a", machine=AVX2)
    site = build(tmp_path)
    text = (site / "task-glue-rte-tiny-avx2.html").read_text()
    before = re.sub(r"<[^>]*>", " ", text.partition("<main")[2].partition('class="stats"')[0].partition(">")[2])
    assert len(before.split()) <= 40
    assert 'href="task-glue-rte-tiny-avx-512-vnni.html"' in text
    assert all((site / f"task-glue-rte-tiny-avx2.{form}").is_file() for form in ("csv", "json", "parquet"))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_a_cells_page_begins_with_what_it_is_and_whether_to_ship_it(tmp_path: Path) -> None:
    timed(tmp_path / "results", "a", "torch_fp32", 1.0, 100, baseline=True)
    timed(tmp_path / "results", "b", "onnxruntime_int8", 2.0, 101, qps=(20.0,) * 4)
    timed(tmp_path / "results", "c", "fake_quant_w8a8", 1.0, 101, simulated=True)
    site = build(tmp_path)
    text = " ".join(re.sub(r"<[^>]*>", " ", (site / "cell-run-b.html").read_text().partition("<main")[2]).split())
    assert "RTE with tiny, 2 cores, AVX-512 VNNI" in text
    assert "ONNX Runtime INT8, static" in text and "ship this" in text and "the fastest that keeps 99%" in text
    assert "2.00× PyTorch FP32's throughput" in text.replace("&#39;", "'")
    assert "99.89% of its accuracy kept" in text
    assert "card strip" not in (site / "cell-run-c.html").read_text()


def test_a_figure_over_seeds_is_called_so(tmp_path: Path) -> None:
    """The page and its table as CSV show the same of them, by the figures that a pick is made of."""
    for seed, wrong in ((1, 90), (2, 100), (3, 105)):
        timed(tmp_path / "results", f"a{seed}", "torch_fp32", 1.0, wrong, baseline=True, seed=seed)
        timed(tmp_path / "results", f"b{seed}", "onnxruntime_int8", 2.0, wrong + 1, seed=seed)
    site = build(tmp_path)
    for seed in (1, 2, 3):
        text = " ".join(re.sub(r"<[^>]*>", " ", (site / f"cell-run-b{seed}.html").read_text()).split())
        assert "89.90 accuracy, median of 3 seeds" in text
    lines = csv.DictReader(next(site.glob("task-*.csv")).read_text().splitlines())
    assert {line["method"]: line["score"] for line in lines} == {"onnxruntime_int8": "89.9", "torch_fp32": "90.0"}
