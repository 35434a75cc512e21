"""The matrix of what ran where, on records whose state is known."""

from __future__ import annotations

from pathlib import Path

from harness.report.coverage_page import coverage_page
from tests.records.records import make_record
from tests.report.test_leaderboards import AVX2, SKIPPED, VNNI
from tests.report.test_site import SAMPLE


def test_each_mark_says_what_a_backend_has_on_a_machine(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('title = "Another"')
    (tmp_path / "squad.toml").touch()
    records = [
        make_record(key="a", machine=VNNI),
        make_record(key="b", machine=VNNI, seed=2),
        make_record(key="c", machine=AVX2, speed=[]),
        make_record(key="d", machine=VNNI, backend="tensorrt_int8", reason="no GPU", **SKIPPED),
        make_record(key="e", machine=VNNI, task="glue/rte", backend="onnxruntime_int8"),
        make_record(key="f", machine=AVX2, model="big", status="failed", accuracy=[], speed=[], reason="killed"),
        make_record(key="g", machine=AVX2, model="unseen", data=SAMPLE),
    ]
    page = coverage_page(records, tmp_path)
    assert page.machines == ("2 cores, AVX-512 VNNI", "2 cores, AVX2")
    assert page.columns == ("ORT INT8", "PyTorch FP32", "TensorRT INT8")
    shown = {(row.task, row.model): [[mark.kind for mark in cell] for cell in row.cells] for row in page.rows}
    none = ["unasked", "unasked"]
    assert shown == {
        ("SQuAD v1.1", "big"): [none, ["absent", "failed"], none],
        ("", "tiny"): [none, ["full", "scored"], ["unable", "absent"]],
        ("RTE", "tiny"): [["full", "absent"], none, none],
    }
    tiny = page.rows[1].cells
    assert (tiny[1][0].text, tiny[1][0].title) == ("2", "2 cores, AVX-512 VNNI: measured, 2 seeds")
    assert tiny[2][0].title == "2 cores, AVX-512 VNNI: cannot run here: no GPU"
    assert page.idle == (("Another", "other", "quantboard run other"),)
    assert [(mark.text, mark.title) for mark in page.legend] == [
        ("●", "measured"),
        ("○", "scored, not timed"),
        ("·", "not run on this machine"),
        ("×", "cannot run here"),
        ("!", "failed"),
        ("–", "no suite asks for it"),
        ("2", "number of seeds"),
    ]
    assert ("2", "measured") in page.counts and ("1", "failed") in page.counts
