"""The pages that are made of the committed records: how soon a figure comes, how little stands in its way, and how large they are."""

from __future__ import annotations

import gzip
import re
from html import unescape
from pathlib import Path

import pytest

from harness.machine import paths
from harness.report.site import render

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(paths.results(), tmp_path_factory.mktemp("committed") / "site").parent


def main_of(page: Path) -> str:
    return re.sub(r"^[^>]*>", "", page.read_text(encoding="utf-8").partition("<main")[2])


def words(markup: str) -> list[str]:
    """Those that a visitor reads: not what is hidden until a script shows it, and no lone marks."""
    shown = re.sub(r"<(\w+)[^>]* hidden[^>]*>.*?</\1>|<title>.*?</title>", " ", markup, flags=re.DOTALL)
    return re.findall(r"[^\s·]*\w[^\s·]*", unescape(re.sub(r"<[^>]*>", " ", shown)))


def test_the_index_begins_with_a_figure(site: Path) -> None:
    first = words(main_of(site / "index.html"))[0]
    assert re.fullmatch(r"\d+\.\d\d×", first)


def test_a_task_page_has_a_figure_within_forty_words_and_few_caveats(site: Path) -> None:
    pages = sorted(site.glob("task-*.html"))
    assert pages
    for page in pages:
        main = main_of(page)
        before = re.split(r'<div class="stats">|<svg class="plot|<table', main, maxsplit=1)[0]
        assert len(words(before)) <= 40, page.name
        caveats = r'<ul class="facts">.*?</ul>|<p class="tie" data-close>.*?</p>|<p class="notice">.*?</p>'
        above = main.partition('<svg class="plot')[0]
        assert len(words(" ".join(re.findall(caveats, above, re.DOTALL)))) <= 20, page.name


def test_no_page_is_larger_than_200_kib_compressed(site: Path) -> None:
    sizes = {page.name: len(gzip.compress(page.read_bytes())) for page in site.glob("*.html")}
    largest = max(sizes, key=lambda name: sizes[name])
    assert sizes[largest] <= 200 * 1024, largest
