"""What `rescore` shows in the terminal, at most 80 columns wide: a line a metric, below the record that it is of."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.cli.method_table import WIDTH, Column, laid_out, words

if TYPE_CHECKING:
    from harness.records.figure import Figure
    from harness.run.rescore import Rescored


def rescore_lines(rescored: Sequence[Rescored], files: Sequence[str]) -> list[str]:
    """files: those that records were appended to."""
    head, *rows = _table(rescored)
    lines, cells = list[str](), iter(rows)
    for outcome in rescored:
        record = outcome.record
        lines += ["", *textwrap.wrap(record.record_id, WIDTH)]
        lines += textwrap.wrap(f"{record.model} / {record.task} / {record.label} / seed {record.seed}", WIDTH)
        lines += [next(cells) for _ in outcome.changes()]
    differ = sum(outcome.differs for outcome in rescored)
    title = f"Records scored again: {len(rescored)}; with other figures than recorded: {differ}."
    return [title, "", head, *lines, *(["", *(f"written: {path}" for path in files)] if files else [])]


def _table(rescored: Sequence[Rescored]) -> list[str]:
    """A header, and the rows of all records. Where it gets too wide, the intervals are left out, then the ends of names."""
    for interval, gap, room in ((True, 2, WIDTH), (True, 1, WIDTH), (False, 2, WIDTH), (False, 1, 24)):
        lines = laid_out(_columns(rescored, interval, room), gap)
        if max(map(len, lines)) <= WIDTH:
            break
    return lines


def _columns(rescored: Sequence[Rescored], interval: bool, room: int) -> list[Column]:
    from harness.run.rescore import figures_differ

    rows = [change for outcome in rescored for change in outcome.changes()]
    several = len({split for split, *_ in rows}) > 1
    now = [_shown(new, interval) if figures_differ(old, new) else "the same" for _, _, old, new in rows]
    return [
        ("Metric", [_name(metric, room) for _, metric, *_ in rows], "<"),
        *([("Split", [_name(split.removeprefix("validation_"), room) for split, *_ in rows], "<")] if several else []),
        ("Recorded", [_shown(old, interval) for _, _, old, _ in rows], ">"),
        ("Now", now, ">"),
        ("", ["differs" if figures_differ(old, new) else "" for _, _, old, new in rows], "<"),
    ]  # fmt: skip


def _name(name: str, room: int) -> str:
    return words(name)[:room]


def _shown(figure: Figure | None, interval: bool) -> str:
    """Rounded, with its interval where it has one and `interval` is true."""
    if figure is None:
        return "none"
    digits = 2 if figure.value < 1000 else 0
    text = f"{figure.value:.{digits}f}"
    if interval and figure.low is not None and figure.high is not None:
        text += f" [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"
    return text
