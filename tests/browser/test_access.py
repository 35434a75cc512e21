"""Every kind of page in Debian's Chromium: axe-core finds nothing, nothing is fetched from outside the folder, no console error,
no sideways scroll, the keyboard reaches all controls, and it prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.records import store
from harness.report.site import render
from tests.browser.test_pages import CHROMIUM
from tests.report.test_history import night, timed_run
from tests.report.test_leaderboards import SKIPPED, timed
from tests.report.test_macro_average import METRICS, glue_record

pytest.importorskip("playwright.sync_api")
pytest.importorskip("axe_playwright_python")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
KINDS = ("index", "coverage", "references", "method", "suite", "task", "cell", "compare", "history", "benchmark")
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights of a committed run, a leaderboard of made-up methods, and a benchmark's tasks."""
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
    return render(results, folder / "site").parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


def page_of(site: Path, kind: str) -> Path:
    """The largest of its kind."""
    found = [site / f"{kind}.html"] if (site / f"{kind}.html").exists() else list(site.glob(f"{kind}-*.html"))
    return max(found, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_accessible_quiet_and_fits(site: Path, browser: Any, kind: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    path = page_of(site, kind)
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        page = context.new_page()
        said, asked = list[str](), list[str]()
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto(path.as_uri())
        for details in page.query_selector_all("details"):
            details.evaluate("element => { element.open = true; }")
        wide = page.evaluate(
            "[document.documentElement.scrollWidth, ...[...document.querySelectorAll('.scroll, .heatbox')]"
            ".filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.getAttribute('aria-label'))]"
        )
        assert wide == [width], (scheme, width)
        violations = Axe().run(page, options=RULES).response["violations"]
        assert [(rule["id"], [node["html"][:160] for node in rule["nodes"][:3]]) for rule in violations] == [], scheme
        assert said == [] and set(asked) == {path.as_uri()}
        context.close()


@pytest.mark.parametrize("kind", ["index", "task", "compare", "suite"])
def test_the_keyboard_reaches_every_control(site: Path, browser: Any, kind: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(page_of(site, kind).as_uri())
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
    page.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_prints_on_a4(site: Path, browser: Any, kind: str) -> None:
    page = browser.new_page()
    page.goto(page_of(site, kind).as_uri())
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 794, "height": 1123})  # A4 at 96 dots an inch
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    page.close()


def test_all_works_without_scripts(site: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_of(site, "compare").as_uri())
    page.click("summary")
    assert "points of" in page.inner_text("#every table")
    page.goto(page_of(site, "task").as_uri())
    assert page.inner_text("#answer h2")
    context.close()
