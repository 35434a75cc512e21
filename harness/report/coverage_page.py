"""What has run where, as a matrix: a row a task and model, a column a backend, a mark a machine; and what has not run at all."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup

from backends.titles import titles
from harness.records.schema import Record
from harness.report.comparability import has_valid_accuracy, is_sample, is_whole, machine_of
from harness.report.leaderboards import SPEED_ONLY
from harness.report.machines import Machine, machines
from tasks.titles import task_order, task_title


@dataclass(frozen=True)
class Mark:
    """kind: `full` (scored, and timed where its engine can be), `scored`, `absent`, `unable`, `failed` or `unasked`. text: what
    the mark shows. title: what it means, with the reason."""

    kind: str
    text: str
    title: str

    @property
    def html(self) -> Markup:
        return _html(self)


@cache
def _html(mark: Mark) -> Markup:
    """Few marks differ, and a page of many machines has thousands of them."""
    form = '<span class="cell {}" role="img" aria-label="{}" title="{}">{}</span>'
    return Markup(form).format(mark.kind, mark.title, mark.title, mark.text)


@dataclass(frozen=True)
class CoverageRow:
    """cells: by backend, a mark a machine."""

    task: str
    model: str
    cells: tuple[tuple[Mark, ...], ...]


@dataclass(frozen=True)
class CoveragePage:
    """counts: (number, what). legend: the marks that occur. machines, columns: titles. idle: suites without a record of real data:
    (title, name, how to run it)."""

    counts: tuple[tuple[str, str], ...]
    legend: tuple[Mark, ...]
    machines: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[CoverageRow, ...]
    idle: tuple[tuple[str, str, str], ...]


LEGEND = {
    "full": ("●", "measured"),
    "scored": ("○", "scored, not timed"),
    "absent": ("·", "not run on this machine"),
    "unable": ("×", "cannot run here"),
    "failed": ("!", "failed"),
    "unasked": ("–", "no suite asks for it"),
}


def coverage_page(records: Sequence[Record], suites: Path) -> CoveragePage:
    """records: the newest of each cell; those of the sample are left out. suites: the folder of the suite files."""
    real = [record for record in records if not is_sample(record)]
    hosts = list(machines(real).values())
    backends = sorted(
        {record.backend for record in real}, key=lambda name: (_is_simulated(real, name), titles(name), name)
    )
    cells: dict[tuple[str, str], dict[tuple[str, str], list[Record]]] = {}
    for record in real:
        place = cells.setdefault((record.task, record.model), {})
        place.setdefault((record.backend, machine_of(record)), []).append(record)
    ordered = sorted(cells, key=lambda key: (task_order(key[0]), key))
    rows, task = [], ""
    for key in ordered:
        marks = tuple(_marks(cells[key], backend, hosts) for backend in backends)
        alone = any(record.speed_only for own in cells[key].values() for record in own)
        model = f"{key[1]}, {SPEED_ONLY}" if alone else key[1]
        rows.append(CoverageRow(task_title(key[0]) if key[0] != task else "", model, marks))
        task = key[0]
    return CoveragePage(
        counts=tuple(_counts(rows)),
        legend=tuple(_legend(rows)),
        machines=tuple(host.title for host in hosts),
        columns=tuple(titles(name)[1] + _dynamic(name) for name in backends),
        rows=tuple(rows),
        idle=tuple(_idle(suites, {record.suite for record in real if record.measured})),
    )


def _dynamic(name: str) -> str:
    return " dynamic" if name.endswith("_dynamic") else ""


def _is_simulated(records: Sequence[Record], backend: str) -> bool:
    return any(record.simulated for record in records if record.backend == backend)


def _marks(
    place: Mapping[tuple[str, str], Sequence[Record]], backend: str, hosts: Sequence[Machine]
) -> tuple[Mark, ...]:
    asked = any(name == backend for name, _ in place)
    return tuple(_mark(place.get((backend, host.identity), ()), host, asked=asked) for host in hosts)


def _mark(records: Sequence[Record], host: Machine, *, asked: bool) -> Mark:
    """The best that any of the records has."""
    scored = [record for record in records if has_valid_accuracy(record) and is_whole(record)]
    full = [record for record in scored if record.simulated or record.speed or record.turns]
    reason = next((f"{record.why}" for record in records if record.why), "")
    kind = "unasked" if not asked else "absent"
    if full or scored:
        kind = "full" if full else "scored"
    elif any(record.status == "skipped" for record in records):
        kind = "unable"
    elif records:
        kind = "failed"
    sign, meaning = LEGEND[kind]
    seeds = len({record.seed for record in scored})
    told = f": {reason}" if reason and kind in ("unable", "failed") else f", {seeds} seeds" if seeds > 1 else ""
    return Mark(kind, f"{seeds}" if seeds > 1 else sign, f"{host.title}: {meaning}{told}")


def _counts(rows: Sequence[CoverageRow]) -> list[tuple[str, str]]:
    marks = [mark.kind for row in rows for cell in row.cells for mark in cell if mark.kind != "unasked"]
    shown = [(kind, marks.count(kind)) for kind in ("full", "scored", "absent", "unable", "failed")]
    return [(str(count), LEGEND[kind][1]) for kind, count in shown if count]


def _legend(rows: Sequence[CoverageRow]) -> list[Mark]:
    marks = [mark for row in rows for cell in row.cells for mark in cell]
    kinds = {mark.kind for mark in marks}
    found = [Mark(kind, *LEGEND[kind]) for kind in LEGEND if kind in kinds]
    seeds = next((mark for mark in marks if mark.text.isdigit()), None)
    return [*found, Mark(seeds.kind, seeds.text, "number of seeds")] if seeds else found


def _idle(suites: Path, measured: AbstractSet[str]) -> list[tuple[str, str, str]]:
    files = sorted(file for file in suites.glob("*.toml") if file.stem not in measured and file.stem != "sample")
    return [(_title(file), file.stem, f"quantboard run {file.stem}") for file in files]


def _title(file: Path) -> str:
    return str(tomllib.loads(file.read_text(encoding="utf-8")).get("title", ""))
