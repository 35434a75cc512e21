"""Methods of all suites on one leaderboard, and the picks that the index names: on records whose right answer is known by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from harness.measure.nights import Spread
from harness.records.schema import Checkpoint, Record
from harness.records.scores import ScoreStore
from harness.report.boards import latest, make_boards
from harness.report.index_page import Card, IndexPage, index_page
from harness.report.leaderboards import UNKNOWN, Leaderboard, leaderboards
from harness.report.machines import machines
from harness.report.names import name_of
from harness.report.pages import not_measured, suite_summaries
from harness.report.plots import Scale, frontier
from harness.report.standings import standing_of
from tests.records.records import make_record
from tests.report.stored_scores import add, answers
from tests.report.test_pick import ALL
from tests.report.test_site import SAMPLE, build

VNNI: dict[str, Any] = {"cpu": "made up", "cores": 2, "gpus": [], "flags": ["avx2", "avx512_vnni"]}
AVX2: dict[str, Any] = {"cpu": "made up", "cores": 2, "gpus": [], "flags": ["avx2"]}
SKIPPED: dict[str, Any] = {"status": "skipped", "accuracy": [], "speed": []}
ROUNDS = (1.0, 1.1, 0.9, 1.05)
"""Seconds of the baseline's interleaved rounds."""


def timed(folder: Path, key: str, backend: str, times: float, wrong: int, **changes: Any) -> Record:
    """A cell that is `times` as fast as the baseline in every round, give or take half a percent, and has `wrong` of 1,000
    answers wrong."""
    shift = sum(key.encode()) % 4
    noise = ((1.005, 0.995, 1.0, 1.002) * 2)[shift : shift + 4] if times > 1 else (1.0,) * 4
    turns = tuple(second * part / times for second, part in zip(ROUNDS, noise, strict=True))
    fields: dict[str, Any] = {"label": backend, "backend": backend, "machine": VNNI, "turns": turns}
    return add(folder, key, answers(1000, wrong), **({"qps": (10.0 * times,) * 4} | fields | changes))


def found(folder: Path, between: Spread = UNKNOWN) -> list[Leaderboard]:
    from harness.records import store

    read = list(store.read(folder))
    boards = make_boards(latest(record for _, record in read), ScoreStore(read))
    return [board for group in leaderboards(boards, lambda machine: between).values() for board in group]


def index_of(records: list[Record], stored: ScoreStore | None = None) -> IndexPage:
    boards = make_boards(records, stored)
    standings, suites = (
        [standing_of(board) for group in leaderboards(boards).values() for board in group],
        list(suite_summaries(records, boards)),
    )
    return index_page(
        standings, suites, not_measured(records), max((record.finished[:10] for record in records), default="")
    )


def cards(folder: Path) -> tuple[Card, ...]:
    from harness.records import store

    read = list(store.read(folder))
    return index_of(latest(record for _, record in read), ScoreStore(read)).cards


def test_intervals_of_several_runs_include_how_runs_differ(tmp_path: Path) -> None:
    """By hand: half-widths of logarithms are added as squares; Student's t of 10 degrees of freedom is 2.228."""
    timed(tmp_path, "a", "torch_fp32", 1.0, 100, baseline=True)
    timed(tmp_path, "b", "onnxruntime_fp32", 1.3, 100)
    (alone,) = found(tmp_path, Spread(0.02**2, 10))
    (unknown,) = found(tmp_path)
    assert [method.speed_up for method in alone.methods] == [method.speed_up for method in unknown.methods]
    timed(tmp_path, "d", "torch_fp32", 1.0, 200, baseline=True, suite="other")
    timed(tmp_path, "f", "onnxruntime_int8_dynamic", 1.99, 200, suite="other")
    (wide,) = found(tmp_path, Spread(0.02**2, 10))
    (narrow,) = found(tmp_path)
    for mine, theirs in zip(wide.methods[:2], narrow.methods[:2], strict=True):
        assert mine.speed_up and theirs.speed_up and mine.speed_up.high and theirs.speed_up.high
        assert mine.speed_up.value == theirs.speed_up.value
        own, both = (math.log((ratio.high or 0) / ratio.value) for ratio in (theirs.speed_up, mine.speed_up))
        assert both**2 == pytest.approx(own**2 + (2.2281 * 0.02) ** 2, rel=1e-4)
    baseline = wide.methods[-1].speed_up
    assert baseline and (baseline.low, baseline.high) == (1.0, 1.0)


def test_a_backend_on_two_devices_is_two_methods(tmp_path: Path) -> None:
    """They are no seeds of one, whose median would be neither's speed."""
    for device, times in (("cpu", 2.0), ("cuda", 4.0)):
        timed(tmp_path, f"a-{device}", "torch_fp32", 1.0, 100, baseline=True, device=device)
        timed(tmp_path, f"b-{device}", "torch_bf16", times, 100, device=device)
    (board,) = found(tmp_path)
    speeds = {method.name: round(method.speed_up.value, 1) for method in board.methods if method.speed_up}
    assert speeds == {
        "torch_bf16 (cuda)": 4.0,
        "torch_bf16 (cpu)": 2.0,
        "torch_fp32 (cpu)": 1.0,
        "torch_fp32 (cuda)": 1.0,
    }


def test_methods_of_two_suites_stand_together_each_against_its_own_baseline(tmp_path: Path) -> None:
    """Static stands in both: the suite counts that timed more engines."""
    timed(tmp_path, "a", "torch_fp32", 1.0, 100, baseline=True)
    timed(tmp_path, "b", "onnxruntime_fp32", 1.3, 100)
    timed(tmp_path, "g", "torch_bf16", 1.1, 100)
    timed(tmp_path, "c", "onnxruntime_int8", 2.0, 102)
    timed(tmp_path, "d", "torch_fp32", 1.0, 200, baseline=True, suite="other")
    timed(tmp_path, "e", "onnxruntime_int8", 1.8, 210, suite="other")
    timed(tmp_path, "f", "onnxruntime_int8_dynamic", 1.99, 200, suite="other")
    (board,) = found(tmp_path)
    methods = {entry.name.short: (entry.method, entry.foreign) for entry in board.entries}
    speeds = {name: round(method.speed_up.value, 2) for name, (method, _) in methods.items() if method.speed_up}
    assert speeds == {
        "ORT INT8 static": 2.0,
        "ORT INT8 dynamic": 1.99,
        "ORT FP32": 1.3,
        "PyTorch BF16": 1.1,
        "PyTorch FP32": 1.0,
    }
    assert [name for name, (_, foreign) in methods.items() if foreign] == ["ORT INT8 dynamic"]
    kept = {name: method.kept.value for name, (method, _) in methods.items() if method.kept}
    assert kept["ORT INT8 static"] == pytest.approx(898 / 900) and kept["ORT INT8 dynamic"] == 1.0
    assert board.p_of_speed(methods["ORT INT8 static"][0], methods["ORT INT8 dynamic"][0]) is None  # no test: a tie
    p = board.p_of_speed(methods["ORT INT8 static"][0], methods["ORT FP32"][0])
    assert p is not None and p < 0.001
    choice = board.choose()
    assert choice.ship is methods["ORT INT8 dynamic"][0]
    assert [method.name for method in choice.tied] == ["onnxruntime_int8"]


def test_the_index_names_the_pick_on_each_machine(tmp_path: Path) -> None:
    timed(tmp_path, "a", "torch_fp32", 1.0, 100, baseline=True)
    timed(tmp_path, "b", "onnxruntime_int8", 2.5, 101)
    timed(tmp_path, "c", "torch_fp32", 1.0, 100, baseline=True, machine=AVX2)
    timed(tmp_path, "d", "onnxruntime_fp32", 1.2, 100, machine=AVX2)
    timed(tmp_path, "e", "onnxruntime_int8", 1.5, 150, machine=AVX2)
    timed(tmp_path, "f", "torch_fp32", 1.0, 100, baseline=True, model="base")
    (other, card) = cards(tmp_path)
    assert (card.title, card.model, card.state) == ("RTE", "tiny", "official")
    vnni, avx2 = card.picks
    assert (vnni.machine, vnni.title, vnni.speed, vnni.kept) == ("VNNI", "ONNX Runtime INT8, static", "2.50×", "99.89%")
    assert vnni.speed_interval.startswith("2.4") and vnni.close_call is False
    assert (avx2.machine, avx2.short, avx2.speed, avx2.kept) == ("AVX2", "ORT FP32", "1.20×", "100.00%")
    assert (
        [mark.title.split(":")[0] for mark in card.spark.marks if mark.picked]
        == [
            "ONNX Runtime INT8, static, 2 cores, AVX-512 VNNI",
            "ONNX Runtime FP32, 2 cores, AVX2",
        ]
        if card.spark
        else False
    )
    assert other.model == "base"
    assert [pick.none for pick in other.picks] == ["no valid speed but the baseline's", "not run here"]


def test_a_cell_that_was_scored_and_not_timed_is_no_pick(tmp_path: Path) -> None:
    untimed: dict[str, Any] = {"speed": [], "machine": VNNI, "task": "glue/rte"}
    add(tmp_path, "a", answers(100, 1), baseline=True, **untimed)
    add(tmp_path, "b", answers(100, 1), backend="onnxruntime_int8", **untimed)
    ((pick,),) = (card.picks for card in cards(tmp_path))
    assert pick.none == "scored, not timed"


def test_sample_and_other_examples_have_cards_of_their_own() -> None:
    records = [make_record(key="a", baseline=True), make_record(key="b", baseline=True, data=SAMPLE)]
    page = index_of(records)
    assert [(card.state, card.sample) for card in page.cards] == [("official", False), ("sample", True)]
    assert page.headline is None


def test_the_index_names_backends_that_no_cell_could_run() -> None:
    skipped = make_record(key="a", backend="engine_int8", **SKIPPED)
    records = [skipped, make_record(key="b")]
    assert index_of(records).not_measured == ("engine_int8",)
    records.append(make_record(key="c", backend="engine_int8", label="elsewhere"))
    assert index_of(records).not_measured == ()
    assert index_of([]).suites == ()


def test_the_index_has_no_prose_before_its_first_figure(tmp_path: Path) -> None:
    site = build(tmp_path, make_record(key="a", baseline=True), make_record(key="b", backend="onnxruntime_int8"))
    before = (site / "index.html").read_text().partition("<main")[2].partition('class="card')[0]
    assert "<p" not in before


def test_links_between_pages_lead_somewhere(tmp_path: Path) -> None:
    site = build(tmp_path, make_record(key="a"), make_record(key="b", data=SAMPLE))
    for page in site.glob("*.html"):
        for target in re.findall(r'href="([^"]+)"', page.read_text()):
            name, _, place = target.partition("#")
            linked = site / (name or page.name)
            assert linked.is_file(), f"{page.name} links to {target}"
            assert not place or f'id="{place}"' in linked.read_text(), f"{page.name} links to {target}"


def test_machines_are_told_apart(tmp_path: Path) -> None:
    gpu = {**AVX2, "gpus": [{"name": "H200"}]}
    hosts = [AVX2, gpu, VNNI, {**AVX2, "cpu": "another"}, {"cpu": "made up", "cores": 8, "gpus": []}]
    named = list(machines([make_record(key=str(at), machine=host) for at, host in enumerate(hosts)]).values())
    assert [machine.title for machine in named] == [
        "H200",
        "2 cores, AVX-512 VNNI",
        "2 cores, AVX2",
        "2 cores, AVX2, another",
        "8 cores, made up",
    ]
    assert [machine.short for machine in named] == ["GPU", "VNNI", "AVX2", "AVX2", "CPU"]
    assert len({machine.slug for machine in named}) == 5
    assert [machine.place for machine in named] == [0, 1, 2, 3, 4]


MADE: dict[str, Any] = {"key": "c", "source": "s", "architecture": {}, "parameters": 1, "weights_bytes": 4}


@pytest.mark.parametrize(
    ("backend", "changes", "title"),
    [
        ("onnxruntime_fp32", {}, "ONNX Runtime FP32"),
        ("onnxruntime_int8", {"scheme": "engine_int8"}, "ONNX Runtime INT8, static"),
        ("onnxruntime_int8", {"scheme": "q8bert"}, "ONNX Runtime INT8, static, q8bert"),
        ("onnxruntime_int8_dynamic", {}, "ONNX Runtime INT8, dynamic"),
        ("onnxruntime_int8", {"model": "tiny-qat", "recipe": "qat"}, "ONNX Runtime INT8, trained (QAT)"),
        ("torch_fp32", {"model": "tiny-qat", "recipe": "qat"}, "PyTorch FP32, QAT weights"),
        ("onnxruntime_int8", {"model": "small", "recipe": "ptq"}, "ONNX Runtime INT8, static, of small"),
        ("of_another_time", {}, "of_another_time"),
    ],
)
def test_methods_have_plain_names(backend: str, changes: dict[str, Any], title: str) -> None:
    recipe = changes.pop("recipe", "finetune")
    made = Checkpoint(**MADE, recipe=recipe)
    assert name_of(make_record(backend=backend, checkpoint=made, **changes), "tiny", baseline=False).title == title


def test_the_frontier_holds_what_nothing_beats_in_both_figures() -> None:
    assert [method.name for method in frontier(ALL)] == ["fp32", "dynamic", "static", "trained"]
    scale = Scale(0, 100, 0, 100, 0.0, 4.0, 0.9, 1.0)
    assert scale.path(ALL[:2]) == "M0 0V0H25V5H67.5V100"
    assert (scale.x(9.0), scale.y(0.2)) == (100, 100)  # at the edge


def test_a_pick_from_uncommitted_changes_is_marked_and_no_headline(tmp_path: Path) -> None:
    timed(tmp_path, "a", "torch_fp32", 1.0, 100, baseline=True)
    timed(tmp_path, "b", "onnxruntime_int8", 2.0, 101, dirty=True)
    page = index_page([standing_of(board) for board in found(tmp_path)], [], [], "")
    assert page.headline is None and page.has_uncommitted
    assert [pick.uncommitted for card in page.cards for pick in card.picks] == [True]

    timed(tmp_path, "c", "onnxruntime_int8_dynamic", 3.0, 101)
    page = index_page([standing_of(board) for board in found(tmp_path)], [], [], "")
    assert page.headline and page.headline.speed == "3.00×" and not page.has_uncommitted


def test_the_strip_shows_the_method_with_the_most_tasks(tmp_path: Path) -> None:
    for number, task in enumerate(("glue/rte", "glue/mrpc", "glue/qnli", "glue/sst2")):
        timed(tmp_path, f"a{number}", "torch_fp32", 1.0, 100, baseline=True, task=task)
        timed(tmp_path, f"b{number}", "onnxruntime_int8", 2.0, 100 + 9 * number, task=task)
        if number:
            timed(tmp_path, f"c{number}", "onnxruntime_int8_dynamic", 3.0, 101, task=task)
    strip = index_page([standing_of(board) for board in found(tmp_path)], [], [], "").strip
    assert strip and strip.method == "ONNX Runtime INT8, static" and len(strip.tasks) == 4
    kept = {cost.title: (cost.kept, cost.below) for cost in strip.tasks}
    assert kept == {
        "RTE": ("100.00%", False),
        "MRPC": ("99.00%", False),
        "QNLI": ("98.00%", True),
        "SST-2": ("97.00%", True),
    }
    assert all(0 <= cost.low <= cost.at <= cost.high <= strip.width for cost in strip.tasks)
    assert strip.limit < strip.whole < strip.width


def test_three_tasks_have_no_strip(tmp_path: Path) -> None:
    for number, task in enumerate(("glue/rte", "glue/mrpc", "glue/qnli")):
        timed(tmp_path, f"a{number}", "torch_fp32", 1.0, 100, baseline=True, task=task)
        timed(tmp_path, f"b{number}", "onnxruntime_int8", 2.0, 101, task=task)
    assert index_page([standing_of(board) for board in found(tmp_path)], [], [], "").strip is None
