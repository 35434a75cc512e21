"""Methods as a table for `pick` and `run`: at most eight columns in 80 characters, one line a row, and numbered notes below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.report.methods import Contest
    from harness.report.pick import Limits, Method, Pick, Ratio

WIDTH = 80
RANGES = "Ranges are 95% intervals: other rows of the same kind of text."
SPEED_RANGES = "Ranges are 95% intervals: other rounds on the same machine."
UNTESTED = (
    "A speed-up without a range was not tested: other processes were busy, or too few rounds ran. Run it again on a quiet machine"
    " with more --minutes."
)
Column = tuple[str, Sequence[str], str]
"""A header, its cells, and how they are set: `<` or `>`."""


class Notes:
    """Lines below tables, numbered from 1, each once."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = list(dict.fromkeys(texts))

    def add(self, text: str) -> int:
        """Its number."""
        if text not in self._texts:
            self._texts.append(text)
        return self._texts.index(text) + 1

    def lines(self) -> list[str]:
        return [
            line
            for number, text in enumerate(self._texts, 1)
            for line in textwrap.wrap(
                text, WIDTH, initial_indent=f"{number:>3}  ", subsequent_indent=" " * 5, break_on_hyphens=False
            )
        ]


def titles_of(methods: Sequence[Method]) -> dict[str, str]:
    """What a method is called: by its backend's title, where no other method has the same."""
    titles = {method.name: method.title or method.name for method in methods}
    return {name: title if [*titles.values()].count(title) == 1 else name for name, title in titles.items()}


def verdicts(contest: Contest, choice: Pick, notes: Notes) -> dict[str, str]:
    """`ship`, `fits`, `base`, or `no` with the number of the note that says why."""
    titles = titles_of(contest.methods)
    words = {
        method.name: "ship" if method is choice.ship else "base" if method.name == contest.baseline_name else "fits"
        for method in contest.methods
    }
    return words | {method.name: f"no {notes.add(f'{titles[method.name]}: {why}.')}" for method, why in choice.outside}


def table(
    methods: Sequence[Method],
    metric: str,
    verdict: Mapping[str, str],
    titles: Mapping[str, str],
    *,
    memory: bool = False,
) -> list[str]:
    """A row a method, the fastest first. Where it gets too wide, the range of the metric is left out, then the memory, then the
    ends of names. memory: whether there is a column of peak memory."""
    rows = sorted(methods, key=lambda method: -(method.speed_up.value if method.speed_up else 0))
    names = [titles[method.name] for method in rows]
    score: Column = (
        f"{_metric(metric)} %" if metric else "",
        [f"{row.accuracy.value:.1f}" if row.accuracy else "" for row in rows],
        ">",
    )
    score_range: Column = ("", [_percents(row.accuracy) for row in rows], "<")
    kept: list[Column] = [
        ("Kept %" if metric else "", [percent(row.kept) for row in rows], ">"),
        ("Speed-up", [times(row.speed_up) for row in rows], ">"),
        ("", [_range(row.speed_up) for row in rows], "<"),
        ("p90 ms", [_number(row.p90_ms, ".1f") for row in rows], ">"),
        ("MiB", [mebibytes(row.size_mib) for row in rows], ">"),
    ]
    peak: list[Column] = [("RAM", [_number(row.memory_mib, ".0f") for row in rows], ">")] if memory else []
    end: Column = ("", [verdict.get(row.name, "") for row in rows], "<")
    name: Column = ("Method", names, "<")
    for columns in (
        [name, score, score_range, *kept, *peak, end],
        [name, score, *kept, *peak, end],
        [name, score, *kept, end],
    ):
        for gap in (2, 1):
            lines = laid_out(columns, gap)
            if max(map(len, lines)) <= WIDTH:
                return lines
    room = WIDTH - max(map(len, laid_out([score, *kept, end], 1))) - 1
    short: Column = ("Method", [one if len(one) <= room else f"{one[: room - 1]}…" for one in names], "<")
    return laid_out([short, score, *kept, end], 1)


def laid_out(columns: Sequence[Column], gap: int) -> list[str]:
    """Lines of a table, the headers first. Columns without header and cells are left out; a range stands one blank behind its figure."""
    shown = [column for column in columns if column[0] or any(column[1])]
    lines = [""] * (1 + len(shown[0][1]))
    for place, (header, cells, side) in enumerate(shown):
        is_range = not header and place < len(shown) - 1
        width = max(map(len, cells)) if is_range else max(map(len, (header, *cells)))
        for number, cell in enumerate((header, *cells)):
            blanks = 2 if not place else 1 if is_range else gap
            lines[number] += " " * blanks + f"{cell:{side}{width}}"
    return [line.rstrip() for line in lines]


def how_timed(contest: Contest) -> list[str]:
    """Notes on a contest's speeds."""
    turns = next((turns for turns in contest.baseline.turns if turns.batch_size > 1), None)
    how = (
        f"batch {turns.batch_size}, {len(turns.rounds)} rounds, all methods on the same batches in turn"
        if turns
        else ""
    )
    untested = any(method.speed_up and method.speed_up.low is None for method in contest.methods)
    return [*([f"Speed-ups: {how}."] if how else []), *([UNTESTED] if untested else [])]


def asked(limits: Limits) -> str:
    """The limits as a note."""
    parts = [f"keep {100 * limits.keep:g}%{' surely' if limits.sure else ''} (--keep)"]
    for option, name, unit in (
        ("p90_ms", "p90", "ms"),
        ("p99_ms", "p99", "ms"),
        ("size_mib", "size", "MiB"),
        ("memory_mib", "memory", "MiB"),
    ):
        if (bound := getattr(limits, option)) is not None:
            parts.append(f"{name} at most {bound:g} {unit}")
    return f"Asked: {', '.join(parts)}."


def _metric(metric: str) -> str:
    return {"accuracy": "Accuracy", "matthews_correlation": "MCC"}.get(metric, words(metric).capitalize())


def words(metric: str) -> str:
    return metric.replace("_", " ")


def percent(ratio: Ratio | None) -> str:
    return f"{100 * ratio.value:.1f}" if ratio else ""


def times(ratio: Ratio | None) -> str:
    return f"{three_digits(ratio.value)}×" if ratio else ""


def three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def mebibytes(value: float | None) -> str:
    return _number(value, ".0f" if value is None or value > 9.95 else ".1f")


def _percents(ratio: Ratio | None) -> str:
    if ratio is None or ratio.low is None or ratio.high is None:
        return ""
    return f"{ratio.low:.1f}-{ratio.high:.1f}"


def _range(ratio: Ratio | None) -> str:
    if ratio is None or ratio.low is None or ratio.high is None or ratio.low == ratio.high:
        return ""
    return f"{three_digits(ratio.low)}-{three_digits(ratio.high)}"


def _number(value: float | None, form: str) -> str:
    return format(value, form) if value is not None else ""
