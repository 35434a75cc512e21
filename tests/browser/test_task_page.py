"""The page of a task in Chromium: the pick under other limits is Python's, the address keeps them, rows open, sort and filter."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from harness.report.leaderboards import Leaderboard
from harness.report.pick import Limits
from harness.report.site import render
from tests.browser.chromium import FITS, MARKS, opened, probe
from tests.report.test_leaderboards import AVX2, found, timed

pytestmark = MARKS
PAGE = "task-glue-rte-tiny-avx-512-vnni.html"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Leaderboard]:
    """Nine methods on one machine, three on another."""
    folder = tmp_path_factory.mktemp("task")
    results = folder / "results"
    mib = 2**20
    cells: list[tuple[str, str, float, int, dict[str, Any]]] = [
        ("a", "torch_fp32", 1.0, 100, {"baseline": True, "artifact_bytes": 86 * mib}),
        ("b", "onnxruntime_fp32", 1.3, 100, {"artifact_bytes": 86 * mib}),
        ("c", "onnxruntime_int8", 2.5, 108, {"artifact_bytes": 50 * mib}),
        ("d", "onnxruntime_int8_dynamic", 2.498, 103, {"artifact_bytes": 60 * mib}),
        ("e", "openvino_int8", 3.0, 150, {"artifact_bytes": 40 * mib}),
        ("f", "openvino_fp32", 1.299, 100, {"artifact_bytes": 85 * mib}),
        ("g", "openvino_bf16", 2.2, 101, {"artifact_bytes": 70 * mib}),
        ("h", "torch_bf16", 2.19, 101, {"artifact_bytes": 43 * mib}),
        ("i", "openvino_int8_bf16", 2.9, 130, {"artifact_bytes": 45 * mib}),
    ]
    for key, backend, times, wrong, changes in cells:
        timed(results, key, backend, times, wrong, **changes)
    for key, backend, times, wrong, changes in cells[:3]:
        timed(results, f"{key}2", backend, times, wrong, machine=AVX2, **changes)
    board = next(board for board in found(results) if board.page == PAGE)
    return render(results, folder / "site").parent, board


STATE = """
const state = () => ({
  title: $("[data-title]").textContent, tied: $("[data-tied]").hidden ? "" : $("[data-tied] span").textContent,
  close: !$("[data-close]").hidden, surely: $("[data-close]").textContent.split("; ")[1] ?? "",
  command: $("[data-command] code").textContent,
  outside: [...page.querySelectorAll(".methods tbody.out")].map((row) => Number(row.dataset.place)).sort(),
  why: Object.fromEntries([...page.querySelectorAll(".methods tbody")].map((row) => [row.dataset.place, row.querySelector(".tag").textContent])),
});
"""


def test_the_page_picks_as_python_does_under_many_limits(site: tuple[Path, Leaderboard]) -> None:
    folder, board = site
    limits = [
        (keep, sure, size)
        for keep in (90, 94.5, 96.6, 97, 98.2, 98.9, 99, 99.1, 99.5, 99.7, 99.9, 100)
        for sure in (False, True)
        for size in (None, 30, 44, 55, 65, 200)
    ]
    body = (
        STATE
        + f"""
const found = [];
for (const [keep, sure, size] of {json.dumps(limits)}) {{
  $("#keep").value = keep; $("#sure").checked = sure; $("#size").value = size ?? "";
  $("#keep").dispatchEvent(new Event("input", {{ bubbles: true }}));
  found.push(state());
}}
return found;"""
    )
    answers = probe(folder, PAGE, body)
    ships = set()
    for (keep, sure, size), shown in zip(limits, answers, strict=True):
        choice = board.choose(Limits(keep / 100, sure, size_mib=size))
        case = (keep, sure, size)
        outside = [board.methods.index(method) for method, _ in choice.outside]
        assert shown["outside"] == sorted(outside), case
        for method, why in choice.outside:
            assert shown["why"][str(board.methods.index(method))] == why, case
        if choice.ship is None:
            assert shown["title"] == "No method meets your limits", case
            continue
        entry = board.entry_of(choice.ship)
        ships.add(entry.name.title)
        assert (shown["title"], shown["close"]) == (entry.name.title, choice.close_call), case
        assert entry.record.record_id in shown["command"], case
        tied = [board.entry_of(method).name.short for method in choice.tied]
        assert [part.split(" (")[0] for part in shown["tied"].split("; ") if part] == tied, case
        surely = board.entry_of(choice.surely).name.short if choice.surely else ""
        assert shown["surely"].removesuffix(" surely keeps enough") == surely, case
    assert len(ships) >= 6  # the limits do change the pick


def test_the_address_keeps_the_limits(site: tuple[Path, Leaderboard]) -> None:
    folder, board = site
    change = """
$("#keep").value = "99.5"; $("#sure").checked = true; $("#memory").value = "300";
$("#keep").dispatchEvent(new Event("input", { bubbles: true }));
return { hash: location.hash, other: $(".seg a:not([aria-current])").getAttribute("href") };"""
    kept = probe(folder, PAGE, change)
    assert kept["hash"] == "#keep=99.5&sure=1&memory=300"
    assert kept["other"] == f"task-glue-rte-tiny-avx2.html{kept['hash']}"
    again = probe(folder, f"{PAGE}{kept['hash']}", STATE + 'return { ...state(), keep: $("#keep").value };')
    ship = board.choose(Limits(0.995, True, memory_mib=300)).ship
    assert ship and (again["title"], again["keep"]) == (board.entry_of(ship).name.title, "99.5")


def test_rows_sort_filter_and_open(site: tuple[Path, Leaderboard]) -> None:
    body = """
const names = () => [...page.querySelectorAll(".methods tbody")].filter((row) => !row.hidden).map((row) => row.querySelector("b").textContent);
const press = (text) => [...page.querySelectorAll(".methods thead button")].find((button) => button.textContent.startsWith(text)).click();
press("Size"); const large = names()[0]; press("Size"); const small = names()[0];
press("Method"); const last = names()[0];
$("#filter").value = "dynamic"; $("#filter").dispatchEvent(new Event("input", { bubbles: true }));
const filtered = names();
const row = [...page.querySelectorAll(".methods tbody")].find((row) => !row.hidden);
const before = row.querySelector("details div").checkVisibility();
row.querySelector("summary").click();
return { large, small, last, filtered, before, after: row.querySelector("details div").checkVisibility() };"""
    shown = probe(site[0], PAGE, body)
    assert shown["small"] == "OpenVINO INT8, static" and "FP32" in shown["large"] and shown["last"] == "PyTorch FP32"
    assert shown["filtered"] == ["ONNX Runtime INT8, dynamic"]
    assert (shown["before"], shown["after"]) == (False, True)


@pytest.mark.parametrize("page", [PAGE, "index.html", "suite-squad.html", "cell-run-c.html"])
def test_no_page_scrolls_sideways_on_a_phone(site: tuple[Path, Leaderboard], page: str) -> None:
    assert probe(site[0], page, FITS, width=390) == {"wide": 0, "out": []}


def test_the_limits_work_by_keyboard_alone(site: tuple[Path, Leaderboard]) -> None:
    """The limit moves by arrows and changes the pick; a header sorts and a row opens by Enter; the address has the limit."""
    folder, board = site
    with opened(folder, PAGE) as page:

        def tab_to(place: str) -> None:
            for _ in range(80):
                page.keyboard.press("Tab")
                if page.evaluate("(place) => document.activeElement.matches(place)", place):
                    return
            raise AssertionError(place)

        tab_to("#keep")
        for _ in range(6):
            page.keyboard.press("ArrowRight")
        assert page.input_value("#keep") == "99.6" and page.evaluate("location.hash") == "#keep=99.6"
        ship = board.choose(Limits(0.996)).ship
        assert ship and page.inner_text("[data-title]") == board.entry_of(ship).name.title
        tab_to("#sure")
        page.keyboard.press("Space")
        assert page.is_checked("#sure")
        tab_to("#filter")
        page.keyboard.type("openvino")
        assert page.locator(".methods tbody:visible").count() == 4
        tab_to(".methods thead button")
        page.keyboard.press("Enter")
        assert page.locator(".methods thead [aria-sort]").inner_text().startswith("Method")
        tab_to(".methods summary")
        page.keyboard.press("Enter")
        assert page.locator(".methods details[open] dl").is_visible()


def test_the_csv_has_the_figures_of_the_table(site: tuple[Path, Leaderboard]) -> None:
    folder, board = site
    with opened(folder, PAGE, accept_downloads=True) as page:
        with page.expect_download() as saving:
            page.click("text=CSV")
        rows = list(csv.DictReader(Path(saving.value.path()).read_text().splitlines()))
        shown = page.locator(".methods tbody .sp .v").all_inner_texts()
    assert [row["method"] for row in rows] == [method.name for method in board.methods]
    assert [f"{float(row['speed_up']):.2f}×" for row in rows] == shown
