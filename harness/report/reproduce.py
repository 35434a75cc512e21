"""What the committed results cost, and how to repeat them (`docs/reproduce.md`): commands and hours, from the records.

`python -m harness.report.reproduce` writes the page; a test fails where it is not what the records say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.machine import paths
from harness.records import store
from harness.records.schema import Record
from harness.report.comparability import is_sample
from harness.report.machines import kind_of

HEAD = """# Repeat the results

Made from the records below `results/` by `nox -s docs`. Do not edit it.

    nox -s reproduce -- --data DIR

runs every suite of this table, then renders the site. It goes on where it was cut off; a row that is done is not run
again. `DIR` has the data in the raw layout ([own-data.md](own-data.md)); `quantboard data SUITE DIR` writes what the hub has. One
cell again: `quantboard rerun RECORD`.

**Runs** took this long from their start to their last record. **Training** is the time to make the models, each counted once;
where a run made one itself, it is in both columns. Two cores each.
"""


def reproduce(records: Iterable[Record]) -> str:
    """The page as Markdown. records: all of them; those of the sample are left out."""
    rows: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if not is_sample(record):
            rows.setdefault((record.suite, kind_of(record)), []).append(record)
    head = ["suite", "processor", "rows", "runs", "runs, hours", "training, hours", "commands"]
    lines = [head, ["---"] * len(head)]
    for (suite, kind), own in sorted(rows.items()):
        commands = "<br>".join(f"`{command}`" for command in dict.fromkeys(record.command for record in own))
        runs = len({record.run_id for record in own})
        lines.append(
            [f"`{suite}`", kind, str(len(own)), str(runs), f"{_hours(own):.1f}", f"{_training(own):.1f}", commands]
        )
    return "\n".join([HEAD, *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def _hours(records: Sequence[Record]) -> float:
    """From the start of every run to its last record."""
    last: dict[str, datetime] = {}
    for record in records:
        finished = datetime.fromisoformat(record.finished)
        last[record.run_id] = max(finished, last.get(record.run_id, finished))
    starts = {run: datetime.strptime(run.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) for run in last}
    return sum((last[run] - starts[run]).total_seconds() for run in last) / 3600


def _training(records: Sequence[Record]) -> float:
    """Of every model once: a calibrated one has the seconds of the model that it was made from."""
    seconds: dict[str, float] = {}
    for record in records:
        checkpoint = record.checkpoint
        if checkpoint and checkpoint.train_seconds:
            own = checkpoint.parent if checkpoint.recipe == "ptq" and checkpoint.parent else checkpoint.key
            seconds[own] = checkpoint.train_seconds
    return sum(seconds.values()) / 3600


def page(records: Iterable[tuple[Path, Record]]) -> str:
    """The page of these records."""
    return reproduce(record for _, record in records)


if __name__ == "__main__":
    top = paths.results().parent
    (top / "docs" / "reproduce.md").write_text(page(store.read(top / "results")), encoding="utf-8")
