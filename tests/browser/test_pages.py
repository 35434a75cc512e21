"""The built site in Chromium, opened from a file: the policy lets its own style and script work, and tables sort."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.records import store
from harness.report.site import render
from tests.records.records import make_record
from tests.report.test_macro_average import METRICS, glue_record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --virtual-time-budget=3000"
)
# The page's last table that sorts, pressed at the header whose text begins with HEADER.
PROBE = """
<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument;
  const table = [...page.querySelectorAll("table.sortable")].at(-1);
  const first = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
  const header = [...table.tHead.rows[0].cells].find((cell) => cell.textContent.startsWith("HEADER"));
  const before = first();
  header.querySelector("button").click();
  const down = first();
  header.querySelector("button").click();
  const up = first();
  const style = frame.contentWindow.getComputedStyle(page.querySelector(".badge") ?? table);
  const wide = page.documentElement.scrollWidth - frame.clientWidth;
  document.querySelector("#out").textContent = JSON.stringify({ before, down, up, radius: style.borderRadius, wide });
});
</script>
"""


def probe(site: Path, page: str, header: str, width: int) -> dict[str, Any]:
    """Rows of the page's last table before and after its header was pressed once and twice."""
    frame = f'<iframe src="{page}" width="{width}" height="900"></iframe>'
    script = PROBE.replace("HEADER", header)
    (site / "probe.html").write_text(f'<!doctype html><pre id="out"></pre>{frame}{script}')
    command = [str(CHROMIUM), *FLAGS.split(), "--allow-file-access-from-files", f"--user-data-dir={site}/../profile"]
    shown = subprocess.run(
        [*command, "--window-size=1400,1000", "--dump-dom", f"file://{site}/probe.html"],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    found: dict[str, Any] = json.loads(shown.split('<pre id="out">')[1].split("</pre>")[0])
    return found


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_table_sorts_and_fits(tmp_path: Path, width: int) -> None:
    for key, f1, qps in (("a", 70.0, 30.0), ("b", 80.0, 20.0), ("c", 75.0, 10.0)):
        store.append(tmp_path / "results" / "run.jsonl", make_record(key=key, label=key, f1=f1, qps=qps))
    store.append(tmp_path / "results" / "run.jsonl", make_record(key="s", label="s", status="skipped", accuracy=[]))
    found = probe(render(tmp_path / "results", tmp_path / "site").parent, "suite-squad.html", "f1", width)
    assert found["before"] == ["a", "b", "c"]  # fastest first
    assert found["down"] == ["b", "c", "a"]
    assert found["up"] == ["a", "c", "b"]
    assert found["radius"] != "0px"  # the style sheet's hash is right
    assert found["wide"] <= 0  # the table scrolls in its own box, the page does not


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_page_with_a_macro_average_sorts_every_table(tmp_path: Path) -> None:
    for task in METRICS:
        for label, seed in (("a", 1), ("b", 2)):
            store.append(
                tmp_path / "results" / "run.jsonl", glue_record(task, seed=seed).model_copy(update={"label": label})
            )
    found = probe(render(tmp_path / "results", tmp_path / "site").parent, "suite-glue.html", "seed", 1280)
    assert sorted(found["before"]) == ["a", "b"]
    assert found["down"] == ["b", "a"]
    assert found["up"] == ["a", "b"]
