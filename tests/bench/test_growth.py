"""A site of the committed records, and one of 10,000: processor time, memory and the sizes of its pages; then one night more.
`nox -s bench` prints them."""

from __future__ import annotations

import gzip
import math
import os
import subprocess
import sys
from pathlib import Path

from harness.machine import paths
from tests.report.growing import grow

CELLS, NIGHTS = 2_000, 5
NIGHT = 208
"""Cells of the one night that comes after."""

BUILD = """
import resource, sys
from pathlib import Path
from harness.report.site import render
render(Path(sys.argv[1]), Path(sys.argv[2]))
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def build(results: Path, folder: Path) -> tuple[float, float]:
    """Seconds of the processor and MiB of a build in a process of its own, imports of compiled modules included. folder: for the site and
    the cache."""
    environment = os.environ | {"QUANTBOARD_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONDONTWRITEBYTECODE"] = ""
    subprocess.run([sys.executable, "-c", "import harness.report.site"], env=environment, check=True)
    command = [sys.executable, "-c", BUILD, str(results), str(folder / "site")]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    seconds, mebibytes = map(float, shown.split())
    return seconds, mebibytes


def test_the_committed_records(tmp_path: Path) -> None:
    seconds, mebibytes = build(paths.results(), tmp_path)
    print(f"\nthe committed records: {seconds:.1f} s, {mebibytes:.0f} MiB")
    assert seconds < 5


def test_ten_thousand_records(tmp_path: Path) -> None:
    results = tmp_path / "results"
    copies = math.ceil(CELLS / grow(tmp_path / "once", copies=1, nights=1))
    count = grow(results, copies=copies, nights=NIGHTS)
    whole = build(results, tmp_path)
    pages = [(len(gzip.compress(page.read_bytes())), page.name) for page in (tmp_path / "site").glob("*.html")]
    again = build(results, tmp_path)
    grow(results, copies=1, nights=1, first_night=NIGHTS, cells=NIGHT)
    run = build(results, tmp_path)
    grow(results, copies=copies, nights=1, first_night=NIGHTS + 1)
    night = build(results, tmp_path)
    print(f"\n{count} records: {whole[0]:.1f} s, {whole[1]:.0f} MiB; the same again: {again[0]:.1f} s")
    print(f"largest of {len(pages)} pages, compressed: {max(pages)[0] / 1024:.0f} KiB, {max(pages)[1]}")
    print(f"a night of {NIGHT} cells more: {run[0]:.1f} s; a night of all cells: {night[0]:.1f} s, {night[1]:.0f} MiB")
    assert whole[0] < 30 and whole[1] < 500
    assert max(pages)[0] < 200 * 1024
    assert run[0] < 5
