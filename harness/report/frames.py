"""A leaderboard as a pandas DataFrame, and the files that are made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report.boards import page_name
from harness.report.compare import accuracy_of
from harness.report.leaderboards import Entry, Leaderboard
from harness.report.pick import Pick, Ratio

if TYPE_CHECKING:
    import pandas as pd


def board_frame(board: Leaderboard, choice: Pick) -> pd.DataFrame:
    """A row a method, the fastest first; figures unrounded, of several seeds as on the page. Shares kept and speed-ups are of the baseline's, with 95% intervals;
    latency is of one query. verdict: `ship`, `tied`, `fits`, or why it does not, under the default limits."""
    import pandas as pd

    outside = {id(method): why for method, why in choice.outside}
    tied = {id(method) for method in choice.tied}

    def verdict(entry: Entry) -> str:
        if entry.method is choice.ship:
            return "ship"
        return outside.get(id(entry.method)) or ("tied" if id(entry.method) in tied else "fits")

    rows = [_row(board, entry) | {"verdict": verdict(entry)} for entry in board.entries]
    return pd.DataFrame(rows)


def _row(board: Leaderboard, entry: Entry) -> dict[str, object]:
    record, method, subject = entry.record, entry.method, board.subject
    part = accuracy_of(record, subject.split)
    return {
        "task": subject.task,
        "split": subject.split,
        "model": subject.model,
        "machine": board.machine.title,
        "data": subject.data,
        "method": method.name,
        "title": entry.name.title,
        "suite": record.suite,
        "backend": record.backend,
        "scheme": record.scheme,
        "seeds": len(entry.rows),
        "metric": part.primary if part else None,
        **_ratio("score", method.accuracy),
        **_ratio("kept", method.kept),
        **_ratio("speed_up", method.speed_up),
        "p90_ms": method.p90_ms,
        "p99_ms": method.p99_ms,
        "size_mib": method.size_mib,
        "memory_mib": method.memory_mib,
        "record": record.record_id,
        "page": page_name(record),
    }


def _ratio(name: str, ratio: Ratio | None) -> dict[str, float | None]:
    value, low, high = (ratio.value, ratio.low, ratio.high) if ratio else (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def to_csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False))


def to_parquet(frame: pd.DataFrame) -> bytes:
    return bytes(frame.to_parquet(index=False, engine="pyarrow"))


def to_json(frame: pd.DataFrame) -> str:
    """A list of objects, one a method."""
    return str(frame.to_json(orient="records", indent=1, double_precision=12))
