"""Rows of random weights: they have a speed and no accuracy, so no page and no command names one of them as a pick."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main
from harness.cli.run_lines import run_lines
from harness.errors import QuantboardError
from harness.records import store
from harness.records.schema import Checkpoint, Record
from harness.records.scores import ScoreStore
from harness.report.boards import Board, make_boards
from harness.report.coverage import coverage
from harness.report.gate import Limits, gate
from harness.report.index_page import IndexPage, index_page
from harness.report.leaderboards import leaderboards
from harness.report.pairs import pair_up, rows
from harness.report.standings import standing_of
from harness.report.task_rows import method_rows
from tests.records.records import make_record
from tests.report.stored_scores import add, answers, interleaved
from tests.report.test_site import build

RANDOM = Checkpoint(
    key="r",
    recipe="random",
    source="s",
    architecture={"num_hidden_layers": 12, "hidden_size": 768},
    parameters=1,
    weights_bytes=4,
    lineage={"r": "0"},
)
SLOW, FAST = (2.0, 2.02, 1.98, 2.01, 1.99), (1.0, 1.01, 0.99, 1.0, 1.0)
"""Seconds of the rounds; the second takes half as long."""


def speed_alone(label: str, seconds: tuple[float, ...], load: str = "real", **changes: Any) -> Record:
    speed = [part for part in make_record(qps=10 / seconds[0]).speed if part.load == load]
    turns = interleaved(seconds).model_copy(update={"load": load})
    fields: dict[str, Any] = {
        "label": label,
        "model": "shape",
        "suite": "speeds",
        "task": "glue/rte",
        "accuracy": [],
        "checkpoint": RANDOM,
        "speed": speed,
        "turns": [turns],
        "baseline": label == "torch_fp32",
    }
    return make_record(key=f"{label}-alone", backend=label, **(fields | changes))


def two(load: str = "real") -> list[Record]:
    return [speed_alone("torch_fp32", SLOW, load), speed_alone("onnxruntime_int8", FAST, load)]


def scored(folder: Path) -> None:
    """A model with accuracies, in the same folder."""
    for label, seconds, base in (("torch_fp32", SLOW, True), ("onnxruntime_fp32", FAST, False)):
        fields: dict[str, Any] = {"baseline": base, "qps": (10.0,) * 5, "turns": seconds, "backend": label}
        add(folder / "results", label, answers(300, 20), **fields)


def index_of(records: list[Record]) -> IndexPage:
    boards = make_boards(records)
    standings = [standing_of(board) for group in leaderboards(boards).values() for board in group]
    return index_page(standings, [], [], "")


@pytest.mark.parametrize("load", ["real", "fixed"])
def test_the_board_has_speeds_and_no_metric(load: str) -> None:
    """Also where full length is the only load: then that is what the table compares."""
    (board,) = make_boards(two(load))
    assert (board.primary, board.split, [row.record.label for row in board.rows]) == (
        "",
        "",
        ["onnxruntime_int8", "torch_fp32"],
    )
    names = [column.name for column in board.columns]
    assert not {"rank", "difference", "of baseline"} & set(names)
    assert names[0] == ("QPS, real lengths" if load == "real" else "QPS, fixed length")
    assert all(len(row.values) == len(names) for row in board.rows)
    assert board.rows[0].values[names.index("speed-up")].text == "2.00×"
    (group,) = leaderboards([board]).values()
    assert group[0].choose().ship is None and not group[0].is_contested and group[0].compare_page == ""
    fast, _ = method_rows(group[0], group[0].choose())
    assert (fast.speed.text, fast.kept.text, fast.metric.text, fast.verdict.text) == ("2.00×", "", "", "speed only")
    assert fast.bar is not None and fast.bar.low < fast.bar.value < fast.bar.high


def test_a_row_that_lost_its_accuracy_is_none_of_speed_alone(tmp_path: Path) -> None:
    """What tells is the recipe, also that of the weights that ranges were calibrated for."""
    trained = RANDOM.model_copy(update={"recipe": "finetune"})
    ptq = RANDOM.model_copy(update={"recipe": "ptq"})
    spec = {"recipe": "ptq", "parent": {"recipe": "random"}}
    lost = speed_alone("torch_bf16", SLOW, checkpoint=trained, task="glue/cola")
    calibrated = speed_alone("onnxruntime_int8", FAST, checkpoint=ptq)
    calibrated = calibrated.model_copy(update={"settings": calibrated.settings | {"checkpoint": spec}})
    assert (lost.speed_only, calibrated.speed_only) == (False, True)
    base = speed_alone("torch_fp32", SLOW)
    found = {board.task: board for board in make_boards([lost, calibrated, base])}
    assert len(found["glue/rte"].rows) == 2
    assert not found["glue/cola"].rows and found["glue/cola"].unmeasured == (lost,)
    for record in (lost, calibrated, base):
        store.append(tmp_path / "results" / "run.jsonl", record)
    site = build(tmp_path)
    assert "its record has no accuracy" in (site / "suite-speeds.html").read_text()


def test_a_suite_may_have_both_kinds(tmp_path: Path) -> None:
    """On boards of their own; an accuracy of the one is never compared with the other."""
    scored(tmp_path)
    read = list(store.read(tmp_path / "results"))
    records = [*(record for _, record in read), *(speed.model_copy(update={"suite": "squad"}) for speed in two())]
    boards = make_boards(records, ScoreStore(read))
    assert [(board.primary, {row.record.model for row in board.rows}) for board in boards] == [
        ("accuracy", {"tiny"}),
        ("", {"shape"}),
    ]


def test_a_skipped_cell_stands_with_the_others(tmp_path: Path) -> None:
    absent = speed_alone("tensorrt_int8", SLOW, status="skipped", reason="no GPU", checkpoint=None, speed=[], turns=[])
    (board,) = make_boards([*two(), absent])
    assert [record.label for record in board.unmeasured] == ["tensorrt_int8"]


def text_of(page: Path) -> str:
    return re.sub(r"<(style|script)>.*?</\1>", "", page.read_text(), flags=re.DOTALL)


def test_no_page_names_one_as_a_pick(tmp_path: Path) -> None:
    scored(tmp_path)
    pages = build(tmp_path, *two("fixed"))
    (task,) = pages.glob("task-*speed-only*.html")
    page = text_of(task)
    assert "RTE, speed only" in page and "Speed only: random weights have no accuracy." in page
    assert "12 layers of width 768, sequences of 384 tokens, batches of 16" in page
    assert "2.00×" in page and 'class="whisker"' in page
    for word in ("Ship this", "ship this", "fits", "Kept", "quantboard export", 'class="plot'):
        assert word not in page, word
    (data,) = pages.glob("task-*speed-only*.json")
    assert {row["verdict"] for row in json.loads(data.read_text())} == {"no accuracy to compare"}
    index = text_of(pages / "index.html")
    cards, _, below = index.partition('id="speed-only"')
    assert "shape" not in cards and task.name in below.partition('id="suites"')[0]
    assert "no accuracy to compare" not in index and "with random weights, no accuracy" in below
    row = text_of(pages / "cell-run-onnxruntime_int8-alone.html")
    assert task.name in row and "speed only" in row and "quantboard export" not in row
    assert "Speed only: random weights have no accuracy." in text_of(pages / "suite-speeds.html")
    assert "shape, speed only" in text_of(pages / "coverage.html")
    (real,) = pages.glob("task-glue-rte-tiny-*.html")
    assert "shape" not in text_of(real)
    assert not list(pages.glob("compare-*speed-only*")) and "speed only" not in text_of(pages / "compare.html")


def test_alone_they_give_the_index_no_headline() -> None:
    page = index_of(two())
    assert (page.headline, page.strip, page.cards) == (None, None, ())
    assert [(subject.title, subject.model) for subject in page.speed_only] == [("RTE, speed only", "shape")]


def test_coverage_counts_speeds_and_no_accuracy(tmp_path: Path) -> None:
    assert "`onnxruntime_int8` 0, 1, 1<br>`torch_fp32` 0, 1, 1" in coverage(two(), tmp_path)


def test_the_terminal_leaves_accuracy_out() -> None:
    lines = run_lines(two(), stored=ScoreStore())
    head = next(line for line in lines if "Speed-up" in line)
    assert "%" not in head and any("base" in line for line in lines)
    assert not any(re.search(r"\b(ship|fits|no \d)\b", line) for line in lines)
    assert any("Speed only: random weights have no accuracy." in line for line in lines)


def test_compare_compares_speed_alone() -> None:
    (pair,) = pair_up(two("fixed"), "onnxruntime_int8", "torch_fp32", [], ScoreStore())
    assert (pair.split, pair.differences) == ("", {})
    shown = {row[3]: row[6] for row in rows([pair])}
    assert shown["samples/s, interleaved, batch 16"].startswith("2.0")


def test_commands_say_what_they_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.checkpoints.export import find_checkpoint

    for record in two():
        store.append(tmp_path / "run.jsonl", record)
    assert main(["pick", "--from", str(tmp_path)]) == 2
    assert "random weights have no accuracy to pick by" in capsys.readouterr().err
    with pytest.raises(QuantboardError, match="has random weights, for speed alone"):
        find_checkpoint(two(), "shape/onnxruntime_int8", [], tmp_path)


def test_the_gate_judges_their_speed_alone() -> None:
    later = [
        record.model_copy(
            update={"record_id": f"later-{record.key}", "run_id": "later", "finished": "2026-01-02T00:00:00+00:00"}
        )
        for record in two()
    ]
    judged = gate(later, two(), ScoreStore(), Limits())
    assert not judged.worse and all(check.kind != "accuracy" for check in judged.checks)


def test_boards_of_trained_models_are_as_before() -> None:
    board: Board = make_boards([make_record()])[0]
    assert (board.primary, board.split, board.columns[0].name) == ("f1", "validation", "f1")
