"""What the committed records say (`docs/findings.md`): which method wins where, what INT8 costs, when QAT pays, static against
dynamic INT8. Each figure has its interval and the file of its record.

`python -m harness.report.findings` writes the page; a test fails where it is not what the records say.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.machine import paths
from harness.measure.paired import LEVEL, PairedTest
from harness.records import store
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report.boards import latest, make_boards
from harness.report.judged import Nights
from harness.report.leaderboards import Entry, Leaderboard, Subject, leaderboards
from harness.report.method_pairs import MethodPair, method_pairs
from harness.report.names import SCHEME, Kind
from harness.report.pages import uncommitted_remarks, with_uncommitted_ancestors
from harness.report.pick import Ratio

HEAD = """# Findings

Made from the records below `results/` by `nox -s docs`. Do not edit it.

Real data only. In brackets: 95% intervals. *Keeps* is the share of the baseline's accuracy. A speed-up is over the baseline's
samples a second on the same machine. Where rows of several runs stand together, it includes how runs differ, if that is known. Of
several seeds *keeps* is the median with the widest interval; tests are of the seed that was timed.
† The run, its model, or one that this was made from, comes from a checkout with uncommitted changes. [method.md](method.md) says how all of it
is measured.
"""

Link = Callable[[Entry], str]
"""The file of a method's record."""

TRAINED = "trained with quantizers"
"""`Name.how` of a method made by QAT; a student is `trained` as well."""


@dataclass(frozen=True)
class Duel:
    """Two methods of one leaderboard. points: the metric of the first less that of the second. speed: samples a second of the
    first over the second's, where they ran interleaved."""

    board: Leaderboard
    first: Entry
    second: Entry
    points: PairedTest
    speed: PairedTest | None


def findings(
    found: Mapping[Subject, Sequence[Leaderboard]], stored: ScoreStore, uncommitted: Collection[str] = ()
) -> str:
    """The page as Markdown. uncommitted: ids of records that come, or whose model comes, from a checkout with uncommitted changes."""
    boards = [
        board
        for subject, group in found.items()
        if not subject.sample and not subject.limit
        for board in group
        if board.is_contested
    ]
    pairs = {board.page: method_pairs(board, stored).pairs for board in boards}
    link = partial(_link, uncommitted)
    parts = [
        _winners(boards, link), _cost(boards, link), _training(boards, pairs, link), _static_or_dynamic(boards, pairs, link)
    ]  # fmt: skip
    return "\n".join([HEAD, *parts])


def _winners(boards: Sequence[Leaderboard], link: Link) -> str:
    rows, winners = [], Counter[str]()
    for board in boards:
        chosen = board.choose()
        if chosen.ship is None:
            continue
        entry = board.entry_of(chosen.ship)
        winners[entry.name.title] += 1
        tied = ", ".join(board.entry_of(method).name.short for method in chosen.tied)
        rows.append(
            [
                *_where(board),
                entry.name.title,
                _times(chosen.ship.speed_up),
                _kept(chosen.ship.kept),
                tied,
                link(entry),
            ]
        )
    (most, count), *_ = winners.most_common(1) or [("none", 0)]
    said = f"**{most} is the pick in {count} of {len(rows)} tables**, at the limit of 99%."
    head = ["task", "machine", "ship", "speed-up", "keeps", "tied on speed", "record"]
    return _section("Which method wins where", said, head, rows)


def _cost(boards: Sequence[Leaderboard], link: Link) -> str:
    rows, shares = [], []
    for board in boards:
        for entry in _plain(board, "static", "dynamic"):
            if entry.method.kept:
                shares.append((entry.method.kept.value, board.subject.title))
                rows.append(
                    [*_where(board), board.subject.metric, entry.name.short, _kept(entry.method.kept), link(entry)]
                )
    said = "No row was quantized after training."
    if shares:
        (low, worst), (high, best), middle = min(shares), max(shares), statistics.median(share for share, _ in shares)
        said = (
            f"**INT8, quantized after training, keeps {100 * middle:.2f}% of the accuracy**, the median of {len(shares)} rows:"
            f" from {100 * low:.2f}% ({worst}) to {100 * high:.2f}% ({best})."
        )
    return _section("What INT8 costs by task", said, ["task", "machine", "metric", "method", "keeps", "record"], rows)


def _training(boards: Sequence[Leaderboard], pairs: Mapping[str, Sequence[MethodPair]], link: Link) -> str:
    duels = []
    for board in boards:
        trained = next((entry for entry in _plain(board, "trained") if entry.name.how == TRAINED), None)
        calibrated = _fastest(board, "static")
        if trained and calibrated and (duel := _duel(board, trained, calibrated, pairs[board.page])):
            duels.append(duel)
    ahead, behind = _counts([duel.points for duel in duels])
    said = (
        f"**QAT keeps more than calibration alone in {ahead} of {len(duels)} tables, less in {behind}** (p < {LEVEL:g}, not"
        " corrected for the number of tables); elsewhere the test cannot tell. QAT rows had more training."
    )
    rows = [[*_where(duel.board), *_points(duel.points), link(duel.first), link(duel.second)] for duel in duels]
    head = ["task", "machine", "QAT less calibrated, points", "p", "QAT", "calibrated"]
    return _section("When QAT pays", said, head, rows)


def _static_or_dynamic(boards: Sequence[Leaderboard], pairs: Mapping[str, Sequence[MethodPair]], link: Link) -> str:
    duels = []
    for board in boards:
        static, dynamic = _fastest(board, "static"), _fastest(board, "dynamic")
        if static and dynamic and (duel := _duel(board, static, dynamic, pairs[board.page])):
            duels.append(duel)
    timed = [duel.speed for duel in duels if duel.speed]
    faster, slower = _counts(timed, 1.0)
    more, less = _counts([duel.points for duel in duels])
    said = (
        f"**Static INT8 is faster than dynamic in {faster} of {len(timed)} tables, slower in {slower}; its accuracy is higher in"
        f" {more} of {len(duels)}, lower in {less}** (p < {LEVEL:g}); elsewhere the test cannot tell."
    )
    rows = [
        [
            *_where(duel.board),
            f"{duel.first.name.short}, {duel.second.name.short}",
            _test(duel.speed, "×") if duel.speed else "",
            *_points(duel.points),
            link(duel.first),
        ]
        for duel in duels
    ]
    head = ["task", "machine", "methods", "static over dynamic, speed", "points", "p of points", "record"]
    return _section("Static against dynamic", said, head, rows)


def _counts(tests: Iterable[PairedTest], equal: float = 0.0) -> tuple[int, int]:
    """Of significant tests, those above and those below the value that stands for equal."""
    significant = [test.value for test in tests if test.p is not None and test.p < LEVEL]
    return sum(value > equal for value in significant), sum(value < equal for value in significant)


def _fastest(board: Leaderboard, kind: Kind) -> Entry | None:
    """The fastest method of the leaderboard's own model that is quantized in this way, by the engines' own scheme."""
    return next(iter(_plain(board, kind)), None)


def _plain(board: Leaderboard, *kinds: Kind) -> list[Entry]:
    """The fastest first, as the leaderboard has them."""
    return [
        entry
        for entry in board.entries
        if entry.name.kind in kinds
        and entry.record.scheme in (None, "", SCHEME)
        and (entry.record.model == board.subject.model or entry.name.how == TRAINED)
    ]


def _duel(board: Leaderboard, first: Entry, second: Entry, pairs: Iterable[MethodPair]) -> Duel | None:
    places = board.entries.index(first), board.entries.index(second)
    for pair in pairs:
        if (pair.mine, pair.theirs) == places:
            return Duel(board, first, second, pair.points, pair.speed)
        if (pair.theirs, pair.mine) == places:
            return Duel(board, first, second, _turned(pair.points), _inverse(pair.speed) if pair.speed else None)
    return None


def _turned(test: PairedTest) -> PairedTest:
    """The difference the other way round."""
    low, high = (None if end is None else -end for end in (test.high, test.low))
    return PairedTest(-test.value, low, high, test.p, test.method)


def _inverse(test: PairedTest) -> PairedTest:
    """The ratio the other way round."""
    low, high = (None if end is None else 1 / end for end in (test.high, test.low))
    return PairedTest(1 / test.value, low, high, test.p, test.method)


def _where(board: Leaderboard) -> list[str]:
    return [f"{board.subject.title}, {board.subject.model}", board.machine.title]


def _times(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio.value:.2f}×{_ends(ratio.low, ratio.high, '.2f')}"


def _kept(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    low, high = (None if end is None else 100 * end for end in (ratio.low, ratio.high))
    return f"{100 * ratio.value:.2f}%{_ends(low, high, '.2f')}"


def _points(test: PairedTest) -> list[str]:
    p = "" if test.p is None else "<0.001" if test.p < 0.001 else f"{test.p:.3f}"
    return [_test(test, "", "+.2f"), p]


def _test(test: PairedTest, unit: str, form: str = ".2f") -> str:
    return f"{test.value:{form}}{unit}{_ends(test.low, test.high, form)}"


def _ends(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"


def _link(uncommitted: Collection[str], entry: Entry) -> str:
    record = entry.record
    mark = " †" if record.record_id in uncommitted else ""
    return f"[{record.run_id}](../results/{record.suite}/{record.run_id}.jsonl){mark}"


def _section(title: str, said: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"## {title}", "", said, "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def page(records: Iterable[tuple[Path, Record]]) -> str:
    """The page of these records."""
    read = list(records)
    everything = [record for _, record in read]
    stored, newest = ScoreStore(read), latest(everything)
    ancestors = with_uncommitted_ancestors(newest)
    uncommitted = {one.record_id for one in newest if uncommitted_remarks(one, ancestors)}
    return findings(leaderboards(make_boards(newest, stored), Nights.of(everything).between), stored, uncommitted)


if __name__ == "__main__":
    top = paths.results().parent
    (top / "docs" / "findings.md").write_text(page(store.read(top / "results")), encoding="utf-8")
