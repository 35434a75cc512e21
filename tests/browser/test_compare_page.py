"""The page Compare in Chromium: the address chooses the methods, the choice changes the address, Holm's p is Python's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.measure.paired import holm
from harness.report.columns import p_text
from harness.report.site import render
from tests.browser.chromium import FITS, MARKS, probe
from tests.report.test_compare_page import PAGE, compared
from tests.report.test_leaderboards import timed

pytestmark = MARKS
CELLS: list[tuple[str, str, float, int, dict[str, Any]]] = [
    ("a", "torch_fp32", 1.0, 100, {"baseline": True}),
    ("b", "onnxruntime_fp32", 1.3, 100, {}),
    ("c", "onnxruntime_int8", 2.5, 108, {}),
    ("d", "onnxruntime_int8_dynamic", 2.49, 103, {}),
    ("e", "openvino_int8", 3.0, 150, {}),
]
STATE = """
const state = () => ({
  heading: $("#heading").textContent, hash: location.hash,
  cards: [...page.querySelectorAll(".pr")].map((card) => [card.querySelector("h3").textContent, card.querySelector(".big").textContent, card.querySelector(".verd small").textContent]),
  selects: [...page.querySelectorAll("select")].map((select) => select.selectedOptions[0].textContent),
  columns: page.querySelectorAll(".sbs thead th").length,
  counts: [...page.querySelectorAll(".pp b")].map((count) => Number(count.textContent.replace(",", ""))),
});
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    for key, backend, times, wrong, changes in CELLS:
        timed(folder / "results", key, backend, times, wrong, **changes)
    return render(folder / "results", folder / "site").parent


def test_the_address_chooses_and_the_choice_is_kept_in_it(site: Path) -> None:
    shown = probe(site, f"{PAGE}#onnxruntime_int8,openvino_int8", STATE + "return state();")
    assert shown["heading"] == "ONNX Runtime INT8" or "ORT INT8 static" in shown["heading"]
    assert shown["cards"][0][0] == "ORT INT8 static less OpenVINO INT8 static"
    assert (len(shown["cards"]), shown["columns"], sum(shown["counts"])) == (1, 2, 1000)
    change = (
        STATE
        + """
const choose = (slot, text) => {
  const select = page.querySelector(`[data-slot="${slot}"]`);
  select.value = [...select.options].find((option) => option.textContent === text).value;
  select.dispatchEvent(new Event("change", { bubbles: true }));
};
choose(2, "PyTorch FP32"); const three = state();
choose(3, "ORT FP32"); const four = state();
const focus = page.activeElement.dataset.slot;
choose(2, "no other"); return { three, four, focus, again: state() };"""
    )
    found = probe(site, f"{PAGE}#onnxruntime_int8,openvino_int8", change)
    assert found["three"]["hash"] == "#onnxruntime_int8,openvino_int8,torch_fp32" and found["focus"] == "3"
    assert [len(found[name]["cards"]) for name in ("three", "four", "again")] == [3, 6, 3]
    assert found["again"]["selects"][:3] == ["ORT INT8 static", "OpenVINO INT8 static", "ORT FP32"]
    permalink = probe(site, f"{PAGE}{found['four']['hash']}", STATE + "return state();")
    assert permalink == found["four"]


def test_points_and_corrected_p_are_pythons(site: Path) -> None:
    board, pairs, _ = compared(site.parent / "results")
    chosen = ["openvino_int8", "onnxruntime_int8", "onnxruntime_int8_dynamic"]
    shown = probe(site, f"{PAGE}#{','.join(chosen)}", STATE + "return state();")
    place = {entry.method.name: at for at, entry in enumerate(board.entries)}
    tests = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        mine, theirs = place[chosen[a]], place[chosen[b]]
        pair = next(pair for pair in pairs.pairs if {pair.mine, pair.theirs} == {mine, theirs})
        tests.append((pair.points, 1 if pair.mine == mine else -1))
    for (test, sign), p, (_, points, words) in zip(
        tests, holm([test.p for test, _ in tests]), shown["cards"], strict=True
    ):
        assert points.startswith(f"{sign * test.value:+.2f}".replace("-", "−"))
        if p is not None and p >= 0.001:
            assert float(words.split("p = ")[1]) == pytest.approx(p, abs=6e-4)
        else:
            assert words.endswith(p_text(p))


def test_an_address_of_unknown_names_shows_the_pick(site: Path) -> None:
    shown = probe(site, f"{PAGE}#nobody,%E0%A4%A", STATE + "return state();")
    assert len(shown["cards"]) == 3 and shown["selects"][3] == "no other"


def test_it_fits_a_phone(site: Path) -> None:
    assert probe(site, PAGE, FITS, width=390) == {"wide": 0, "out": []}
