"""What stays in the cache of a measured cell, so that `run --remeasure` can take its speed anew without scoring it again."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from harness.errors import CheckpointError
from harness.plan.spec import Cell
from harness.records.schema import Record
from harness.run.context import CellResults, Run, work_folder
from harness.run.steps import state_of, write_state
from harness.run.work import read_kept, write_kept

FILES = ("accuracy.json", "scores.npz", "samples.npz")
STATE = "code.json"
SCORED = "scored.json"
"""Holds the commit at which the scores were made."""


def keep_scores(cell: Cell, run: Run) -> None:
    """Move the cell's scores out of its work folder. Where that fails, as on a full disk, nothing is kept: the cell is then
    scored again."""
    work, folder = work_folder(cell, run), _folder(cell, run)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.mkdir(parents=True)
        if not (work / SCORED).is_file():
            write_kept(work / SCORED, {"commit": run.commit})
        for name in (*FILES, SCORED, STATE):  # the last one makes it whole
            shutil.move(work / name, folder / name)


def drop_left(cell: Cell, run: Run) -> None:
    """Remove what a run left of a cell when it ended just after its record was written, as in a power cut. Its scores are kept."""
    work = work_folder(cell, run)
    if not (_folder(cell, run) / STATE).is_file() and read_kept(work / "accuracy.json") is not None:
        keep_scores(cell, run)
    shutil.rmtree(work, ignore_errors=True)


def restore_scores(cell: Cell, run: Run) -> str:
    """Put the kept scores into the cell's empty work folder. The code may be newer than they are, since a cell's key changes
    where its scores would; the machine and the weights must be the same, and the scores what
    was written. Returns the note for the record; empty where nothing fitting is kept, so that the cell must be scored again."""
    work, folder = work_folder(cell, run), _folder(cell, run)
    kept, scored = read_kept(folder / STATE), read_kept(folder / SCORED)
    if kept is None or scored is None or read_kept(folder / "accuracy.json") is None or run.dirty:
        return ""
    try:
        state = state_of(cell, run)
    except (OSError, CheckpointError):  # its checkpoint is no longer in the cache
        return ""
    if any(kept.get(name) != state[name] for name in ("machine", "checkpoint")):
        return ""
    try:
        work.mkdir(parents=True, exist_ok=True)
        for name in (*FILES, SCORED):
            shutil.copyfile(folder / name, work / name)
    except OSError:
        shutil.rmtree(work, ignore_errors=True)
        return ""
    write_state(cell, run)
    commit = scored.get("commit")
    return f"scored earlier{f', at commit {commit[:12]}' if commit else ''}; --remeasure took speed anew"


def scores_already_stored(results: CellResults, run: Run, previous: Mapping[str, Record]) -> str | None:
    """The name of the scores file that the cell's last record has, if it holds the same scores; so nights share one file."""
    cell = results.cell
    record = previous.get(cell.key)
    name = record.accuracy[0].scores_file if record and record.accuracy else None
    if name is None or ".." in Path(name).parts:
        return None
    with suppress(OSError):
        stored = run.record_file(cell).parent / name
        if filecmp.cmp(stored, work_folder(cell, run) / "scores.npz", shallow=False):
            return name
    return None


def _folder(cell: Cell, run: Run) -> Path:
    return run.cache / "scored" / cell.key
