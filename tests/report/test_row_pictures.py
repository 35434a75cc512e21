"""The pictures of a row's page, compared with figures that are computed here from records and answers."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.records import store
from harness.records.figure import Figure
from harness.records.schema import Accuracy, PlacementRecord, Record
from harness.records.scores import ScoreStore, write_scores
from harness.report.bars import parts
from harness.report.boards import latest, make_boards
from harness.report.cell_page import CellPage, cell_page
from harness.report.row_answer import RowAnswer
from harness.report.site import render
from harness.report.strips import Line, strips
from harness.report.tables import Badge
from tasks import Scores, Statistic
from tests.records.records import make_record
from tests.report.stored_scores import add, answers

Array = np.ndarray[Any, Any]

MINE, THEIRS = (0.5, 0.76, 0.44), (1.0, 1.5, 0.9)


def page_of(folder: Path, key: str) -> CellPage:
    read = list(store.read(folder))
    records, stored = latest(record for _, record in read), ScoreStore(read)
    record = next(record for record in records if record.key == key)
    return cell_page(record, make_boards(records, stored), set(), None, stored)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """300 answers, of which the baseline has the first 20 wrong, and the row 30 others besides 10 of these."""
    correct = np.ones(300)
    correct[10:50] = 0
    add(tmp_path, "fp32", answers(300, 20), baseline=True, turns=THEIRS, qps=(50.0, 51.0))
    add(tmp_path, "int8", correct, turns=MINE, qps=(100.0, 103.0))
    return tmp_path


def test_every_round_stands_at_its_ratio(two: Path) -> None:
    speed = page_of(two, "int8").pictures.speed
    assert speed is not None and speed.ratios is not None and speed.ratios_title == "Times torch_fp32"[:6] + speed.base
    (strip,) = speed.ratios.rows
    ratios = [theirs / mine for mine, theirs in zip(MINE, THEIRS, strict=True)]
    assert [dot.title for dot in strip.dots] == [f"round {n + 1}: {ratio:.3f}×" for n, ratio in enumerate(ratios)]
    assert strip.text == f"{statistics.geometric_mean(ratios):.2f}×"
    heights = [dot.y for dot in strip.dots]
    assert heights == sorted(heights)
    one, two_times = (next(x for x, text, _ in speed.ratios.ticks if text == name) for name in ("1×", "2×"))
    for dot, ratio in zip(strip.dots, ratios, strict=True):
        assert dot.x == pytest.approx(one + (ratio - 1) * (two_times - one), abs=0.2)
    assert strip.rules == ((one, "zero"),)
    assert strip.low is not None and strip.high is not None and strip.low < strip.dots[0].x < strip.high


def test_a_baseline_has_its_own_rounds(two: Path) -> None:
    page = page_of(two, "fp32")
    assert page.pictures.answers == () and page.comparisons == ()
    speed = page.pictures.speed
    assert (
        speed is not None and speed.ratios is not None and (speed.base, speed.ratios_title) == ("", "Samples a second")
    )
    assert [dot.title for dot in speed.ratios.rows[0].dots] == ["round 1: 50.00 a second", "round 2: 51.00 a second"]


def test_the_answers_that_changed_are_counted(two: Path) -> None:
    (picture,) = page_of(two, "int8").pictures.answers
    assert picture.changes is not None and picture.unknown == ""
    assert picture.changes.words == "250 right in both, 10 wrong in both, 10 gained, 30 lost"
    assert [(part.kind, part.title) for part in picture.changes.changed] == [("up", "10 gained"), ("down", "30 lost")]
    assert [part.width for part in picture.changes.whole] == [83.33, 3.33, 13.33]
    (strip,) = picture.differences.rows if picture.differences else ()
    assert strip.text == "−6.67"
    assert [kind for _, kind in strip.rules] == ["zero", "limit"] and strip.rules[1][0] < strip.rules[0][0]
    assert picture.words[0].startswith("Accuracy 86.67 against 93.33: p ")


def test_without_scores_the_page_says_so(two: Path) -> None:
    (two / "scores" / "run-fp32.npz").unlink()
    (picture,) = page_of(two, "int8").pictures.answers
    assert picture.changes is None and picture.unknown.endswith("per-example scores are not kept for both.")


def scored(folder: Path, key: str, predicted: Array, **changes: Any) -> Record:
    """A record of a regression with its scores."""
    label = np.arange(len(predicted)) / len(predicted)
    columns = {"id": np.arange(len(predicted)).astype(str), "label": label, "predicted": predicted}
    value = 100 * float(np.corrcoef(predicted, label)[0, 1])
    scores = Scores({}, columns, {"pearson": Statistic("pearson", ("predicted", "label"))}, None)
    write_scores(folder / f"scores/run-{key}.npz", {"validation": scores})
    part = Accuracy(
        split="validation",
        metrics={"pearson": Figure(value=value)},
        primary="pearson",
        examples=len(predicted),
        examples_of_split=len(predicted),
        whole=True,
        padding="longest",
        batch_formation="b",
        forward_seconds=1.0,
        tokens=1,
        scores_file=f"scores/run-{key}.npz",
    )
    record = make_record(key=key, label=key, accuracy=[part], task="glue/stsb", **changes)
    store.append(folder / "run.jsonl", record)
    return record


def test_scores_that_moved_are_a_histogram(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.random(500)
    moves = rng.normal(0.0, 0.02, 500)
    scored(tmp_path, "fp32", base, baseline=True)
    scored(tmp_path, "int8", base + moves)
    (picture,) = page_of(tmp_path, "int8").pictures.answers
    assert picture.changes is None and picture.shifts is not None
    half, most = np.median(np.abs(moves)), np.abs(moves).max()
    assert picture.shifts.words.startswith(
        f"Half of the 500 scores moved by less than {half:.3g}, the furthest by {most:.3g}."
    )
    counts = [int(title.rpartition(": ")[2].replace(",", "")) for *_, title in picture.shifts.bars]
    assert sum(counts) == 500 and max(bar[3] for bar in picture.shifts.bars) == picture.shifts.height
    x, *_ = max(picture.shifts.bars, key=lambda bar: bar[3])
    assert abs(x - 50) < 15


def test_articles_stand_at_their_mean_change(tmp_path: Path) -> None:
    groups = np.repeat(np.arange(6), 50)
    correct, base = np.ones(300), np.ones(300)
    correct[:20] = 0  # article 0: 40 points less
    base[50:60] = 0  # article 1: 20 points more
    add(tmp_path, "fp32", base, baseline=True, groups=groups)
    add(tmp_path, "int8", correct, groups=groups)
    (picture,) = page_of(tmp_path, "int8").pictures.answers
    assert picture.articles is not None and picture.articles.words == "1 of 6 lose, 1 gain"
    titles = [dot.title for dot in picture.articles.dots]
    assert titles == ["−40.00 points, 50 examples", *["+0.00 points, 50 examples"] * 4, "+20.00 points, 50 examples"]
    places = {(dot.x, dot.y) for dot in picture.articles.dots}
    assert len(places) == 6 and [dot.kind for dot in picture.articles.dots] == ["down", *["same"] * 4, "up"]


def test_operators_are_counted_and_the_rest_is_one_line(tmp_path: Path) -> None:
    kinds = {f"Op{number}": 12 - number for number in range(10)}
    detail = [[f"n{place}", name, "jit_f32"] for name, count in kinds.items() for place in range(count)]
    placement = PlacementRecord(
        claimed="CPU", nodes={"CPU f32": 60, "CPU u8": 15}, int8_macs=1, total_macs=2, detail=detail, notes=["a note"]
    )
    store.append(tmp_path / "run.jsonl", make_record(key="a", placement=placement))
    picture = page_of(tmp_path, "a").pictures.placement
    assert picture is not None and picture.operators is not None
    assert [(strip.label, strip.text) for strip in picture.operators.rows] == [
        *((name, str(count)) for name, count in list(kinds.items())[:8]),
        ("2 other kinds", "7"),
    ]
    assert picture.words == ("75 nodes: 60 CPU f32, 15 CPU u8.", "A note.")
    assert [part.width for part in picture.nodes] == [80.0, 20.0]
    assert [part.title for part in picture.products] == ["50% INT8", "50% float"]


def test_a_strip_has_a_scale_that_holds_all_figures() -> None:
    found = strips([Line("a", "1", value=1.0, low=-40.0, high=1.5), Line("b", "2", value=2.0)], "interval", "×")
    assert found is not None
    assert found.rows[0].low == 0.0 and 0 < (found.rows[0].x or 0) < (found.rows[1].x or 0) <= 100  # cut off
    assert strips([Line("a", "")], "interval") is None
    single = strips([Line("a", "0", value=0.0)], "interval")
    assert single is not None and single.rows[0].x is not None


def test_a_bar_names_what_has_room() -> None:
    found = parts([(90, "same", "90 right"), (9, "up", "9 gained"), (0, "down", "0 lost"), (1, "down", "1 lost")])
    assert [(part.x, part.width, part.text) for part in found] == [
        (0.0, 90.0, "90 right"),
        (90.0, 9.0, "9"),
        (99.0, 1.0, ""),
    ]


COMMITTED = Path(__file__).parents[2] / "results"


@pytest.mark.slow
def test_rounds_and_answers_of_committed_rows_are_what_records_hold(tmp_path: Path) -> None:
    """Read from the pages, and computed here from the JSON beside them and the NPZ files."""
    site = render(COMMITTED, tmp_path / "site").parent
    records = {path.stem: json.loads(path.read_text()) for path in site.glob("cell-*.json")}
    scores = {path.name: path for path in COMMITTED.glob("*/scores/*.npz")}
    checked = 0
    for stem, record in records.items():
        text = (site / f"{stem}.html").read_text()
        if "<h3>Times " not in text or record["task"] != "squad_v1" or not record.get("turns"):
            continue
        base = re.search(r'Its baseline is <a href="(cell-[^"]*)\.html"', text)
        assert base
        theirs = records[base[1]]
        largest = max(record["turns"], key=lambda turns: turns["batch_size"])
        other = next(turns for turns in theirs["turns"] if turns["batch_size"] == largest["batch_size"])
        by_round = {one["together"]: one["seconds"] for one in other["rounds"]}
        expected = [by_round[one["together"]] / one["seconds"] for one in largest["rounds"]]
        shown = re.findall(r"<title>round \d+: ([\d.]+)×</title>", text)
        assert shown[: len(expected)] == [f"{ratio:.3f}" for ratio in expected]
        a, b = (
            np.load(scores[one["accuracy"][0]["scores_file"].rpartition("/")[2]])["validation/f1"]
            for one in (record, theirs)
        )
        words = f"{int((a == b).sum()):,} as good in both, {int((a > b).sum()):,} better, {int((a < b).sum()):,} worse"
        assert words in text
        checked += 1
    assert checked >= 3


def test_a_wider_interval_at_the_top_is_explained(two: Path) -> None:
    read = list(store.read(two))
    records, stored = latest(record for _, record in read), ScoreStore(read)
    record, boards = next(record for record in records if record.key == "int8"), make_boards(records, stored)
    speed = page_of(two, "int8").pictures.speed
    assert speed is not None and speed.ratios is not None
    for interval, said in ((speed.ratios.rows[0].interval, False), ("1.00–9.00", True)):
        figures = (("2.00×", "PyTorch FP32's throughput", interval, ""),)
        answer = RowAnswer("t", "task.html", "where", Badge("", "v"), "how", figures)
        notices = cell_page(record, boards, set(), answer, stored).notices
        assert any("how runs on this machine differ" in notice for notice in notices) == said
