"""Text of logs, records and data has no effect on terminals, pages and Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main
from harness.errors import markdown, visible
from harness.report.boards import page_name
from harness.report.pages import suite_page_name
from tests.records.records import make_record
from tests.report.stored_scores import add, answers

HOSTILE = "\x1b]0;owned\x07\x1b[31m \u202egpj.exe\u2066 <script>alert(1)</script> [here](https://evil.example) |x| `rm`"
RAW = ("\x1b", "\x07", "\u202e", "\u2066")


def test_what_is_obeyed_becomes_visible() -> None:
    assert visible("a\x1b[31mb\r\u202ec\tтест\u200dé\n") == "a\\x1b[31mb\\x0d\\u202ec\tтест\u200dé\n".replace(
        "\\x0d", "\\r"
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("[a](http://b)", "[a\\](http:\\//b)"),
        ("![a](b)", "![a\\](b)"),
        ("<img src=x> & more", "&lt;img src=x&gt; &amp; more"),
        ("a|b\nc", "a\\|b c"),
        ("`code` *bold* _it_ int8_static", "\\`code\\` \\*bold\\* \\_it\\_ int8_static"),
        ("~~gone~~ ~5", "\\~~gone\\~~ ~5"),
        ("[1.2, 3.4]", "[1.2, 3.4]"),
        ("a\\|b", "a\\\\\\|b"),
        ("[x]: http://y", "[x\\]: http:\\//y"),
        ("www.evil.example", "www\\.evil.example"),
    ],
)
def test_markdown_is_text(text: str, written: str) -> None:
    assert markdown(text) == written


def test_nothing_raw_reaches_terminal_page_or_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("a", "b"):
        changes: dict[str, Any] = {
            "baseline": key == "a",
            "label": f"{key}{HOSTILE}",
            "notes": [HOSTILE],
            "machine": {"cpu": HOSTILE},
        }
        add(tmp_path / "results", key, answers(100, 30), **changes)
    add(tmp_path / "results", "c", answers(9, 3), status="failed", reason=HOSTILE, log_tail=[HOSTILE], accuracy=[])
    where = ["--results", str(tmp_path / "results")]
    assert main(["site", *where, "--out", str(tmp_path / "site")]) == 0
    for page in (tmp_path / "site").glob("*.html"):
        text = page.read_text()
        assert not [raw for raw in (*RAW, "<script>alert") if raw in text], page.name
    for more in ([], ["--markdown"]):
        capsys.readouterr()
        assert main(["compare", "run-a", "run-b", *more, *where]) == 0
        shown = capsys.readouterr()
        assert not [raw for raw in RAW if raw in shown.out + shown.err]
        assert not more or not re.search(r"<script|(?<!\\)\]\(|://|(?<!\\)`", shown.out)


def test_names_of_pages_are_unique_and_short() -> None:
    ids = ["run-1", "run/1", "run?1", "run 1", "x" * 5000, "x" * 5001, "run-1-" + "é" * 300]
    names = [page_name(make_record(record_id=record_id)) for record_id in ids]
    assert names[0] == "cell-run-1.html"
    assert len(set(names)) == len(ids)
    assert all(len(name.encode()) < 200 for name in names)
    suites = [("a", False), ("a", True), ("a-sample", False), ("a-sample", True), ("b" * 300, False), ("b" * 301, True)]
    pages = [suite_page_name(*suite) for suite in suites]
    assert pages[:2] == ["suite-a.html", "suite-a-sample.html"]
    assert len(set(pages)) == len(suites)
    assert all(len(name) < 200 for name in pages)
