"""What each page shows, decided without a template: records in, plain values out."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.machine import paths
from harness.records import store
from harness.records.figure import Figure
from harness.records.schema import Checkpoint, Data, Finding, Quantization, Record, SplitData
from harness.records.scores import ScoreStore
from harness.records.speed_schema import ColdStart, Conditions, Range
from harness.report.board_section import BoardSection, board_section
from harness.report.boards import grouped, latest, make_boards, outlines_of
from harness.report.cell_page import CellPage, cell_page
from harness.report.macro_average import macro_averages
from harness.report.pages import with_uncommitted_ancestors
from harness.report.suite_page import Suite, SuitePage, board_contexts, suite_page
from harness.report.tables import Badge, Column, Table, Value
from tests.records.records import make_record, of_a_part
from tests.report.stored_scores import add, answers, interleaved
from tests.report.test_leaderboards import index_of
from tests.report.test_macro_average import METRICS, glue_record
from tests.report.test_site import SAMPLE
from tests.report.test_suite_page import MADE

SUBSET = Data(
    kind="raw",
    label="subset (5 of 10)",
    splits={"validation": SplitData(rows=5, official_rows=10, sha256="2", label="subset (5 of 10)")},
)
SKIPPED: dict[str, Any] = {"status": "skipped", "accuracy": [], "speed": [], "reason": "no GPU", "remedy": "add one"}
NOISY = Finding(
    rule="disturbed", what="offline, real lengths, batch 16: rounds differ", measured="40%", bound="25%", remedy="again"
)


def suite_of(*records: Record, name: str = "squad", sample: bool = False) -> SuitePage:
    boards = [board for board in make_boards(records) if (board.suite, board.sample) == (name, sample)]
    outlines = [
        outline
        for group in grouped(records)
        for outline in outlines_of(group)
        if (outline.place.suite, outline.place.sample) == (name, sample)
    ]
    suite = Suite(name, sample, tuple(record for record in records if record.suite == name), tuple(outlines))
    contexts = zip(boards, board_contexts(suite), strict=True)
    sections = [board_section(board, context, with_uncommitted_ancestors(records)) for board, context in contexts]
    return suite_page(suite, macro_averages(records), sections)


def board_of(*records: Record) -> BoardSection:
    board: BoardSection
    (board,) = suite_of(*records).boards
    return board


def cell_of(record: Record, *others: Record) -> CellPage:
    records = [record, *others]
    boards = [board for board in make_boards(records) if record in [row.record for row in board.rows]]
    return cell_page(record, boards, with_uncommitted_ancestors(records))


def column(table: Table | None, name: str) -> list[Value]:
    assert table is not None
    place = [column.name for column in table.columns].index(name)
    return [row[place] for row in table.rows]


def texts(table: Table | None, name: str) -> list[str]:
    return [value.text for value in column(table, name)]


def test_the_index_has_a_row_for_each_suite_and_kind_of_data() -> None:
    records = [
        make_record(key="a"),
        make_record(key="b", label="int8", status="invalid", reason="noisy", findings=[NOISY]),
        make_record(key="c", task="glue/rte", data=SUBSET, machine={"cpu": "other", "cores": 4, "gpus": []}),
        of_a_part(10, key="d", label="part", speed=[]),
        make_record(key="e", label="gpu", backend="engine_int8", **SKIPPED),
        make_record(key="f", data=SAMPLE),
    ]
    real, sample = index_of(records).suites
    assert (real.name, real.title, real.page, real.sample) == ("squad", "SQuAD", "suite-squad.html", False)
    assert real.tasks == "glue/rte, squad_v1"
    assert real.data == ("official: squad_v1", "subset (5 of 10): glue/rte")
    assert real.machines == "other, 4 cores, no GPU; made up, 2 cores, no GPU"
    assert real.counts == (
        Badge("ok", "3 accuracy"),
        Badge("warn", "1 accuracy on a part of the evaluation set"),
        Badge("ok", "2 speed"),
        Badge("warn", "1 speed, in part invalid"),
        Badge("", "1 not timed"),
        Badge("skipped", "1 skipped"),
    )
    assert (sample.page, sample.sample, sample.data) == ("suite-squad-sample.html", True, ("sample",))
    assert sample.counts == (Badge("ok", "1 accuracy"), Badge("ok", "1 speed"))


def test_a_suite_page_shows_a_board_with_its_rows_badges_and_findings() -> None:
    other = make_record(key="c", label="noisy", qps=10.0, status="invalid", reason="rounds differ", findings=[NOISY])
    page = suite_of(
        make_record(key="a", baseline=True, qps=30.0),
        make_record(key="b", label="int8", qps=40.0, f1=74.0, dirty=True, device="cuda"),
        other,
        make_record(key="d", label="gone", **SKIPPED),
    )
    assert (page.name, page.title, page.commands) == ("squad", "SQuAD", ("quantboard run squad",))
    (board,) = page.boards
    assert (board.task, board.split, board.data, board.limit) == ("squad_v1", "validation", "data: official", None)
    assert board.machine == "made up, 2 cores, no GPU"
    assert board.speed == "profile quick, 1 round, unverified by MLCommons"
    assert texts(board.table, "backend") == ["int8", "torch_fp32", "noisy"]  # fastest first
    assert [value.page for value in column(board.table, "backend")] == [
        "cell-run-b.html",
        "cell-run-a.html",
        "cell-run-c.html",
    ]
    assert [[badge.text for badge in value.badges] for value in column(board.table, "backend")] == [
        ["cuda", "uncommitted changes"],
        ["cpu"],
        ["speed in part invalid", "cpu"],
    ]
    assert texts(board.table, "f1") == ["74.00", "75.00", "75.00"]
    assert texts(board.table, "difference") == ["-1.00", "baseline", "+0.00"]
    assert [bool(value.invalid) for value in column(board.table, "QPS, real lengths")] == [False, False, True]
    (finding,) = board.findings
    assert (finding.label, finding.cell) == ("noisy", "tiny, seed 1")
    assert finding.text == f"{NOISY.what} (measured 40%, bound 25%). again"
    (unmeasured,) = board.unmeasured
    assert (unmeasured.label, unmeasured.text) == ("gone", "no GPU. Fix: add one")
    assert unmeasured.badge == Badge("skipped", "skipped")
    assert board.chart is not None and board.left_out == "noisy of tiny"
    assert board.chart.light != board.chart.dark
    assert (board.seeds, board.qat, board.lossy) == (None, None, ())


def test_a_board_without_a_measurement_has_no_table() -> None:
    board = board_of(make_record(key="a", **SKIPPED))
    assert (board.table, board.chart, board.speed, len(board.unmeasured)) == (None, None, "", 1)


def test_a_board_of_a_part_says_its_limit() -> None:
    board = board_of(of_a_part(100, key="a"))
    assert board.limit == 100
    assert board_of(make_record(key="a", data=SUBSET)).remarks[-1] == "validation: 5 rows, official 10"


def test_real_and_sample_records_have_pages_of_their_own() -> None:
    records = [make_record(key="a"), make_record(key="b", data=SAMPLE, command="quantboard run squad --data sample")]
    real, sample = suite_of(*records), suite_of(*records, sample=True)
    assert (real.sample, len(real.boards), real.commands) == (False, 1, ("quantboard run squad",))
    assert (sample.sample, len(sample.boards)) == (True, 1)
    assert sample.commands == ("quantboard run squad --data sample",)
    assert sample.boards[0].sample and not real.boards[0].sample


def test_the_spread_over_seeds_needs_three_for_a_deviation() -> None:
    def table(count: int) -> Table | None:
        values = (70.0, 76.0, 73.0)[:count]
        records = [make_record(key=str(seed), seed=seed, f1=value) for seed, value in enumerate(values, 1)]
        return board_of(*records).seeds

    (median,) = column(table(3), "f1, median")
    assert (median.text, median.low, median.high) == ("73.00", "70.00", "76.00")
    assert texts(table(3), "its standard deviation") == ["3.00"]
    assert texts(table(2), "its standard deviation") == ["two seeds: no claim"]
    assert table(1) is None


def test_a_row_below_its_bound_lists_the_four_worst_tensors() -> None:
    worst = {f"layer.{number}.output": 8.24 + number for number in range(6)}
    quantization = Quantization(tensors=203, quantized=171, share=171 / 203, worst=worst, notes=["ranges are old"])
    checkpoint = Checkpoint(**MADE, quantization=quantization)
    board = board_of(
        make_record(key="base", f1=80.0, baseline=True),
        make_record(key="good", f1=79.5, label="good", scheme="engine_int8", checkpoint=checkpoint),
        make_record(key="bad", f1=79.0, label="lossy", scheme="engine_int8", checkpoint=checkpoint),
    )
    (note,) = board.lossy
    assert (note.label, note.text) == ("lossy", "rounds 171 of 203 tensors")
    assert note.names == tuple((f"layer.{number}.output", f"{8.24 + number:.1f} dB") for number in range(4))
    assert [note.text for note in board.range_notes] == ["ranges are old"] * 2


def test_a_macro_average_is_a_table_with_a_column_for_each_task() -> None:
    records = [glue_record(task) for task in METRICS]
    (section,) = suite_of(*records, name="glue").averages
    assert section.title == "GLUE, macro average"
    assert "mrpc, qqp: accuracy and f1" in section.definition and "mnli: matched and mismatched" in section.definition
    assert [column.name for column in section.table.columns][:4] == ["backend", "model", "seed", "macro average"]
    assert texts(section.table, "cola") == ["50.00"]
    assert texts(section.table, "mnli") == ["81.00"]
    assert column(section.table, "macro average")[0].low
    assert suite_of(*records[:7], name="glue").averages == ()


SUITE = """
title = "A suite"
tasks = ["squad_v1"]
baseline = "torch_fp32"
seeds = [1, 2]
description = "What it is for."
[models.tiny]
source = "hub:owner/name"
recipe = "load"
[shape]
max_length = 384
[[backends]]
name = "torch_fp32"
[[references]]
system = "DGX"
source = "a paper"
task = "squad_v1"
notes = ["other hardware", "older"]
batch_size = 8
[references.metrics]
f1 = 90.5
"""


def test_a_suite_page_lists_missing_cells_and_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squad.toml").write_text(SUITE)
    monkeypatch.setattr(paths, "suites", lambda: tmp_path)
    page = suite_of(make_record(key="a"))
    assert page.description == "What it is for."
    assert page.missing == ("squad_v1 (seed 2)",)
    (reference,) = page.references
    assert (reference.system, reference.source, reference.notes) == ("DGX", "a paper", "other hardware; older")
    assert reference.facts == ("task: squad_v1", "batch size: 8")
    assert reference.figures == ("f1 90.5",)


def test_a_cell_page_shows_status_notices_and_every_field() -> None:
    made = Checkpoint(**MADE, made_by={"dirty": True, "commit": "0123456789abcdef"})
    page = cell_of(
        make_record(
            key="a",
            status="invalid",
            reason="rounds differ",
            remedy="run it again",
            findings=[NOISY],
            simulated=True,
            checkpoint=made,
            notes=["a note"],
            commit="fedcba9876543210",
            log_tail=["one", "two"],
        )
    )
    assert (page.label, page.cell) == ("torch_fp32", "tiny, squad_v1, seed 1")
    assert page.status == Badge("warn", "speed in part invalid", "rounds differ")
    assert (page.reason, page.remedy) == ("rounds differ", "run it again")
    assert dict(page.provenance)["Commit"] == "fedcba987654"
    assert page.log_tail == "one\ntwo"
    assert page.suite_page == "suite-squad.html"
    assert page.notices == (
        "A simulation: it shows what quantization costs in accuracy, and says nothing about speed.",
        "Its model was made in a checkout with uncommitted changes (on commit 0123456789ab).",
        "a note",
    )
    assert page.findings == (("disturbed", f"{NOISY.what} (measured 40%, bound 25%). again"),)
    assert [badge.kind for badge in page.tags] == ["warn", "", "warn"]
    assert page.record == "cell-run-a.json"
    assert page.comparisons == () and page.cold_start is None and page.quantization is None


def test_a_cell_whose_engine_ran_elsewhere_is_invalid_as_a_whole() -> None:
    elsewhere = Finding(rule="wrong_provider", what="w", measured="CPU", bound="GPU", remedy="r")
    assert cell_of(make_record(status="invalid", findings=[elsewhere])).status.text == "invalid"


def test_a_cell_page_shows_accuracy_with_its_interval() -> None:
    (section,) = cell_of(of_a_part(10, key="a")).accuracy
    assert section.examples == "10 of 1,000 examples (a part: never ranked with the whole)"
    assert section.batches == "sorted by length"
    f1, exact = column(section.table, "value")
    assert (f1.text, f1.low, f1.high) == ("75.00", "74.00", "76.00")
    assert (exact.text, exact.low) == ("65.00", "")


def test_a_cell_page_shows_speed_and_its_conditions() -> None:
    conditions = Conditions(
        began_seconds=0.0,
        ended_seconds=1.0,
        threads=2,
        affinity=[0, 1, 2],
        own_cpu_percent=90.0,
        other_cpu_percent=1.26,
        steal_percent=0.5,
        energy_source="not measured: no counter",
        cpu_mhz=Range(lowest=1000.0, mean=1500.0, highest=2000.4),
        cpu_mhz_source="sysfs",
    )
    record = make_record(key="a")
    assert cell_of(record).speed is not None
    watched = [
        part.model_copy(
            update={"rounds": [round_.model_copy(update={"conditions": conditions}) for round_ in part.rounds]}
        )
        for part in record.speed
    ]
    speed = cell_of(record.model_copy(update={"speed": watched})).speed
    assert speed is not None
    assert (speed.profile, speed.is_mlperf) == ("quick", False)
    assert (
        texts(speed.table, "load")
        == [
            "fixed, padded to 384 tokens",
            "real, 170 tokens on average",
        ]
        * 2
    )
    assert texts(speed.table, "samples/s") == ["50.00"] * 4
    assert texts(speed.table, "mean ms") == [""] * 4
    assert speed.remarks[-1] == "Timed: run"
    assert texts(speed.conditions, "other processes") == ["1.3"] * 4
    assert texts(speed.conditions, "clocks") == ["1000 to 2000"] * 4
    assert speed.conditions_remark == ("2 threads on 3 processors. Energy: . Clocks of the processor: sysfs.")
    unwatched = cell_of(record).speed
    assert unwatched is not None and unwatched.conditions is None
    assert cell_of(record.model_copy(update={"speed": []})).speed is None


def test_a_cell_page_shows_interleaved_rounds_and_the_cold_start() -> None:
    turns = interleaved((1.0, 1.5), other_cpu_percent=1.0, steal_percent=2.0)
    cold = ColdStart(
        process_seconds=Figure(value=1.0, low=0.5, high=1.5, method="t"),
        load_seconds=Figure(value=2.0),
        first_query_seconds=Figure(value=0.25),
    )
    page = cell_of(make_record(key="a", turns=[turns], cold_start=cold, build_seconds=None))
    assert page.interleaved is not None
    assert [value.text for value in page.interleaved.rows[0]] == [
        *("real", "16", "2", "2", "8", "64", "1.0, 1.0", "2.0, 2.0"),
    ]
    assert texts(page.cold_start, "time") == [
        *("1.00", "2.00", "0.25", "1.50", "nothing to build, or from the cache"),
    ]


def test_a_cell_page_compares_with_the_baseline_and_says_what_it_keeps(tmp_path: Path) -> None:
    add(tmp_path, "fp32", answers(300, 20), baseline=True, qps=(50.0, 50.4), turns=(1.0, 1.5, 0.9))
    add(tmp_path, "bad", answers(300, 40), qps=(100.0, 101.0), turns=(0.5, 0.76, 0.44))
    read = list(store.read(tmp_path))
    records = latest(record for _, record in read)
    boards = make_boards(records, ScoreStore(read))
    bad = next(record for record in records if record.key == "bad")
    (comparison,) = cell_page(bad, boards, set()).comparisons
    assert (comparison.title, comparison.to_engine) == ("Compared with its baseline, validation", False)
    assert (comparison.base_label, comparison.base_page) == ("fp32", "cell-run-fp32.html")
    assert comparison.kept.startswith("It keeps 92.86% [95%: ")
    assert "below 99%; the suite asks for 99%, MLPerf for 99% or 99.9%" in comparison.kept
    assert comparison.corrected == "Holm-corrected over its table: p < 0.001."
    assert (comparison.invalid, comparison.retrained, comparison.training_unknown) == ("", False, False)
    assert texts(comparison.differences, "difference") == ["-6.67"]
    scenarios = list(zip(texts(comparison.ratios, "scenario"), texts(comparison.ratios, "figure"), strict=True))
    assert scenarios[0] == ("interleaved", "samples/s") and ("offline", "qps") in scenarios
    base = next(record for record in records if record.key == "fp32")
    assert cell_page(base, boards, set()).comparisons == ()


@pytest.mark.parametrize(
    ("lineage", "retrained", "unknown"),
    [({"f": "new"}, False, False), ({"f": "old"}, True, False), ({}, False, True)],
)
def test_a_cell_page_says_why_accuracy_is_not_compared(lineage: dict[str, str], retrained: bool, unknown: bool) -> None:
    base = make_record(key="a", baseline=True, checkpoint=Checkpoint(**(MADE | {"key": "f"}), lineage={"f": "new"}))
    cell = make_record(key="b", label="int8", checkpoint=Checkpoint(**(MADE | {"key": "p"}), lineage=lineage))
    (comparison,) = cell_of(cell, base).comparisons
    assert (comparison.retrained, comparison.training_unknown) == (retrained, unknown)
    assert (comparison.differences is None) == (retrained or unknown)
    assert comparison.checkpoint == "p"


def test_pages_are_made_of_plain_values() -> None:
    """A template gets nothing that it could compute with: no record, comparison or figure."""
    records = [make_record(key="a", baseline=True), make_record(key="b", label="int8")]
    for page in (index_of(records), suite_of(*records), cell_of(*records)):
        assert set(_types(page)) <= {"str", "int", "float", "bool", "NoneType"}


def _types(value: Any) -> list[str]:
    if isinstance(value, tuple):
        return [name for part in value for name in _types(part)]
    if is_dataclass(value):
        return [name for field in fields(value) for name in _types(getattr(value, field.name))]
    return [type(value).__name__]


def test_a_table_pairs_values_with_their_columns() -> None:
    table = Table("t", (Column("a", kind="text"), Column("b")), ((Value("x"), Value("1", 1.0)),))
    assert [[(text, value.text) for text, value in row] for row in table.cells] == [
        [('class="text" data-label="a"', "x"), ('class="number" data-label="b"', "1")]
    ]
    with pytest.raises(ValueError, match="shorter"):
        _ = Table("t", (Column("a"), Column("b")), ((Value("x"),),)).cells
