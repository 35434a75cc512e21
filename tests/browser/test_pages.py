"""The built site in Chromium, opened from a file: the policy lets its own style and script work, and tables sort."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import record
from harness.report.site import render
from tests.harness.records import make_record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --virtual-time-budget=3000"
)
PROBE = """
<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument;
  const table = page.querySelector("table.sortable");
  const first = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
  const header = [...table.tHead.rows[0].cells].find((cell) => cell.textContent.startsWith("f1"));
  const before = first();
  header.querySelector("button").click();
  const down = first();
  header.querySelector("button").click();
  const up = first();
  const style = frame.contentWindow.getComputedStyle(page.querySelector(".badge"));
  const wide = page.documentElement.scrollWidth - frame.clientWidth;
  document.querySelector("#out").textContent = JSON.stringify({ before, down, up, radius: style.borderRadius, wide });
});
</script>
"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_table_sorts_and_fits(tmp_path: Path, width: int) -> None:
    for key, f1, qps in (("a", 70.0, 30.0), ("b", 80.0, 20.0), ("c", 75.0, 10.0)):
        record.append(tmp_path / "results" / "run.jsonl", make_record(key=key, label=key, f1=f1, qps=qps))
    record.append(tmp_path / "results" / "run.jsonl", make_record(key="s", label="s", status="skipped", accuracy=[]))
    site = render(tmp_path / "results", tmp_path / "site").parent
    frame = f'<iframe src="suite-squad.html" width="{width}" height="900"></iframe>'
    (site / "probe.html").write_text(f'<!doctype html><pre id="out"></pre>{frame}{PROBE}')
    command = [str(CHROMIUM), *FLAGS.split(), "--allow-file-access-from-files", f"--user-data-dir={tmp_path}/profile"]
    shown = subprocess.run(
        [*command, "--window-size=1400,1000", "--dump-dom", f"file://{site}/probe.html"],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    found = json.loads(shown.split('<pre id="out">')[1].split("</pre>")[0])
    assert found["before"] == ["a", "b", "c"]  # fastest first
    assert found["down"] == ["b", "c", "a"]
    assert found["up"] == ["a", "c", "b"]
    assert found["radius"] != "0px"  # the style sheet's hash is right
    assert found["wide"] <= 0  # the table scrolls in its own box, the page does not
