"""All records below a folder."""

from __future__ import annotations

import json
from pathlib import Path

from tests.recompute.accuracy import check_accuracy
from tests.recompute.model import check_model
from tests.recompute.speed import check_speed, check_turns
from tests.recompute.tally import Record, Tally


def read(results: Path) -> list[tuple[Record, Path]]:
    """Every record with the folder of its suite."""
    files = sorted(results.glob("*/*.jsonl"))
    return [(json.loads(line), file.parent) for file in files for line in file.read_text("utf-8").splitlines()]


def recompute(results: Path) -> Tally:
    """Every figure of every record."""
    tally, pairs = Tally(), read(results)
    for record, folder in pairs:
        check_accuracy(tally, record, folder)
        check_speed(tally, record)
        if record["flops"]:
            check_model(tally, record)
        if record.get("cold_start"):
            tally.left_out["cold starts over rounds"] += 1
    check_turns(tally, (record for record, _ in pairs))
    return tally
