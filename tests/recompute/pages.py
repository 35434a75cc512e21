"""Figures that stand in texts: README's result and the macro average of a suite's page."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from tests.recompute.accuracy import columns, value_of
from tests.recompute.pairs import geometric_ratio, interleaved, standard_error, t_of, units_that_differ
from tests.recompute.tally import EXACT, Record, Tally

NUMBER = r"([+-]?\d+(?:\.\d+)?)"
INTERVAL = rf"{NUMBER} \[{NUMBER}, {NUMBER}\]"


def as_printed(tally: Tally, kind: str, where: str, text: str, ours: float) -> None:
    """A rounded number: half a unit of its last digit."""
    bound = 0.5 * 10.0 ** -len(text.partition(".")[2])
    tally.add(kind, where, abs(float(text) - ours), bound + EXACT, f"printed {text}, recomputed {ours}", "as printed")


def check_readme(tally: Tally, readme: str, records: list[tuple[Record, Path]]) -> None:
    """README's result: one line a backend, from the records that it names."""
    block = readme.split("<!-- result of ", 1)[1].split("<!-- end of result", 1)[0]
    (split, *_) = [line for line in block.splitlines() if line.startswith("Suite ")]
    files = re.findall(r"`results/([^`]+\.jsonl)`", split)
    runs = {Path(file).stem for file in files}
    cells = {record["backend"]: (record, folder) for record, folder in records if record["run_id"] in runs}
    baseline, metric, value = re.findall(rf"Baseline: `(\w+)`, (\w+) {NUMBER}", split)[0]
    as_printed(tally, "README's result", baseline, value, cells[baseline][0]["accuracy"][0]["metrics"][metric]["value"])
    lines = re.findall(r"^- `(\w+)`: (.*)$", block, flags=re.M)
    if not lines:
        tally.fail("README's result", "README.md", "no line of a backend")
    for backend, text in lines:
        own = backend.partition("_int8")[0] + "_fp32"
        for number, low, high, other, rest in re.findall(rf"{INTERVAL} times as fast as (\S+ \w*)([^\[]*)", text):
            than = baseline if other.startswith("`") else own
            ours = geometric_ratio(interleaved(cells[backend][0], cells[than][0], "real", None))
            for printed, exact in zip((number, low, high), ours[:3], strict=True):
                as_printed(tally, "README's result", f"{backend} over {than}", printed, exact)
            for width in re.findall(rf"imprecise \(±{NUMBER}%\)", rest):
                exact = 100 * max(ours[2] / ours[0] - 1, 1 - ours[1] / ours[0])
                as_printed(tally, "README's result", f"{backend} over {than}", width, exact)
        check_printed_difference(tally, backend, metric, text, cells[backend], cells[baseline])


def check_printed_difference(
    tally: Tally, backend: str, metric: str, text: str, a: tuple[Record, Path], b: tuple[Record, Path]
) -> None:
    """The difference to the baseline in points; with its ends."""
    scores = [columns(record["accuracy"][0], folder) for record, folder in (a, b)]
    for number, low, high in re.findall(rf"{metric} {NUMBER}(?: \[{NUMBER}, {NUMBER}\])? points", text):
        value = value_of(metric, scores[0]) - value_of(metric, scores[1])
        as_printed(tally, "README's result", f"{backend} {metric}", number, value)
        if low:
            _, freedom = units_that_differ(metric, *scores)
            half = t_of(freedom).ppf(0.975) * standard_error(metric, *scores)
            as_printed(tally, "README's result", f"{backend} {metric} low", low, value - half)
            as_printed(tally, "README's result", f"{backend} {metric} high", high, value + half)


def macro_average(tasks: list[Record]) -> tuple[float, float, float]:
    """Mean of the tasks' scores and its MOVER interval; metrics of one task count with the mean of their half-widths."""
    figures = [[f for part in record["accuracy"] for f in part["metrics"].values()] for record in tasks]
    parts = np.array(
        [
            np.mean([[f["value"], f["value"] - f["low"], f["high"] - f["value"]] for f in task], axis=0)
            for task in figures
        ]
    )
    value = float(parts[:, 0].mean())
    below, above = (float(np.sqrt((parts[:, i] ** 2).sum()) / len(tasks)) for i in (1, 2))
    return value, value - below, value + above


def check_macro(tally: Tally, page: str, records: list[Record]) -> None:
    """The macro averages of a suite's page, whose suite has one model and seed: of the newest records, where all tasks have one."""
    rows: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: str(record["finished"])):
        if record["accuracy"]:
            rows[record["label"]][record["task"]] = record
    tasks = {record["task"] for record in records}
    table = page.split("macro average</h2>", 1)[1].split("</table>", 1)[0]
    for row in re.findall(r"<tr>\s*<th scope=\"row\">(.*?)</tr>", table, flags=re.S):
        name, _, cells = row.partition("</th>")
        label = html.unescape(re.sub(r"<[^>]+>", "", name)).strip()
        found = re.findall(rf'data-order="([\d.]+)">[\d.]+<br><small>{NUMBER} to {NUMBER}', cells)
        tally.compare("rows with a macro average", label, bool(found), rows[label].keys() == tasks)
        if not found:
            continue
        stored, low, high = found[0]
        ours = macro_average(list(rows[label].values()))
        tally.compare("macro averages", label, float(stored), ours[0])
        as_printed(tally, "ends of macro averages", label, low, ours[1])
        as_printed(tally, "ends of macro averages", label, high, ours[2])
