"""Every kind of page in Debian's Chromium: axe-core finds nothing, nothing is fetched from outside the folder, no console error,
no sideways scroll, the keyboard reaches all controls, and it prints."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from harness.records import store
from harness.report.site import render
from tests.browser.chromium import MARKS, opened
from tests.report.test_history import night, timed_run
from tests.report.test_leaderboards import SKIPPED, timed
from tests.report.test_macro_average import METRICS, glue_record
from tests.report.test_speed_only import two

pytest.importorskip("axe_playwright_python")
pytestmark = MARKS
KINDS = (
    "index",
    "coverage",
    "references",
    "method",
    "suite",
    "task",
    "speed-only",
    "cell",
    "compare",
    "history",
    "benchmark",
    "list",
)
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights of a committed run, a leaderboard of made-up methods, a benchmark's tasks, and random weights."""
    folder = tmp_path_factory.mktemp("access")
    results, rng, base = folder / "results", np.random.default_rng(0), timed_run()
    for number in range(3):
        for record in night(base, number, rng):
            store.append(results / "nights.jsonl", record)
    for key, backend, times, wrong in (("a", "torch_fp32", 1.0, 100), ("b", "onnxruntime_int8", 2.5, 130)):
        timed(results, key, backend, times, wrong, baseline=key == "a")
    timed(results, "s", "openvino_int8", 1.0, 0, **SKIPPED)
    for task in METRICS:
        store.append(results / "glue.jsonl", glue_record(task))
    for record in two():
        store.append(results / "speed.jsonl", record)
    return render(results, folder / "site").parent


def page_of(site: Path, kind: str) -> Path:
    """The largest of its kind."""
    name = {"list": "compare"}.get(kind, kind)
    found = list(site.glob("task-*-speed-only-*.html" if kind == "speed-only" else f"{kind}-*.html")) or [
        site / f"{name}.html"
    ]
    return max(found, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_accessible_quiet_and_fits(site: Path, kind: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    path = page_of(site, kind)
    for scheme, width in (("light", 1280), ("dark", 390)):
        with opened(site, path.name, width=width, color_scheme=scheme) as page:
            page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
            wide = page.evaluate(
                "[document.documentElement.scrollWidth, ...[...document.querySelectorAll('.scroll, .heatbox')]"
                ".filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.getAttribute('aria-label'))]"
            )
            assert wide == [width], (scheme, width)
            violations = Axe().run(page, options=RULES).response["violations"]
            found = [(rule["id"], [node["html"][:160] for node in rule["nodes"][:3]]) for rule in violations]
            assert found == [], (scheme, width)


@pytest.mark.parametrize("kind", ["index", "task", "compare", "history", "suite"])
def test_the_keyboard_reaches_every_control(site: Path, kind: str) -> None:
    with opened(site, page_of(site, kind).name) as page:
        wanted = page.evaluate(
            "[...document.querySelectorAll('a[href], button, input, select, summary, [tabindex=\"0\"]')]"
            ".filter((element) => element.checkVisibility() && !element.disabled)"
            ".map((element, place) => { element.dataset.wanted = place; return String(place); })"
        )
        reached = set[str]()
        for _ in range(len(wanted) + 5):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.dataset.wanted ?? ''"))
        assert set(wanted) - reached == set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_prints_on_a4(site: Path, kind: str) -> None:
    with opened(site, page_of(site, kind).name, width=794) as page:  # A4 at 96 dots an inch
        assert page.pdf(format="A4").startswith(b"%PDF")
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") <= 794


def test_all_works_without_scripts(site: Path) -> None:
    with opened(site, page_of(site, "compare").name, java_script_enabled=False) as page:
        page.click("summary")
        assert "points of" in page.inner_text("#every table")
    with opened(site, page_of(site, "task").name, java_script_enabled=False) as page:
        assert page.inner_text("#answer h2")
        assert page.locator(".methods tbody").count() > 1 and not page.locator("form.limits").is_visible()


def test_every_link_leads_to_a_page_and_the_head_reaches_every_kind(site: Path) -> None:
    links = {page.name: re.findall(r'href="([^"#]+)', page.read_text()) for page in site.glob("*.html")}
    for page, found in links.items():
        assert [link for link in found if not (link.startswith("https://") or (site / link).is_file())] == [], page
    heads = ("index", "compare", "history", "coverage", "benchmark-glue", "references", "method")
    assert {f"{name}.html" for name in heads} <= set(links[page_of(site, "suite").name])
    task = page_of(site, "task").name
    for name in ("compare", "history"):
        assert any(link.startswith(f"{name}-") for link in links[task])
