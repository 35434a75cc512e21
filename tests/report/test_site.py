"""Pages are made from records alone, escape what they show, and separate what may not be compared."""

from __future__ import annotations

import base64
import html
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from harness.cli.main import main
from harness.errors import QuantboardError
from harness.machine import paths
from harness.records import store
from harness.records.figure import Figure
from harness.records.schema import Checkpoint, Data, Finding, Quantization, Record, SplitData
from harness.report import boards, tables
from harness.report.charts import DARK, LIGHT, Point, accuracy_against_qps
from harness.report.site import render
from tests.records.records import make_record, of_a_part

SAMPLE = Data(
    kind="sample",
    label="sample",
    splits={"validation": SplitData(rows=10, official_rows=None, sha256="1", label="sample")},
)


def build(folder: Path, *records: Record) -> Path:
    for record in records:
        store.append(folder / "results" / "run.jsonl", record)
    return render(folder / "results", folder / "site").parent


def test_sample_and_real_data_never_share_a_board() -> None:
    found = boards.make_boards([make_record(key="a"), make_record(key="b", data=SAMPLE)])
    assert [(board.sample, len(board.rows)) for board in found] == [(False, 1), (True, 1)]


OTHER_DEV = Data(
    kind="raw",
    label="subset (5 of 10)",
    splits={"validation": SplitData(rows=5, official_rows=10, sha256="1", label="subset (5 of 10)")},
)


def test_other_examples_have_a_board_of_their_own() -> None:
    records = [make_record(key="whole"), *(of_a_part(limit, key=str(limit)) for limit in (100, 500))]
    found = boards.make_boards([*records, make_record(key="other", data=OTHER_DEV)])
    assert sorted((board.limit or 0, board.data, len(board.rows)) for board in found) == [
        (0, "official", 1),
        (0, "subset (5 of 10)", 1),
        (100, "official", 1),
        (500, "official", 1),
    ]


def test_a_measurement_on_other_examples_replaces_nothing() -> None:
    whole = make_record(key="a", finished="2026-01-01T00:00:00+00:00")
    part = of_a_part(100, key="b", finished="2026-01-02T00:00:00+00:00")
    more = of_a_part(500, key="c", finished="2026-01-03T00:00:00+00:00")
    other = make_record(key="d", finished="2026-01-04T00:00:00+00:00", data=OTHER_DEV)
    assert boards.latest([whole, part, more, other]) == [whole, part, more, other]


def test_a_limit_that_left_all_examples_is_none() -> None:
    old = make_record(key="a", finished="2026-01-01T00:00:00+00:00")
    new = make_record(key="b", finished="2026-01-02T00:00:00+00:00", settings={"limit": 10})
    assert boards.latest([old, new]) == [new]
    (board,) = boards.make_boards([new])
    assert board.limit is None
    failed = make_record(key="c", status="failed", accuracy=[], settings={"limit": 10}, label="other")
    assert (
        boards.latest([failed, make_record(key="d", label="other", finished="2026-01-02T00:00:00+00:00")])[0].key == "d"
    )
    (board,) = boards.make_boards([new, failed])
    assert (len(board.rows), len(board.unmeasured)) == (1, 1)


def test_a_skipped_cell_is_replaced_by_a_measurement_on_any_device() -> None:
    skipped = make_record(key="a", status="skipped", accuracy=[], speed=[])
    measured = [
        make_record(key=device, device=device, finished="2026-01-02T00:00:00+00:00") for device in ("cpu", "cuda")
    ]
    assert boards.latest([skipped, *measured]) == measured
    again = make_record(key="z", status="failed", accuracy=[], speed=[], finished="2026-01-03T00:00:00+00:00")
    assert boards.latest([skipped, again]) == [again]
    assert boards.latest([skipped, *measured, again]) == measured


def test_hosts_with_the_same_gpu_keep_their_rows() -> None:
    gpu = [{"name": "H200"}]
    one, other = (
        make_record(key=cpu, device="cuda", machine={"cpu": cpu, "cores": 2, "gpus": gpu}) for cpu in ("old", "new")
    )
    assert boards.latest([one, other]) == [one, other]


def test_a_board_says_what_each_of_its_rows_was_trained_on() -> None:
    def trained_on(rows: int) -> Data:
        train = SplitData(rows=rows, official_rows=99, sha256=str(rows), label="substitute")
        dev = SplitData(rows=10, official_rows=10, sha256="0", label="official")
        return Data(kind="raw", label="substitute", splits={"train": train, "validation": dev})

    records = [make_record(key=str(rows), label=str(rows), data=trained_on(rows)) for rows in (50, 60)]
    (board,) = boards.make_boards(records)
    assert board.split_sizes == "train: 50 rows, official 99, or train: 60 rows, official 99"


def shown(column: str, *records: Record) -> dict[str, tables.Value]:
    (board,) = boards.make_boards(list(records))
    place = [column.name for column in board.columns].index(column)
    return {row.record.key: row.values[place] for row in board.rows}


@pytest.mark.parametrize(
    ("asked", "note"), [(0.95, "meets 95%"), (0.98, "below 98%"), (0.99, "below 99%"), (0.975, "meets 97.5%")]
)
def test_the_badge_is_of_the_share_that_the_suite_asks_for(asked: float, note: str) -> None:
    settings = {"limit": None, "measure": {"min_accuracy": asked}}
    found = shown(
        "of baseline",
        make_record(key="base", f1=80.0, baseline=True, settings=settings),
        make_record(key="int8", f1=78.2, label="int8", settings=settings),
    )
    assert (found["int8"].text, found["int8"].note) == ("97.75%", note)


@pytest.mark.parametrize(
    ("base", "mine", "said"),
    [
        ("offline, real lengths, batch 16: rounds differ", "", "; the baseline's figure is invalid"),
        ("", "offline, real lengths, batch 16: rounds differ", "; its own figure is invalid"),
        ("too few rounds", "too few rounds", "; its own and the baseline's figures are invalid"),
        ("single_stream, real lengths, batch 1: rounds differ", "offline, fixed lengths, batch 16: rounds differ", ""),
    ],
)
def test_a_speed_up_says_which_of_its_two_figures_is_invalid(base: str, mine: str, said: str) -> None:
    """Those that the ratio uses, not others of the same cells."""

    def record(finding: str, **parts: Any) -> Record:
        if not finding:
            return make_record(**parts)
        found = Finding(rule="disturbed", what=finding, measured="40%", bound="25%", remedy="again")
        return make_record(status="invalid", reason=finding, findings=[found], **parts)

    found = shown(
        "speed-up", record(base, key="base", baseline=True), record(mine, key="int8", qps=100.0, label="int8")
    )
    assert found["int8"].note.endswith(said or "not tested: the rounds were not interleaved")


def test_a_record_without_conditions_says_that_they_are_not_known(tmp_path: Path) -> None:
    site = build(tmp_path, make_record(key="a"))
    assert "Not recorded: whether other processes" in (site / "cell-run-a.html").read_text()


def test_machines_do_not_share_a_board() -> None:
    other = {"cpu": "another", "cores": 64, "gpus": []}
    assert len(boards.make_boards([make_record(key="a"), make_record(key="b", machine=other)])) == 2


def test_the_difference_is_to_the_baseline_of_the_same_model_and_seed() -> None:
    records = [
        make_record(key="a", f1=80.0, baseline=True),
        make_record(key="b", f1=60.0, baseline=True, seed=2),
        make_record(key="c", f1=78.5, label="int8", backend="onnxruntime_int8"),
    ]
    (board,) = boards.make_boards(records)
    column = [column.name for column in board.columns].index("difference")
    shown = {row.record.key: row.values[column].text for row in board.rows}
    assert shown == {"a": "baseline", "b": "baseline", "c": "-1.50"}


def test_the_newest_measurement_of_a_cell_is_shown_and_a_later_failure_does_not_hide_it() -> None:
    old = make_record(key="a", finished="2026-01-01T00:00:00+00:00", f1=1.0)
    new = make_record(key="a", finished="2026-01-02T00:00:00+00:00", f1=2.0)
    failed = make_record(key="a", finished="2026-01-03T00:00:00+00:00", status="failed", reason="killed")
    assert boards.latest([failed, new, old]) == [new]


def test_what_a_record_says_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>'
    site = build(
        tmp_path,
        make_record(key="a", label=evil, model=evil, suite_title=evil, reason=evil, status="failed", log_tail=[evil]),
        make_record(key="b", command=evil, notes=[evil]),
    )
    pages = list(site.glob("*.html"))
    assert len(pages) == 9
    for page in pages:
        assert evil not in page.read_text()
        assert page.read_text().count("<script>") == 1


def test_a_dark_chart_has_none_of_the_light_colours() -> None:
    shown = [Point("a", 10.0, 9.0, 11.0, 80.0, 79.0, 81.0), Point("b", 20.0, 19.0, 21.0, 79.0, 78.0, 80.0)]
    pages = accuracy_against_qps(shown, "f1", ["a", "b"])
    light, dark = (base64.b64decode(pages[name].partition(",")[2]).decode() for name in ("light", "dark"))
    for ours, others, svg in ((LIGHT, DARK, light), (DARK, LIGHT, dark)):
        assert all(colour in svg for colour in (ours.ink, ours.grid, *ours.series[:2]))
        assert not any(colour in svg for colour in (others.ink, others.muted, others.grid, *others.series))


def test_a_simulation_has_no_size_of_an_engine() -> None:
    assert shown("engine", make_record(key="sim", simulated=True, speed=[]))["sim"].text == "simulation"
    assert shown("engine", make_record(key="real"))["real"].text == "1.0"


def test_pages_load_nothing_and_say_so(tmp_path: Path) -> None:
    site = build(tmp_path, make_record(key="a"), make_record(key="b", label="int8", qps=90.0))
    for page in site.glob("*.html"):
        text = html.unescape(page.read_text())
        assert "default-src 'none'" in text
        assert not re.search(r'(src|href)="(https?:)?//', text)


def test_a_row_below_its_bound_names_the_tensors_that_lose_most(tmp_path: Path) -> None:
    worst = {f"layer.{number}.output": 8.24 + number for number in range(6)}
    quantization = Quantization(tensors=203, quantized=171, share=171 / 203, worst=worst)
    checkpoint = Checkpoint(
        key="c", recipe="ptq", source="s", architecture={}, parameters=1, weights_bytes=4, quantization=quantization
    )
    site = build(
        tmp_path,
        make_record(key="base", f1=80.0, baseline=True),
        make_record(key="good", f1=79.5, label="good", scheme="engine_int8", checkpoint=checkpoint),
        make_record(key="bad", f1=79.0, label="lossy", scheme="engine_int8", checkpoint=checkpoint),
        make_record(key="plain", f1=79.0, label="without", checkpoint=checkpoint),
    )
    page = (site / "suite-squad.html").read_text()
    section = page.partition("Below 99% of the baseline")[2].partition("</ul>")[0]
    assert ">lossy</a>" in section and ">good</a>" not in section
    assert ">without</a>" not in section and "without those quantizers" in (site / "cell-run-plain.html").read_text()
    assert "without those quantizers" not in (site / "cell-run-bad.html").read_text()
    assert (
        "171 of 203 tensors" in section and "<code>layer.0.output</code> 8.2 dB" in section and "layer.4" not in section
    )


def test_an_invalid_cell_is_marked_with_its_rule_and_left_out_of_the_chart(tmp_path: Path) -> None:
    finding = Finding(rule="disturbed", what="rounds differ", measured="40%", bound="25%", remedy="again")
    bad = make_record(key="c", label="unsure", status="invalid", reason="rounds differ", findings=[finding])
    site = build(tmp_path, make_record(key="a"), make_record(key="b", label="int8"), bad)
    page = (site / "suite-squad.html").read_text()
    assert "Invalid: measured, but a rule fails" in page
    (board,) = boards.make_boards([make_record(key="a"), bad])
    from harness.report.charts import chart_points, curve_labels

    assert [point.label for point in chart_points(board, curve_labels([board]))] == ["torch_fp32"]


def test_a_record_lies_beside_its_page_as_it_stands_in_the_results(tmp_path: Path) -> None:
    record = make_record(key="a", f1=100 / 3)
    site = build(tmp_path, record)
    assert 'href="cell-run-a.json" download' in (site / boards.page_name(record)).read_text()
    assert Record.model_validate_json((site / "cell-run-a.json").read_text()) == record


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for _ in range(2):
        with pytest.raises(QuantboardError, match="not a Quantboard site"):
            render(tmp_path / "results", tmp_path / "mine")
        assert (tmp_path / "mine" / "thesis.txt").exists()
        (tmp_path / "mine" / "index.html").write_text("of another site")
    with pytest.raises(QuantboardError, match="not a Quantboard site"):
        render(tmp_path / "results", tmp_path / "mine" / "thesis.txt")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a record of suite `squad`, whose file the test writes."""
    folder = tmp_path / "checkout"
    (folder / "suites").mkdir(parents=True)
    shutil.copy(paths.suites() / "schema.json", folder / "suites")
    shutil.copytree(paths.site_sources(), folder / "site")
    store.append(folder / "results" / "run.jsonl", make_record())
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('title = "half', "suites/squad.toml: end of file: Unterminated string"),
        ("references = 3", "suites/squad.toml: references: must be a list, not 3"),
        (
            '[[references]]\nsource = "a paper"\ntask = "squad_v1"\nnotes = ["old"]',
            "suites/squad.toml: references[0].system",
        ),
        ("\udcff", "suites/squad.toml: line 1: is not UTF-8"),
    ],
)
def test_a_broken_suite_file_ends_in_one_line_and_leaves_nothing_behind(
    checkout: Path, capsys: Any, text: str, said: str
) -> None:
    (checkout / "suites" / "squad.toml").write_text(text, errors="surrogateescape")
    assert main(["site"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(said)
    assert printed.count("\n") == 1
    assert sorted(path.name for path in checkout.iterdir()) == ["results", "site", "suites"]


def test_references_are_shown_whatever_the_rest_of_the_suite_asks_for(checkout: Path, capsys: Any) -> None:
    suite = 'backends = "gone"\n[[references]]\nsystem = "DGX"\nsource = "a paper"\ntask = "squad_v1"\nnotes = ["other hardware"]\nqps = 100'
    (checkout / "suites" / "squad.toml").write_text(suite)
    assert main(["site"]) == 0
    page = (checkout / "_site" / "suite-squad.html").read_text()
    assert "Published elsewhere" in page and "DGX" in page and "qps: 100" in page
    assert main(["site"]) == 0  # over the older one
    assert sorted(path.name for path in checkout.iterdir()) == ["_site", "results", "site", "suites"]


def test_nothing_half_written_stays_and_the_older_site_does(checkout: Path) -> None:
    assert main(["site"]) == 0
    before = (checkout / "_site" / "index.html").read_text()
    (checkout / "site" / "templates" / "cell.html").write_text("{{ unheard_of }}")
    with pytest.raises(UndefinedError):
        main(["site"])
    assert (checkout / "_site" / "index.html").read_text() == before
    assert sorted(path.name for path in checkout.iterdir()) == ["_site", "results", "site", "suites"]


def test_a_site_is_kept_where_it_would_be_made_of_the_same(checkout: Path) -> None:
    site = checkout / "_site"

    def made_anew() -> bool:
        before = site.stat().st_ino if site.exists() else 0
        assert main(["site", "--if-changed"]) == 0
        return site.stat().st_ino != before

    assert made_anew() and not made_anew()
    (results,) = (checkout / "results").rglob("*.jsonl")
    changes: list[Callable[[], object]] = [
        lambda: store.append(results, make_record(key="another")),
        lambda: (results.parent / "run-x.npz").write_bytes(b"1"),
        lambda: (results.parent / "run-x.npz").write_bytes(b"2"),
        lambda: (checkout / "suites" / "squad.toml").write_text("references = []"),
        lambda: (checkout / "site" / "static" / "style.css").write_text("body { color: red }"),
        lambda: next(site.glob("cell-*.html")).unlink(),
    ]
    for change in changes:
        change()
        assert made_anew() and not made_anew()
    assert main(["site"]) == 0
    assert not made_anew()


def test_a_training_subset_does_not_make_the_evaluation_a_subset(tmp_path: Path) -> None:
    splits = {
        "train": SplitData(rows=5, official_rows=10, sha256="2", label="subset (5 of 10)"),
        "validation": SplitData(rows=10, official_rows=10, sha256="0", label="official"),
    }
    record = make_record(key="a", data=Data(kind="raw", label="subset (5 of 10)", splits=splits))
    page = (build(tmp_path, record) / "suite-squad.html").read_text()
    assert "evaluated on: official; trained on: subset (5 of 10)" in page
    assert f"Repeat it: <code>{record.command}</code>" in page


def test_no_records_make_an_index_that_says_what_to_do(tmp_path: Path) -> None:
    page = render(tmp_path / "results", tmp_path / "site")
    assert "nox -s suite" in page.read_text()


@pytest.mark.parametrize(("value", "text"), [(74.923, "74.92"), (174.26, "174.3"), (2325.2, "2325"), (0.001, "0.00")])
def test_figures_are_rounded_for_reading(value: float, text: str) -> None:
    assert tables.figure_value(Figure(value=value)).text == text
