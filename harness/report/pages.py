from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.machine import paths
from harness.records.schema import Record
from harness.report import columns
from harness.report.boards import Board, page_name
from harness.report.charts import Curve, accuracy_against_qps, points
from harness.report.comparability import accuracy_stands, is_whole, machine_of_board
from harness.report.compare import Comparison
from harness.report.missing import Asked, asked_of, in_words, lacking
from harness.suite.load import load_for_pages


def against(entry: Record, beside: Comparison) -> dict[str, Any]:
    """A cell beside its baseline or its own engine without integer products, as its page shows it: every metric and every figure of speed."""
    assert beside.base is not None
    return {
        "base": beside.base,
        "base_stands": accuracy_stands(beside.base),
        "why_incomparable": beside.why_incomparable,
        "page": page_name(beside.base),
        "share": columns.share(entry, beside),
        "asked": 100 * columns.asked_of(entry),
        "metrics": [(name, columns.difference(one, one.p, ""), one.method) for name, one in beside.differences.items()],
        "corrected": columns.p_text(beside.corrected),
        "ratios": [
            (*load, columns.times(load, one, beside.corrected_ratio(load), entry, beside.base, ""), one.method)
            for load, one in beside.ratios.items()
        ],
    }


def made_from_unclean(records: Sequence[Record]) -> set[str]:
    """Ids of records whose model was made from, or taught by, one that was made in a checkout with uncommitted changes, as far as
    records say: the same key and the same weights."""
    made = [(entry, entry.checkpoint) for entry in records if entry.checkpoint]
    dirty = {(one.key, one.lineage[one.key]) for _, one in made if one.made_by.get("dirty") and one.key in one.lineage}
    return {
        entry.record_id
        for entry, one in made
        if any(item in dirty for item in one.lineage.items() if item[0] != one.key)
    }


def suite_page(name: str, sample: bool) -> str:
    return f"suite-{name}-sample.html" if sample else f"suite-{name}.html"


def _counts(entries: Sequence[Record]) -> list[tuple[str, str]]:
    """(badge, words): how many cells have an accuracy that stands, and of those how many a speed."""
    stands = [entry for entry in entries if accuracy_stands(entry)]
    whole = [entry for entry in stands if is_whole(entry)]
    timed = [entry for entry in stands if entry.speed]
    doubtful = [[columns.in_doubt(entry, one) for one in entry.speed] for entry in timed]
    found = [
        ("ok", "accuracy", len(whole)),
        ("warn", "accuracy on a part of the evaluation set", len(stands) - len(whole)),
        ("ok", "speed", sum(not any(of) for of in doubtful)),
        ("invalid", "speed, in part invalid", sum(any(of) and not all(of) for of in doubtful)),
        ("invalid", "speed invalid", sum(all(of) for of in doubtful)),
        ("", "not timed", len(stands) - len(timed)),
        ("invalid", "invalid", sum(entry.status == "invalid" for entry in entries if not accuracy_stands(entry))),
        *((status, status, sum(entry.status == status for entry in entries)) for status in ("failed", "skipped")),
    ]
    return [(badge, f"{count} {words}") for badge, words, count in found if count]


def _charts(board: Board, labels: Mapping[Curve, str]) -> dict[str, str] | None:
    shown = points(board, labels)
    return accuracy_against_qps(shown, board.primary, sorted(labels.values())) if len(shown) > 1 else None


def read_suite(name: str, own: Sequence[Record]) -> tuple[str, list[dict[str, Any]], list[Asked]]:
    """What the suite is for, in its own words; published figures from elsewhere: shown beside ours, never ranked with them; the
    cells that it asks for. own: its records."""
    path = paths.suites() / f"{name}.toml"
    return (*load_for_pages(path), asked_of(path, own)) if path.is_file() else ("", [], [])


def _elsewhere(board: Board, own: Sequence[Record], asked: Sequence[Asked], gone: Sequence[Asked]) -> list[str]:
    """What has records, but none of this board's machine."""
    here = [entry for entry in own if machine_of_board(entry) == board.machine]
    wanted = [one for one in asked if one[0] == board.task]
    return in_words([one for one in lacking(wanted, here) if one not in gone], wanted)


def _apart(boards: Sequence[Board]) -> list[str]:
    """Of each board, the models and seeds that stand on an earlier board of its task with other weights, or weights that may be
    others: trained apart, under one name."""
    found = []
    for number, board in enumerate(boards):
        mine, names = _weights(board), list[str]()
        for earlier in boards[:number]:
            if (earlier.task, earlier.split) == (board.task, board.split):
                theirs = _weights(earlier)
                both = [name for name in mine if name in theirs]
                names += [
                    f"{model} (seed {seed})"
                    for model, seed in both
                    if not _same(mine[model, seed], theirs[model, seed])
                ]
        found.append(", ".join(dict.fromkeys(names)))
    return found


def _weights(board: Board) -> dict[tuple[str, int], dict[str, str]]:
    """Of each model and seed that was made, the weights (SHA-256) of all its checkpoints; nothing where records do not say."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for row in board.rows:
        made = row.record.checkpoint
        if made and made.recipe != "load":
            found.setdefault((row.record.model, row.record.seed), {}).update(made.lineage)
    return found


def _same(mine: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    shared = [key for key in mine if key in theirs]
    return bool(shared) and all(mine[key] == theirs[key] for key in shared)
