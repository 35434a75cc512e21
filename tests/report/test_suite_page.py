"""What pages say beside their figures: missing cells, other weights, interleaved rounds, notes, and the family of a p."""

from __future__ import annotations

import base64
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from harness.machine import paths
from harness.measure.paired import holm
from harness.records import store
from harness.records.schema import Checkpoint, Finding, Flops, Quantization, Record
from harness.records.scores import ScoreStore
from harness.report.boards import make_boards
from harness.report.cell_page import cell_page
from harness.report.charts import LIGHT, Point, accuracy_against_qps, curve_labels
from harness.report.compare import compare_board, seed_spreads
from harness.report.site import render
from tests.records.records import make_record
from tests.report.stored_scores import add, answers, interleaved
from tests.report.test_site import SAMPLE, build

MADE: dict[str, Any] = {
    "key": "c", "recipe": "finetune", "source": "s", "architecture": {}, "parameters": 22_713_986, "weights_bytes": 4,
}  # fmt: skip
SUITE = """
title = "A suite"
tasks = ["squad_v1", "glue/rte"]
baseline = "torch_fp32"
seeds = [1, 2]
[models.tiny]
source = "hub:owner/name"
recipe = "load"
[shape]
max_length = 384
[[backends]]
name = "torch_fp32"
[[backends]]
name = "onnxruntime_fp32"
"""


def on(cpu: str) -> dict[str, Any]:
    return {"cpu": cpu, "cores": 2, "gpus": []}


def text_of(page: Path) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page.read_text()).split())


def test_a_page_lists_missing_cells_and_those_of_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sample records do not count on the page of real ones."""
    home = tmp_path / "home"
    (home / "suites").mkdir(parents=True)
    (home / "suites" / "squad.toml").write_text(SUITE)
    (home / "site").symlink_to(paths.site_sources())
    monkeypatch.setattr(paths, "checkout", lambda: home)
    site = build(
        tmp_path,
        make_record(key="a", machine=on("one")),
        make_record(key="b", label="onnxruntime_fp32", machine=on("one")),
        make_record(key="c", machine=on("two")),
        make_record(key="d", task="glue/rte", data=SAMPLE),
    )
    page = text_of(site / "suite-squad.html")
    assert "No results yet for: squad_v1 (seed 2), glue/rte (seeds 1, 2) " in page
    assert page.count("Not run on this machine") == 1
    assert "Not run on this machine: squad_v1 (seed 1): onnxruntime_fp32 of tiny." in page
    assert "No results yet" not in text_of(site / "suite-squad-sample.html")


OTHERS = "tiny (seed 1): the weights differ from those of the same name in a table above"


@pytest.mark.parametrize(
    ("lineages", "changes", "expected"),
    [
        (({"c": "one"}, {"c": "one"}), {}, False),
        (({"c": "one"}, {"p": "two", "c": "one"}), {"label": "int8"}, False),
        (({"c": "one"}, {"c": "two"}), {}, True),
        (({"c": "one"}, {"c": "two"}), {"label": "int8"}, True),
        (({"c": "one"}, {"d": "one"}), {}, True),
        (({"c": "one"}, {}), {}, True),
        (({}, {}), {}, True),
        (({"c": "one"}, {"c": "two"}), {"seed": 2}, False),
        (({"c": "one"}, {"c": "two"}), {"task": "glue/rte"}, False),
    ],
)
def test_other_weights_of_the_same_name_are_mentioned(
    tmp_path: Path, lineages: tuple[dict[str, str], ...], changes: dict[str, Any], expected: bool
) -> None:
    earlier, later = (Checkpoint(**MADE, lineage=lineage) for lineage in lineages)
    first = make_record(key="a", machine=on("a"), checkpoint=earlier)
    site = build(tmp_path, first, make_record(key="b", machine=on("b"), checkpoint=later, **changes))
    assert (OTHERS in text_of(site / "suite-squad.html")) == expected


def test_boards_of_one_task_are_sorted_newest_first() -> None:
    days = {"a": "2026-01-02", "b": "2026-01-03", "c": "2026-01-01"}
    records = [make_record(key=cpu, machine=on(cpu), finished=f"{day}T00:00:00+00:00") for cpu, day in days.items()]
    old = make_record(key="d", task="glue/rte", machine=on("b"), finished="2025-01-01T00:00:00+00:00")
    assert [(board.task, board.machine[0]) for board in make_boards([*records, old])] == [
        ("glue/rte", "b"),
        ("squad_v1", "b"),
        ("squad_v1", "a"),
        ("squad_v1", "c"),
    ]


def test_loaded_weights_have_no_training(tmp_path: Path) -> None:
    loaded = Checkpoint(**(MADE | {"recipe": "load"}))
    site = build(tmp_path, *(make_record(key=cpu, machine=on(cpu), checkpoint=loaded) for cpu in "ab"))
    assert "the weights differ from those of the same name" not in text_of(site / "suite-squad.html")


def test_a_model_from_uncommitted_changes_is_marked(tmp_path: Path) -> None:
    made = Checkpoint(**MADE, made_by={"dirty": True, "commit": "0123456789abcdef"})
    site = build(tmp_path, make_record(key="a", checkpoint=made))
    assert "model from uncommitted changes" in text_of(site / "suite-squad.html")
    assert " 22.71 " in text_of(site / "suite-squad.html")
    assert "made in a checkout with uncommitted changes (on commit 0123456789ab)" in text_of(site / "cell-run-a.html")


def test_the_texts_of_general_distillation_and_notes_on_ranges_are_shown(tmp_path: Path) -> None:
    corpus = {"label": "own text", "files": {"a.txt": "1"}, "bytes": 1234, "sequences": 56, "identity": "abc"}
    ranges = Quantization(tensors=3, quantized=2, share=2 / 3, worst={"one": 9.0}, notes=["still hold 98%"])
    student = Checkpoint(**MADE, corpus=corpus, quantization=ranges)

    def taught_on(text: str) -> dict[str, Any]:
        general = {"distill": {"stage": "general"}, "identity": {"corpus": text}, "parent": None}
        return {
            "limit": None,
            "checkpoint": {"recipe": "qat", "parent": {"distill": {"stage": "labels"}, "parent": general}},
        }

    student_record = make_record(key="b", label="b", checkpoint=student, scheme="q8bert", settings=taught_on("abc"))
    site = build(
        tmp_path, make_record(key="a"), student_record, make_record(key="c", model="other", settings=taught_on("def"))
    )
    page = text_of(site / "suite-squad.html")
    assert "General distillation of tiny read own text, 1 file, 1,234 bytes, 56 sequences (abc)." in page
    assert "General distillation of other read a text that its records only identify (def)." in page
    assert "The students read different texts" in page
    assert "Notes on ranges b (tiny, seed 1) : still hold 98%" in page


def test_a_cell_page_shows_its_interleaved_rounds(tmp_path: Path) -> None:
    turns = interleaved((1.0, 1.5), other_cpu_percent=1.0, steal_percent=2.0)
    worst = [*turns.rounds[:-1], turns.rounds[-1].model_copy(update={"steal_percent": 12.0})]
    site = build(tmp_path, make_record(key="a", turns=[turns.model_copy(update={"rounds": worst})]))
    shown = text_of(site / "cell-run-a.html").partition("The interleaved ratios come from these")[2]
    round_ = turns.rounds[0]
    assert f"real 16 2 {round_.batches} {round_.passes} {2 * round_.samples} 1.0, 1.0 7.0, 12.0" in shown


@pytest.mark.parametrize(
    ("what", "speeds", "marks"),
    [
        ("offline, real lengths, batch 16: rounds differ", ["1 speed, in part invalid"], 1),
        ("too few rounds", ["1 speed invalid"], 4),
    ],
)
def test_the_index_counts_speeds_separately_and_a_cell_marks_its_figures(
    tmp_path: Path, what: str, speeds: list[str], marks: int
) -> None:
    found = Finding(rule="disturbed", what=what, measured="40%", bound="25%", remedy="")
    site = build(
        tmp_path,
        make_record(key="a"),
        make_record(key="b", label="b", status="invalid", reason=what, findings=[found]),
        make_record(key="c", label="c", speed=[], simulated=True),
        make_record(key="d", label="d", status="skipped", reason="no GPU", accuracy=[], speed=[]),
    )
    badges = re.findall(r'<span class="badge [a-z]*">([^<]*)</span>', (site / "index.html").read_text())
    assert badges[:5] == ["3 accuracy", "1 speed", *speeds, "1 not timed", "1 skipped"]
    rows = re.findall(
        r'<th scope="row">(?:single_<wbr>stream|offline)</th>.*?</tr>', (site / "cell-run-b.html").read_text(), re.S
    )
    shown = [row for row in rows if "tokens" in row]
    assert sum("invalid" in row for row in shown) == marks and len(shown) == 4


def test_p_is_corrected_where_it_says_so(tmp_path: Path) -> None:
    """Three cells against one baseline, with differences and ratios of p near 0.01 to 0.1."""
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=(10.0, 11.0), turns=(1.0, 1.5, 0.9, 1.2))
    for name, wrong, seconds in (
        ("a", 27, (0.9, 1.3, 0.85, 1.05)),
        ("b", 28, (0.8, 1.4, 0.8, 0.9)),
        ("c", 26, (0.95, 1.2, 0.8, 1.2)),
    ):
        add(tmp_path, name, answers(300, wrong), qps=(10.0, 11.0), turns=seconds)
    found = list(store.read(tmp_path))
    records = {record.key: record for _, record in found}
    comparisons = compare_board(list(records.values()), "validation", ScoreStore(found))
    (board,) = make_boards(list(records.values()), ScoreStore(found))
    place = {column.name: number for number, column in enumerate(board.columns)}
    notes = {row.record.key: {name: row.values[at].note for name, at in place.items()} for row in board.rows}
    compared = {key: comparisons[records[key].record_id] for key in "abc"}
    raw = [compared[key].differences["accuracy"].p for key in "abc"]
    for key, before, after in zip("abc", raw, holm(raw), strict=True):
        assert before is not None and after is not None
        assert (
            notes[key]["difference"] == f"Holm p = {after:.3f}" or notes[key]["difference"] == f"Holm p = {after:.2f}"
        )
        (comparison,) = cell_page(records[key], [board], set()).comparisons
        assert comparison.differences is not None
        assert comparison.differences.rows[0][2].text in (f"p = {before:.3f}", f"p = {before:.2f}", "p < 0.001")
    assert any(after != before for before, after in zip(raw, holm(raw), strict=True))
    load = ("interleaved", "real", 16, "samples/s")
    speed = [compared[key].ratios[load].p for key in "abc"]
    for key, before, after in zip("abc", speed, holm(speed), strict=True):
        assert before is not None and after is not None
        words = f"p = {after:.3f}" if after < 0.1 else f"p = {after:.2f}"
        assert notes[key]["speed-up"].startswith(f"batch 16; Holm {words}, interleaved; ")
        (comparison,) = cell_page(records[key], [board], set()).comparisons
        assert comparison.ratios is not None
        shown = {tuple(value.text for value in row[:4]): row[5].text for row in comparison.ratios.rows}
        assert shown["interleaved", "real", "16", "samples/s"] == f"{words}, interleaved"
    assert any(after != before for before, after in zip(speed, holm(speed), strict=True))


def test_seeds_are_sorted_and_deviations_are_of_values_and_of_differences() -> None:
    """A baseline that varies with the seed, and a cell that follows it with a variation of its own."""
    base, own = {44: 70.0, 42: 80.0, 43: 75.0}, {44: -1.0, 42: 0.5, 43: 0.0}
    records: list[Record] = []
    for seed, value in base.items():
        records.append(make_record(key=f"b{seed}", seed=seed, f1=value, baseline=True))
        records.append(make_record(key=f"i{seed}", seed=seed, f1=value + own[seed], label="int8"))
    lines = {
        spread.label: spread
        for spread in seed_spreads(records, "validation", compare_board(records, "validation", ScoreStore()))
    }
    assert lines["int8"].seeds == (42, 43, 44)
    assert lines["int8"].points == pytest.approx((-1.0, 0.0, 0.5))
    assert lines["int8"].points_deviation == pytest.approx(statistics.stdev(own.values()))
    assert lines["int8"].deviation == pytest.approx(statistics.stdev(base[seed] + own[seed] for seed in base))


def test_a_backend_has_one_colour_in_all_charts_of_a_page() -> None:
    """Whatever other points, left-out rows or models the page has."""
    alone = accuracy_against_qps([Point("b", 20.0, 19.0, 21.0, 79.0, 78.0, 80.0)], "f1", ["a", "b"])
    svg = base64.b64decode(alone["light"].partition(",")[2]).decode()
    assert LIGHT.series[1] in svg and LIGHT.series[0] not in svg
    first = make_boards([make_record(key="a", machine=on("a")), make_record(key="b", model="big", machine=on("a"))])
    other = make_boards(
        [make_record(key="c", machine=on("b")), make_record(key="d", label="x", speed=[], machine=on("b"))]
    )
    assert curve_labels([*first, *other]) == {
        ("big", "torch_fp32", "cpu", 1): "big torch_fp32",
        ("tiny", "torch_fp32", "cpu", 1): "tiny torch_fp32",
    }
    assert curve_labels(other) == {("tiny", "torch_fp32", "cpu", 1): "torch_fp32"}


def test_a_cell_that_ran_something_else_has_no_speed_up_over_its_engine(tmp_path: Path) -> None:
    wrong = Finding(rule="wrong_provider", what="w", measured="CPU", bound="GPU", remedy="r")
    for name, backend, int8, more in (
        ("plain", "onnxruntime_fp32", 0.0, {}),
        ("int8", "onnxruntime_int8", 0.9, {"status": "invalid", "reason": "w", "findings": [wrong]}),
    ):
        flops = Flops(sequence_length=384, total=10, encoder=9, head=1, int8_share=int8, cross_check="equal")
        changes: dict[str, Any] = {"backend": backend, "flops": flops, **more}
        add(tmp_path, name, answers(300, 20), qps=(10.0, 11.0), turns=(1.0, 1.1), **changes)
    read = list(store.read(tmp_path))
    (board,) = make_boards([record for _, record in read], ScoreStore(read))
    place = [column.name for column in board.columns].index("same engine")
    assert {row.record.key: row.values[place].text for row in board.rows} == {"plain": "", "int8": ""}
    assert render(tmp_path, tmp_path / "site").is_file()
