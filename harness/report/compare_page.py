"""What the page Compare of a leaderboard shows: every two of its methods, of which its script shows those that are chosen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.measure.paired import PairedTest, holm
from harness.records.schema import Record
from harness.report.columns import p_text
from harness.report.compare import accuracy_of
from harness.report.leaderboards import Entry, Leaderboard
from harness.report.method_pairs import MethodPair, Pairs
from harness.report.pick import Ratio
from harness.report.plots import SHAPES
from harness.report.rounded import rounded
from harness.report.shown_speed import latency_of, shown_load
from harness.report.speed_ratios import INTERLEAVED, RATE
from harness.report.tables import Column, Table, Value, formatted, text_columns
from harness.report.task_rows import MethodRow, Shown, method_rows, shown_speed

if TYPE_CHECKING:
    import pandas as pd

MOST = 4
"""How many methods are shown beside one another."""


@dataclass(frozen=True)
class ComparePage:
    """compare: the page itself. all_pairs: every pair. data: JSON for the page's script."""

    title: str
    model: str
    machine: str
    metric: str
    sample: bool
    task_page: str
    compare: str
    history: str
    names: tuple[str, ...]
    all_pairs: Table
    notes: tuple[tuple[str, str], ...]
    csv: str
    data: str


def first_chosen(board: Leaderboard) -> list[Entry]:
    """What to compare first: the pick, what is tied with it, then the fastest; three where there are so many."""
    choice = board.choose()
    named = [method for method in (choice.ship, *choice.tied) if method]
    methods = [*named, *(method for method in board.methods if method not in named)]
    return [board.entry_of(method) for method in methods[:3]]


def compare_page(board: Leaderboard, pairs: Pairs, history: str = "") -> ComparePage:
    """history: the page of its nights; empty where there is one night."""
    subject = board.subject
    rows = list(method_rows(board, board.choose()))
    return ComparePage(
        title=subject.title,
        model=subject.model,
        machine=board.machine.title,
        metric=subject.metric,
        sample=subject.sample,
        task_page=board.page,
        compare=board.compare_page,
        history=history,
        names=tuple(entry.name.short for entry in board.entries),
        all_pairs=_table(board, pairs),
        notes=tuple(_notes(board, pairs)),
        csv=board.compare_page.replace(".html", ".csv"),
        data=_script_data(board, pairs, rows),
    )


def _script_data(board: Leaderboard, pairs: Pairs, rows: Sequence[MethodRow]) -> str:
    """JSON that may stand inside a script element. `right` has the methods in the order of `methods`."""
    found: dict[str, Any] = {
        "methods": [_method(board, entry, row) for entry, row in zip(board.entries, rows, strict=True)],
        "figures": _figure_names(board),
        "metric": board.subject.metric,
        "chosen": [board.entries.index(entry) for entry in first_chosen(board)],
        "most": MOST,
        "pairs": [_pair(pair) for pair in pairs.pairs],
        "examples": pairs.examples,
        "right": pairs.right,
    }
    return json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")


def _pair(pair: MethodPair) -> dict[str, Any]:
    return {
        "pair": [pair.mine, pair.theirs],
        "points": _test(pair.points),
        "speed": _test(pair.speed) if pair.speed else None,
        "same": pair.same,
        "caveat": pair.caveat,
    }


def _test(test: PairedTest) -> dict[str, Any]:
    return {name: value for name, value in asdict(test).items() if name != "method" or test.p is None}


def _method(board: Leaderboard, entry: Entry, row: MethodRow) -> dict[str, Any]:
    figures = [
        {key: text for key, text in asdict(shown).items() if key != "order" and text}
        for shown in _figures(entry, row, board)
    ]
    return {
        "name": entry.method.name,
        "title": entry.name.title,
        "short": entry.name.short,
        "how": entry.name.how,
        "kind": entry.name.kind,
        "shape": SHAPES[entry.name.kind],
        "page": row.page,
        "figures": figures,
    }


def _metrics(board: Leaderboard) -> list[str]:
    """The metrics besides the primary one, of all methods."""
    parts = [part for entry in board.entries if (part := accuracy_of(entry.record, board.subject.split))]
    names = dict.fromkeys(name for part in parts for name in part.metrics if name != part.primary)
    return list(names)


def _figure_names(board: Leaderboard) -> list[str]:
    others = [f"{name.replace('_', ' ').capitalize()}, %" for name in _metrics(board)]
    metric = board.subject.metric[:1].upper() + board.subject.metric[1:]
    speed = ["Speed-up, largest batch", "Speed-up, one at a time", "p50 / p90, ms"]
    cost = ["On disk, MiB", "Peak memory, MiB", "Cold start, s", "INT8 share of products", "Extra work"]
    return [f"{metric}, %", *others, f"{metric} kept, %", *speed, *cost]


def _figures(entry: Entry, row: MethodRow, board: Leaderboard) -> Iterable[Shown]:
    """As `_figure_names`."""
    record = entry.record
    part = accuracy_of(record, board.subject.split)
    yield row.metric
    for name in _metrics(board):
        figure = part.metrics.get(name) if part else None
        interval = (
            f"{figure.low:.2f}–{figure.high:.2f}"
            if figure and figure.low is not None and figure.high is not None
            else ""
        )
        yield Shown(f"{figure.value:.2f}", interval) if figure else Shown()
    yield row.kept
    yield row.speed
    yield _one_at_a_time(entry)
    yield _latencies(record, row)
    yield row.size
    yield Shown(f"{entry.method.memory_mib:.0f}" if entry.method.memory_mib else "")
    yield Shown(f"{record.cold_start_seconds:.2f}" if record.cold_start_seconds is not None else "")
    yield Shown(f"{100 * record.flops.int8_share:.1f}%" if record.flops else "")
    yield Shown(_making(record, entry.method.effort))


def _one_at_a_time(entry: Entry) -> Shown:
    """Over the baseline, in rounds in which both ran the same samples."""
    if entry.name.kind == "baseline":
        return Shown("1.00×")
    test = entry.row.comparison.ratios.get((INTERLEAVED, shown_load(entry.record), 1, RATE))
    return shown_speed(Ratio(test.value, test.low, test.high), entry.record) if test else Shown()


def _making(record: Record, effort: int) -> str:
    """What was done to the model that was there, and how long it took."""
    checkpoint = record.checkpoint
    if checkpoint is None or not effort:
        return "nothing"
    what, seconds = (
        ("calibration", checkpoint.calibration_seconds) if effort == 1 else ("training", checkpoint.train_seconds)
    )
    return f"{what}, {seconds / 60:.0f} min" if seconds else what


def _latencies(record: Record, row: MethodRow) -> Shown:
    single = latency_of(record)
    figures = (single.p50_ms, single.p90_ms) if single else ()
    text = " / ".join(f"{figure.value:.1f}" for figure in figures if figure)
    return Shown(text, imprecise=row.p90.imprecise)


def _table(board: Leaderboard, pairs: Pairs) -> Table:
    """Every pair, for readers without scripts. p is corrected over all of them."""
    of_points = holm([pair.points.p for pair in pairs.pairs])
    of_speed = holm([pair.speed.p if pair.speed else None for pair in pairs.pairs])
    columns = (
        *text_columns("method", "less"),
        Column("difference", f"points of {board.subject.metric}, 95%"),
        Column("speed", "times, 95%"),
        Column("same answers", "%"),
    )
    rows = []
    for pair, p, p_speed in zip(pairs.pairs, of_points, of_speed, strict=True):
        mine, theirs = (board.entries[place].name.short for place in (pair.mine, pair.theirs))
        same = 100 * pair.same / pairs.examples if pair.same is not None and pairs.examples else None
        points = formatted(pair.points, "+.2f", note=", ".join(filter(None, (p_text(p), pair.caveat))))
        rows.append(
            (
                Value(mine),
                Value(theirs),
                points,
                formatted(pair.speed, note=p_text(p_speed)),
                Value("") if same is None else Value(rounded(same, 1, 100), same),
            )
        )
    return Table("Every pair", columns, tuple(rows), sortable=True)


def _notes(board: Leaderboard, pairs: Pairs) -> Iterable[tuple[str, str]]:
    yield (
        "Differences",
        f"are paired: the same {pairs.examples:,} examples in the same order. p is corrected (Holm) for the pairs that are"
        " shown. Correct or not of independent examples: McNemar's exact test; else Student's t with a linearised standard"
        " error, over articles where examples come in articles.",
    )
    yield (
        "Speed",
        "is compared in rounds in which both ran the same batches in turn, at the largest batch. Methods that were timed in"
        " different runs have no ratio; their speed-ups over their own baselines stand side by side.",
    )
    if any(len(entry.rows) > 1 for entry in board.entries):
        yield (
            "Seeds.",
            "Of a method with several seeds, the differences are of the one that was timed, or of the first.",
        )
    caveats = dict.fromkeys(pair.caveat for pair in pairs.pairs if pair.caveat)
    if caveats:
        yield (
            "Training.",
            "Where a difference is marked “two trainings” or “training not known”, chance in training is a part of it.",
        )


def pairs_frame(board: Leaderboard, pairs: Pairs) -> pd.DataFrame:
    """A row a pair, unrounded; p uncorrected and Holm's over all pairs of the leaderboard."""
    import pandas as pd

    of_points = holm([pair.points.p for pair in pairs.pairs])
    of_speed = holm([pair.speed.p if pair.speed else None for pair in pairs.pairs])
    rows = []
    for pair, p, p_speed in zip(pairs.pairs, of_points, of_speed, strict=True):
        mine, theirs = (board.entries[place].method.name for place in (pair.mine, pair.theirs))
        speed = pair.speed or PairedTest(float("nan"))
        rows.append(
            {
                "method": mine,
                "other": theirs,
                "points": pair.points.value,
                "points_low": pair.points.low,
                "points_high": pair.points.high,
                "points_p": pair.points.p,
                "points_p_holm": p,
                "points_test": pair.points.method,
                "speed": speed.value,
                "speed_low": speed.low,
                "speed_high": speed.high,
                "speed_p": speed.p,
                "speed_p_holm": p_speed,
                "same_answers": pair.same,
                "examples": pairs.examples,
                "caveat": pair.caveat,
            }
        )
    return pd.DataFrame(rows)
