"""Tables of a suite's page sort, in Chromium; the policy lets its own style and script work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.records import store
from harness.report.site import render
from tests.browser.chromium import MARKS, probe
from tests.records.records import make_record
from tests.report.test_macro_average import METRICS, glue_record

pytestmark = MARKS
SORTED = """
const table = [...page.querySelectorAll("table.sortable")].at(-1);
const first = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
const header = [...table.tHead.rows[0].cells].find((cell) => cell.textContent.startsWith("HEADER"));
const before = first();
header.querySelector("button").click();
const down = first();
header.querySelector("button").click();
const up = first();
const style = getComputedStyle(page.querySelector(".badge") ?? table);
return { before, down, up, radius: style.borderRadius, wide: page.documentElement.scrollWidth - view.innerWidth };
"""


def pressed(site: Path, page: str, header: str, width: int) -> dict[str, Any]:
    """Rows of the page's last table that sorts, before and after its header was pressed once and twice."""
    found: dict[str, Any] = probe(site, page, SORTED.replace("HEADER", header), width)
    return found


@pytest.mark.parametrize("width", [1280, 390])
def test_the_table_sorts_and_fits(tmp_path: Path, width: int) -> None:
    for key, f1, qps in (("a", 70.0, 30.0), ("b", 80.0, 20.0), ("c", 75.0, 10.0)):
        store.append(tmp_path / "results" / "run.jsonl", make_record(key=key, label=key, f1=f1, qps=qps))
    store.append(tmp_path / "results" / "run.jsonl", make_record(key="s", label="s", status="skipped", accuracy=[]))
    found = pressed(render(tmp_path / "results", tmp_path / "site").parent, "suite-squad.html", "f1", width)
    assert found["before"] == ["a", "b", "c"]  # fastest first
    assert found["down"] == ["b", "c", "a"]
    assert found["up"] == ["a", "c", "b"]
    assert found["radius"] != "0px"  # the style sheet's hash is right
    assert found["wide"] <= 0  # the table scrolls in its own box, the page does not


def test_a_page_with_a_macro_average_sorts_every_table(tmp_path: Path) -> None:
    for task in METRICS:
        for label, seed in (("a", 1), ("b", 2)):
            store.append(
                tmp_path / "results" / "run.jsonl", glue_record(task, seed=seed).model_copy(update={"label": label})
            )
    found = pressed(render(tmp_path / "results", tmp_path / "site").parent, "suite-glue.html", "seed", 1280)
    assert sorted(found["before"]) == ["a", "b"]
    assert found["down"] == ["b", "a"]
    assert found["up"] == ["a", "b"]
