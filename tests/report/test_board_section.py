"""What a board says so that nothing on it is mistaken: baselines, devices, machines, splits, uncommitted changes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.records.schema import Checkpoint, Data, Finding, Quantization, Record, SplitData
from harness.report.boards import make_boards
from harness.report.charts import curve_labels
from harness.report.pages import with_uncommitted_ancestors
from tasks.identity import BY_COUNT
from tests.records.records import make_record, of_a_part
from tests.report.stored_scores import interleaved
from tests.report.test_site import build
from tests.report.test_suite_page import MADE, on, text_of


def shown(site: Path) -> str:
    return text_of(site / "suite-squad.html")


def test_a_row_names_its_baseline_where_the_table_has_several(tmp_path: Path) -> None:
    """Both INT8 rows lose against their own baselines, of which one is the better model."""
    tiny = [make_record(key="a", baseline=True), make_record(key="b", f1=74.0, label="int8")]
    other = [
        make_record(key="c", f1=70.0, model="other", baseline=True),
        make_record(key="d", f1=69.5, model="other", label="int8"),
    ]
    both = shown(build(tmp_path / "both", *tiny, *other))
    assert both.count("; baseline tiny") == both.count("; baseline other") == 2  # of the difference and of the share
    assert "; baseline" not in shown(build(tmp_path / "one", *tiny))


def made(key: str, dirty: bool = False, **lineage: str) -> Checkpoint:
    return Checkpoint(**(MADE | {"key": key}), lineage=lineage, made_by={"dirty": dirty})


def test_descendants_of_a_model_from_uncommitted_changes_are_marked(tmp_path: Path) -> None:
    """The same key with other weights is another training."""
    records = [
        make_record(key="parent", checkpoint=made("p", dirty=True, p="one")),
        make_record(key="child", model="qat", checkpoint=made("q", p="one", q="two")),
        make_record(key="clean", model="qat", seed=2, checkpoint=made("q", p="other", q="three")),
        make_record(key="unknown", model="old", checkpoint=made("o")),
    ]
    assert with_uncommitted_ancestors(records) == {"run-child"}
    site = build(tmp_path, *records)
    page = shown(site)
    assert page.count("ancestor from uncommitted changes") == 1
    assert page.count("model from uncommitted changes") == 1
    notice = "A model that its own was made from, or taught by, was made in a checkout with uncommitted changes."
    assert notice in text_of(site / "cell-run-child.html")
    assert notice not in text_of(site / "cell-run-clean.html")


def test_a_chart_distinguishes_devices_and_seeds() -> None:
    two = [make_record(key="a"), make_record(key="b", device="cuda")]
    assert sorted(curve_labels(make_boards(two)).values()) == ["torch_fp32 (cpu)", "torch_fp32 (cuda)"]
    seeds = [make_record(key="a"), make_record(key="b", seed=2)]
    assert sorted(curve_labels(make_boards(seeds)).values()) == ["torch_fp32, seed 1", "torch_fp32, seed 2"]


def test_another_device_is_why_there_is_no_speed_up(tmp_path: Path) -> None:
    records = [make_record(key="a", baseline=True, device="cuda"), make_record(key="b", label="int8")]
    assert "other device" in shown(build(tmp_path / "two", *records))
    records[0] = make_record(key="a", baseline=True)
    assert "other device" not in shown(build(tmp_path / "one", *records))


def test_a_cell_without_throughput_is_not_called_left_out_of_the_chart(tmp_path: Path) -> None:
    plain = make_record()
    alone = [part for part in plain.speed if part.scenario == "single_stream"]
    records = [make_record(key="a", speed=alone), make_record(key="b", label="int8", speed=alone)]
    assert "Left out" not in shown(build(tmp_path / "alone", *records))
    differ = Finding(rule="disturbed", what="offline, real lengths, batch 16: rounds differ", measured="20%", bound="5%", remedy="r")  # fmt: skip
    bad: dict[str, Any] = {"status": "invalid", "reason": differ.what, "findings": [differ]}
    page = shown(build(tmp_path / "rule", make_record(key="a", **bad), make_record(key="b", label="int8", speed=alone)))
    assert "Left out, because a validity rule fails: torch_fp32 of tiny." in page


@pytest.mark.parametrize("about_all", [True, False])
def test_a_finding_about_all_of_a_cell_marks_every_figure_of_speed(about_all: bool) -> None:
    what = "2 rounds" if about_all else "offline, real lengths, batch 16: rounds differ"
    finding = Finding(
        rule="too_few_rounds" if about_all else "disturbed", what=what, measured="2", bound="3", remedy="r"
    )
    record = make_record(status="invalid", reason=what, findings=[finding])
    (row,) = make_boards([record])[0].rows
    assert sum(bool(value.invalid) for value in row.values) == (5 if about_all else 1)


def test_padded_speed_says_so(tmp_path: Path) -> None:
    """Of a scheme that computes padding, compared with a baseline at real lengths."""
    padded = make_record(key="b", label="int8", scheme="aimet_w8a8", turns=[interleaved((1.0, 1.1, 1.0))])
    records = [make_record(key="a", baseline=True, turns=[interleaved((1.0, 1.0, 1.0))]), padded]
    site = build(tmp_path, *records)
    row = next(board for board in make_boards(records)[0].rows if board.record.label == "int8")
    assert sum("padded to 384" in value.note for value in row.values) == 4  # not of the fixed length
    assert any("×" in value.text and "; padded; " in value.note for value in row.values)
    assert "padded to 384" not in "".join(value.note for value in make_boards(records[:1])[0].rows[0].values)
    assert "real, padded to 384 tokens" in text_of(site / "cell-run-b.html")
    assert "real, 170 tokens on average" in text_of(site / "cell-run-a.html")


def test_rows_that_older_records_call_official_share_the_board_of_newer_ones() -> None:
    def of(data: str, **changes: Any) -> Record:
        split = SplitData(rows=10, official_rows=10, sha256="0", label=data)
        return make_record(data=Data(kind="raw", label=data, splits={"validation": split}), **changes)

    old, new = of("official", key="a"), of(BY_COUNT, key="b", label="int8", finished="2026-02-01T00:00:00+00:00")
    (board,) = make_boards([old, new])
    assert len(board.rows) == 2
    assert board.data == BY_COUNT
    assert len(make_boards([old, of("substitute", key="c", label="int8")])) == 2


def test_two_seeds_have_no_standard_deviation(tmp_path: Path) -> None:
    def page(count: int) -> str:
        records = [make_record(key=str(seed), seed=seed, f1=75 + seed, baseline=True) for seed in range(1, count + 1)]
        return shown(build(tmp_path / str(count), *records))

    assert "two seeds: no claim" in page(2)
    assert "two seeds: no claim" not in page(3)


def test_a_part_of_the_evaluation_set_is_counted_separately(tmp_path: Path) -> None:
    site = build(tmp_path, make_record(key="a"), of_a_part(10, key="b", label="int8", speed=[]))
    index = text_of(site / "index.html")
    assert "1 accuracy 1 accuracy on a part of the evaluation set 1 speed" in index


def macro_rows(cpu: str) -> list[Record]:
    data = make_record().data
    return [
        make_record(key=f"{cpu}-{task}", task=f"glue/{task}", machine=on(cpu), data=data, f1=60.0)
        for task in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
    ]


def test_macro_averages_of_several_machines_say_which(tmp_path: Path) -> None:
    def head(*records: Record) -> str:
        found = re.search("<h2>GLUE, macro average.*?</section>", (build(tmp_path / str(len(records)), *records) / "suite-squad.html").read_text(), re.S)  # fmt: skip
        assert found
        return " ".join(re.sub("<[^>]*>", " ", found.group()).split())

    two = head(*macro_rows("fast"), *macro_rows("slow"))
    assert "seed machine macro average" in two
    assert "fast" in two and "slow" in two
    assert "machine" not in head(*macro_rows("fast"))


def test_the_rounding_part_is_shown_with_the_tensors_it_hurts(tmp_path: Path) -> None:
    """A QAT row below 99% whose rounding gained: the training lost."""
    quantization = Quantization(tensors=10, quantized=5, share=0.5, worst={"a.weight": 3.0}, notes=[])
    checkpoint = Checkpoint(**(MADE | {"recipe": "qat"}), quantization=quantization, scheme="engine_int8")
    trained: dict[str, Any] = {
        "model": "qat",
        "settings": {"limit": None, "ancestor": "tiny"},
        "checkpoint": checkpoint,
    }
    records = [
        make_record(key="a", f1=80.0, baseline=True),
        make_record(key="b", f1=70.0, baseline=True, **trained),
        make_record(key="c", f1=71.0, label="int8", scheme="engine_int8", **trained),
    ]
    page = shown(build(tmp_path, *records))
    assert "of its difference rounding is +1.00 points, further training -10.00" in page
