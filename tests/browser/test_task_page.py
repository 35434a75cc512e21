"""The page of a task in Chromium: the pick under other limits is Python's, the address keeps them, rows open, sort and filter."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.report.leaderboards import Leaderboard
from harness.report.pick import Limits
from harness.report.site import render
from tests.browser.test_pages import CHROMIUM, FLAGS
from tests.report.test_leaderboards import AVX2, found, timed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
PAGE = "task-glue-rte-tiny-avx-512-vnni.html"
PROBE = """
<!doctype html><pre id="out"></pre><iframe src="PAGE" width="WIDTH" height="900"></iframe>
<script>
const frame = document.querySelector("iframe");
const errors = [];
frame.addEventListener("load", async () => {
  const page = frame.contentDocument;
  frame.contentWindow.addEventListener("error", (event) => errors.push(event.message));
  const $ = (place) => page.querySelector(place);
  let found;
  try { found = await (async () => { BODY })(); } catch (error) { found = { error: String(error) }; }
  document.querySelector("#out").textContent = JSON.stringify({ found, errors });
});
</script>
"""


def probe(site: Path, page: str, body: str, width: int = 1280) -> Any:
    """What a script that runs beside the page returns."""
    text = PROBE.replace("PAGE", page).replace("WIDTH", str(width)).replace("BODY", body)
    (site / "probe.html").write_text(text)
    command = [str(CHROMIUM), *FLAGS.split(), "--allow-file-access-from-files", f"--user-data-dir={site}/../profile"]
    shown = subprocess.run(
        [*command, "--window-size=1400,1000", "--dump-dom", f"file://{site}/probe.html"],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    (site / "probe.html").unlink()
    answer: dict[str, Any] = json.loads(html.unescape(shown.split('<pre id="out">')[1].split("</pre>")[0]))
    assert answer["errors"] == [] and "error" not in (answer["found"] or {}), answer
    return answer["found"]


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
return { hash: frame.contentWindow.location.hash, other: $(".seg a:not([aria-current])").getAttribute("href") };"""
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
    body = """
const wide = page.documentElement.scrollWidth - page.documentElement.clientWidth;
const out = [...page.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > 391 && !e.closest(".scroll, svg, .sr, pre"));
return { wide, out: out.slice(0, 5).map((e) => e.outerHTML.slice(0, 80)) };"""
    assert probe(site[0], page, body, width=390) == {"wide": 0, "out": []}


def test_the_limits_work_by_keyboard_alone(site: tuple[Path, Leaderboard]) -> None:
    """Every control takes the focus, in the order of the page."""
    body = """
const wanted = ["#keep", "#sure", "#p90", "#size", "#filter", ".methods thead button", ".methods summary"];
const reached = wanted.filter((place) => { $(place).focus(); return page.activeElement === $(place) && $(place).tabIndex >= 0; });
const order = wanted.slice(0, 5).map((place) => $(place));
const inOrder = order.every((element, at) => !at || order[at - 1].compareDocumentPosition(element) & 4);
return { missing: wanted.filter((place) => !reached.includes(place)), inOrder };"""
    assert probe(site[0], PAGE, body) == {"missing": [], "inOrder": True}


def test_the_page_prints_on_a4(site: tuple[Path, Leaderboard], tmp_path: Path) -> None:
    command = [
        str(CHROMIUM),
        *FLAGS.split(),
        f"--user-data-dir={tmp_path}/profile",
        f"--print-to-pdf={tmp_path}/page.pdf",
    ]
    subprocess.run([*command, f"file://{site[0]}/{PAGE}"], capture_output=True, timeout=120, check=True)
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    shutil.rmtree(tmp_path / "profile", ignore_errors=True)
