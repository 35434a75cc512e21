"""Many records from the committed ones: copies under other names of models, suites and machines, and more nights of them. Keys of
checkpoints, baselines, rounds and scores stay as consistent as in the records that they are copies of.

    python -m tests.report.growing FOLDER --copies 11 --nights 5
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.machine import paths

HOSTS = 4
"""Machines of each kind that the copies stand on."""

FIRST = "2027-01-{:02}T01:00:00+00:00"


def grow(folder: Path, copies: int, nights: int, *, first_night: int = 0, cells: int | None = None) -> int:
    """Write the records of `nights` nights from `first_night` on, each with `copies` of every committed cell, and link their scores.
    cells: at most so many in all. Gives the number of records."""
    written = 0
    for path in sorted(paths.results().rglob("*.jsonl")):
        lines = _records(path)
        for copy in range(copies):
            for night in range(first_night, first_night + nights):
                room = len(lines) if cells is None else max(min(len(lines), cells - written // nights), 0)
                written += _write(folder, path, lines[:room], copy, night)
    return written


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _write(folder: Path, source: Path, values: list[dict[str, Any]], copy: int, night: int) -> int:
    if not values:
        return 0
    run = f"{20270101 + night}T{copy:06}Z-{source.stem[-4:]}"
    draw = random.Random(f"{source.stem} {copy} {night}")
    suite = f"{values[0]['suite']}-c{copy}"
    target = folder / suite / f"{run}-{source.stem[:15]}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8") as file:
        for value in values:
            record = _copy(value, run, suite, copy, night, draw)
            for part, old in zip(record["accuracy"], value["accuracy"], strict=True):
                if old.get("scores_file"):
                    part["scores_file"] = f"scores/{record['record_id']}.npz"
                    _link(source.parent / old["scores_file"], target.parent / part["scores_file"])
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
    return len(values)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        os.link(source, target)


def _copy(value: dict[str, Any], run: str, suite: str, copy: int, night: int, draw: random.Random) -> dict[str, Any]:
    record: dict[str, Any] = _renamed(json.loads(json.dumps(value)), f"c{copy}")
    record |= {
        "suite": suite,
        "suite_title": f"{value['suite_title']}, copy {copy}",
        "run_id": run,
        "record_id": f"{run}-{value['record_id'][-21:].replace('-', '')}{copy}",
        "key": f"{value['key'][:12]}{copy:04}",
        "finished": FIRST.format(1 + night % 28),
        "machine": value["machine"] | {"cpu": f"{value['machine'].get('cpu', 'made up')}, host {copy % HOSTS}"},
    }
    record["settings"] |= {"suite": suite}
    factor = 1.0 if value.get("baseline") else draw.lognormvariate(0, 0.01)
    for turns in record.get("turns", ()):
        for round_ in turns["rounds"]:
            round_["seconds"] *= factor
            round_["together"] = f"{round_['together']}-{copy}-{night}"
    return record


def _renamed(value: Any, suffix: str) -> Any:
    """With the suffix at the names of models, and at the keys and hashes of their checkpoints."""
    checkpoint, settings = value.get("checkpoint"), value["settings"]
    value["model"] = f"{value['model']}-{suffix}"
    if settings.get("ancestor"):
        settings["ancestor"] = f"{settings['ancestor']}-{suffix}"
    for spec in _specs(settings.get("checkpoint")):
        if spec.get("model"):
            spec["model"] = f"{spec['model']}-{suffix}"
    if checkpoint:
        checkpoint["key"] = f"{checkpoint['key']}{suffix}"
        if checkpoint.get("lineage"):
            checkpoint["lineage"] = {f"{key}{suffix}": f"{sha}{suffix}" for key, sha in checkpoint["lineage"].items()}
    return value


def _specs(spec: Any) -> Iterator[dict[str, Any]]:
    while isinstance(spec, dict):
        yield spec
        spec = spec.get("parent")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=int, default=11)
    parser.add_argument("--nights", type=int, default=5)
    parser.add_argument("--first-night", type=int, default=0)
    parser.add_argument("--cells", type=int, default=None)
    options = parser.parse_args()
    print(grow(options.folder, options.copies, options.nights, first_night=options.first_night, cells=options.cells))


if __name__ == "__main__":
    main()
