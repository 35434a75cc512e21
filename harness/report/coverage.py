"""What has run where (`docs/coverage.md`), and the result that README.md shows: both are made from records.

`python -m harness.report.coverage` writes them; a test fails where they are not what the records say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.machine import paths
from harness.measure.paired import PairedTest
from harness.measure.precision import in_words
from harness.records import store
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report import columns
from harness.report.boards import Board, latest, make_boards
from harness.report.comparability import (
    data_of,
    has_valid_accuracy,
    is_sample,
    is_speed_invalid,
    is_whole,
    wanted_precision,
)
from harness.report.compare import Comparison
from harness.report.machines import kind_of
from harness.report.missing import describe, missing_cells, requested_cells
from harness.report.speed_ratios import INTERLEAVED

ALWAYS = ("AVX2", "AVX-512 VNNI", "AMX", "GPU")
"""Columns that the table has even where nothing has run."""

HEAD = """# What has run where

Made from the records below `results/` by `nox -s docs`. Do not edit it.

A cell lists its backends, each with three numbers of records (models x seeds):

1. **accuracy**: measured on the whole evaluation split, and no rule fails for it (random weights have none);
2. **speed**: measured, and no rule fails for any of its figures;
3. **interleaved**: timed in turn with the other cells of its table. Such a speed-up holds on a noisy machine, too.

In brackets: why the others have no accuracy or speed, as their records say. [method.md](method.md) lists the rules.
"""


def coverage(records: Iterable[Record], suites: Path) -> str:
    """The page as Markdown. records: the newest of each cell; those of the sample are left out. suites: the folder of the
    suite files, which say what else was asked for."""
    records = [record for record in records if not is_sample(record)]
    kinds = [*ALWAYS, *(kind for kind in dict.fromkeys(map(kind_of, records)) if kind not in ALWAYS)]
    rows: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        rows.setdefault((record.suite, record.task, data_of(record)), []).append(record)
    lines = [HEAD, _line("suite", "task", "data", *kinds), _line(*["---"] * (3 + len(kinds)))]
    for (suite, task, data), row in sorted(rows.items()):
        cells = [_cell([record for record in row if kind_of(record) == kind]) for kind in kinds]
        lines.append(_line(f"`{suite}`", f"`{task}`", data, *cells))
    lines += ["", "## Asked for by a suite, without a record", ""]
    for file in sorted(suites.glob("*.toml")):
        own = [record for record in records if record.suite == file.stem]
        requested = requested_cells(file, own)
        if file.stem != "sample" and (missing := missing_cells(requested, own)):
            lines.append(f"- `{file.stem}`: {'; '.join(describe(missing, requested)) if own else 'all of it'}")
    return "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _cell(records: Sequence[Record]) -> str:
    return "<br>".join(
        _counts(backend, [record for record in records if record.backend == backend])
        for backend in sorted({record.backend for record in records})
    )


def _counts(backend: str, records: Sequence[Record]) -> str:
    usable = [record for record in records if has_valid_accuracy(record) and is_whole(record)]
    accurate = [record for record in usable if not record.speed_only]
    interleaved = [record for record in usable if record.turns]
    lost = Counter(reason for record in records if (reason := _why_lost(record)))
    timed = len(usable) - sum(_why_lost(record) != "" for record in usable)
    why = "; ".join(f"{count} {reason}" for reason, count in lost.items())
    return f"`{backend}` {len(accurate)}, {timed}, {len(interleaved)}" + f" ({why})" * bool(why)


def _why_lost(record: Record) -> str:
    """Why a record has no accuracy or no speed that counts; nothing where it has both."""
    rules = ", ".join(dict.fromkeys(finding.rule for finding in record.faults))
    if not has_valid_accuracy(record):
        return record.why or rules or record.standing
    if not is_whole(record):
        return "a part of the split"
    if not record.speed:
        return columns.why_untimed(record) or "not timed"
    return rules if any(is_speed_invalid(record, speed) for speed in record.speed) else ""


def result(board: Board) -> str:
    """The three fastest cells of a board against their baseline, as Markdown: the conditions, then a line a cell."""
    compared = [row for row in board.rows if row.comparison.differences and row.comparison.base][:3]
    if not compared or (base := compared[0].comparison.base) is None:
        raise ValueError(f"{board.suite}: no cell is compared with a baseline")
    figure = next(part for part in base.accuracy if part.split == board.split).metrics[board.primary]
    files = sorted({f"`results/{row.record.suite}/{row.record.run_id}.jsonl`" for row in compared})
    head = (
        f"Suite `{board.suite}` on {board.machine}. Data: {board.data}. Baseline: `{base.label}`, {board.primary}"
        f" {figure.value:.2f}. In brackets: 95% intervals. Records: {', '.join(files)}."
    )
    if base.checkpoint and base.checkpoint.made_by.get("dirty"):
        head += " The model's checkout had uncommitted changes."
    lines = [head]
    for row in compared:
        words = [
            *_times(row.comparison, f"`{base.label}`"),
            *_times(board.engines.get(row.record.record_id), "its own engine unquantized"),
            f"{board.primary} {_interval(row.comparison.differences[board.primary], '+.2f')} points",
        ]
        lines.append(f"- `{row.record.label}`: {', '.join(words)}")
    return "\n".join(lines)


def _interval(figure: PairedTest, form: str) -> str:
    ends = "" if figure.low is None or figure.high is None else f" [{figure.low:{form}}, {figure.high:{form}}]"
    return f"{figure.value:{form}}{ends}"


def _times(comparison: Comparison | None, other: str) -> list[str]:
    """How many times as fast as the other; nothing of figures that were not measured together."""
    if comparison is None or comparison.speed_up is None or comparison.speed_up[0] != INTERLEAVED:
        return []
    test = comparison.ratios[comparison.speed_up]
    words = in_words(test, wanted_precision(comparison.base)) if comparison.base else ""
    return [f"{_interval(test, '.2f')} times as fast as {other}" + (f", {words}" if words else "")]


MARKED = re.compile(r"(<!-- result of ([\w.-]+) -->\n).*?(\n<!-- end of result -->)", re.DOTALL)
"""Where README.md has a suite's result."""


def write(top: Path) -> None:
    """Write the coverage page and README.md's result from the records of a checkout."""
    read = list(store.read(top / "results"))
    shown = [record for record in latest(record for _, record in read) if not is_sample(record)]
    (top / "docs" / "coverage.md").write_text(coverage(shown, top / "suites"), encoding="utf-8")

    def with_result(marked: re.Match[str]) -> str:
        own = [record for record in shown if record.suite == marked[2]]
        return marked[1] + result(make_boards(own, ScoreStore(read))[0]) + marked[3]

    readme = top / "README.md"
    readme.write_text(MARKED.sub(with_result, readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write(paths.results().parent)
