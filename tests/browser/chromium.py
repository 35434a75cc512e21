"""One Chromium for all tests of pages: Debian's, driven by Playwright. A page is opened from its file; what it says in the console, and
every request that leaves its folder, fails the test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MARKS = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
_STARTED: list[Any] = []


@cache
def browser() -> Any:
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    running = sync_playwright().start()
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    _STARTED.extend([running, running.chromium.launch(executable_path=CHROMIUM, args=flags)])
    return _STARTED[1]


def close() -> None:
    if _STARTED:
        running, chromium = _STARTED
        chromium.close()
        running.stop()


@contextmanager
def opened(site: Path, name: str, **options: Any) -> Iterator[Any]:
    """A page of a site. name: its file, perhaps with a hash. options: of Playwright's context; `width` of the window, 1280."""
    size = {"width": options.pop("width", 1280), "height": 900}
    context = browser().new_context(viewport=size, **options)
    said, asked = list[str](), list[str]()
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.resolve().as_uri()}/{name}")
    try:
        yield page
        assert said == []
        assert [url for url in asked if not url.startswith(site.resolve().as_uri())] == []
    finally:
        context.close()


def probe(site: Path, name: str, body: str, width: int = 1280) -> Any:
    """What a script in the page returns. It finds the document as `page`, its query as `$`, and its window as `view`."""
    with opened(site, name, width=width) as page:
        script = "async () => { const page = document, view = window, $ = (place) => page.querySelector(place);" + body
        return page.evaluate(script + "}")


FITS = """
const wide = page.documentElement.scrollWidth - page.documentElement.clientWidth;
const out = [...page.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > 391 && !e.closest(".scroll, svg, .sr, pre"));
return { wide, out: out.slice(0, 5).map((e) => e.outerHTML.slice(0, 80)) };"""
"""For `probe` at a phone's width: how far the page scrolls sideways, and what stands outside of it."""
