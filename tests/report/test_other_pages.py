"""The pages of a benchmark, of published figures and of the method; the map of quantization noise; wide tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.machine import paths
from harness.records.schema import Quantization
from harness.report.benchmark_page import benchmark_pages
from harness.report.macro_average import macro_averages
from harness.report.method_page import method_page
from harness.report.noise_map import noise_map
from harness.report.references_page import references_page
from harness.report.tables import WIDE, Table, Value, text_columns
from tests.records.records import make_record
from tests.report.test_macro_average import METRICS, glue_record
from tests.report.test_site import build


def test_a_benchmark_has_a_row_a_method_and_says_what_is_missing() -> None:
    whole = [glue_record(task) for task in METRICS]
    part = [glue_record(task, model="other") for task in list(METRICS)[:3]]
    (page,) = benchmark_pages(macro_averages([*whole, *part])).values()
    (machine,) = page.machines
    (row,), (less,) = machine.whole, machine.parts
    scores = [float(score) for score in row.scores]
    assert len(scores) == len(page.tasks) == 8
    assert float(row.average) == pytest.approx(sum(scores) / 8, abs=0.06)
    assert less.average == "" and less.missing.count(",") == 4


def test_published_figures_are_grouped_by_system_with_their_reasons(tmp_path: Path) -> None:
    text = """
[[references]]
system = "Q <b>"
task = "glue/cola"
metrics = { matthews_correlation = 58.5 }
notes = ["five seeds", "another split"]
source = "a paper"
[[references]]
system = "Q <b>"
task = "glue/rte"
precision = "INT8"
metrics = { accuracy = 68.8 }
notes = ["five seeds"]
source = "a paper"
hardware = "T4"
qps = 12.5
"""
    (tmp_path / "a.toml").write_text(text)
    page = references_page(tmp_path)
    (system,) = page.systems
    assert (system.notes, system.sources, system.suites, page.count) == (("five seeds",), ("a paper",), ("a",), 2)
    assert [figure.notes for figure in system.figures] == [("another split",), ()]
    assert system.figures[1].facts == ("hardware: T4",) and system.figures[1].figures == (
        "accuracy 68.8",
        "12.5 samples/s",
    )


def test_every_published_figure_of_our_suites_is_shown() -> None:
    assert references_page(paths.suites()).count > 20


def test_the_method_is_shown_with_its_sections_and_without_links_that_lead_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "method.md"
    file.write_text(
        "# How\n\nSee [here](other.md), [there](https://example.org).\n\n## One <b>\n\n<script>x</script>\n\n|a|b|\n|-|-|\n|1|2|\n"
    )
    page = method_page(file)
    assert page.title == "How" and page.parts == (("one-b", "One <b>"),)
    assert 'href="other.md"' not in page.body and 'href="https://example.org"' in page.body
    assert "<script>" not in page.body and "<h1" not in page.body and "<table>" in page.body
    real = method_page(paths.method())
    assert len(real.parts) > 5


def test_the_noise_of_a_layer_stands_in_its_column() -> None:
    names = {
        "encoder.layer.1.output.dense.input": 11.9,
        "encoder.layer.0.output.dense.input": 16.4,
        "encoder.layer.0.attention.self.query.weight": 40.0,
        "embeddings.word_embeddings.weight": 33.3,
    }
    picture = noise_map(names, 3)
    assert picture.layers == ("1", "2", "3")
    assert [kind for kind, _ in picture.rows] == ["feed-forward 2, input", "query, weight"]
    assert [(cell.text, cell.band) for cell in picture.rows[0][1]] == [("16", 3), ("12", 4), ("", 0)]
    assert picture.others == (("embeddings.word_embeddings.weight", "33.3"),)


def test_empty_columns_are_left_out_and_a_table_of_many_columns_becomes_lists() -> None:
    columns = text_columns(*(f"c{number}" for number in range(WIDE + 3)))
    row = tuple(Value("" if number % 2 else "x") for number in range(WIDE + 3))
    table = Table("t", columns, (row,))
    assert [column.name for column in table.shown] == ["c0", "c2", "c4", "c6", "c8", "c10"] and not table.is_wide
    full = Table("t", columns, (tuple(Value("x") for _ in columns),))
    assert full.is_wide and len(full.cells[0]) == WIDE + 3


def test_the_navigation_names_what_there_is(tmp_path: Path) -> None:
    site = build(tmp_path, make_record())
    (nav,) = re.findall(r'<nav aria-label="Main">(.*?)</nav>', (site / "references.html").read_text())
    names = re.findall(r">([^<]+)</a>", nav)
    assert names == ["Leaderboards", "Compare", "History", "Coverage", "References", "Method"]
    assert 'href="references.html" aria-current="page"' in nav


def test_older_records_have_no_noise() -> None:
    assert Quantization(tensors=1, quantized=1, share=1.0, worst={}).noise == {}
