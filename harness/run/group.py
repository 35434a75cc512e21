from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from harness.measure.memory import available_bytes
from harness.plan.spec import Cell
from harness.records import store
from harness.records.schema import Record
from harness.run.assemble import make_record, measured_record
from harness.run.context import CellFailed, Measured, Run, Until, _name, work_folder
from harness.run.steps import (
    _begin,
    _failed,
    _job,
    _read_kept,
    _step,
)
from harness.run.turns import Found, take_turns, turn_groups

FITS = 0.8
"""Of the memory that is there, what models that take turns may need together."""


def _execute_group(
    cells: list[Cell],
    run: Run,
    known: dict[str, Record],
    before: dict[str, Record],
    fresh: bool,
    until: Until | None,
) -> Iterator[Record]:
    def finish(cell: Cell, new: Record) -> Record:
        run.say(f"{_name(cell)}: {new.status}" + (f": {new.reason}" if new.reason else ""))
        old = known.get(cell.key)
        repeated = (
            old is not None
            and new.status == old.status == "skipped"
            and (new.reason, new.remedy) == (old.reason, old.remedy)
        )
        if until is None:
            if not repeated:
                store.append(run.file(cell), new)
            shutil.rmtree(work_folder(cell, run), ignore_errors=True)
        return new

    waiting: list[Measured] = []
    for cell in cells:
        if old := before.get(cell.key):
            run.say(f"{_name(cell)}: done before ({old.run_id})")
            yield old
        elif cell.blocked:
            yield finish(cell, make_record(cell, run, status="skipped", reason=cell.blocked[0], remedy=cell.blocked[1]))
        else:
            if fresh:
                shutil.rmtree(work_folder(cell, run), ignore_errors=True)
            found = _begin(cell, run, until)
            if isinstance(found, Record):
                yield finish(cell, found)
            else:
                waiting.append(found)
    for number in range(1, max((one.cell.measure.rounds for one in waiting), default=0) + 1):
        for one in waiting[:: 1 if number % 2 else -1]:
            if number > one.cell.measure.rounds:
                continue
            try:
                one.rounds.append(_step(one.cell, run, "speed", f"round-{number}", number))
            except CellFailed as failure:
                waiting.remove(one)
                yield finish(one.cell, _failed(one.cell, run, failure))
        left = {one.cell.key: one for one in waiting if number <= one.cell.measure.rounds}
        for cells_together in turn_groups(one.cell for one in left.values()):
            _take_turns([left[cell.key] for cell in cells_together], run, number)
    for one in waiting:
        yield finish(one.cell, measured_record(one, run, None))


def _take_turns(cells: list[Measured], run: Run, number: int) -> None:
    """One round of turns among cells that are measured together, or what a run that was killed kept of it. A cell whose
    record that run had written took its turns with it: the last one's still stand."""
    places = [work_folder(one.cell, run) / f"turns-{number}.json" for one in cells]
    kept = [one for one in map(_read_kept, places) if one]
    if len(kept) < len(cells) or len({one["together"] for one in kept}) > 1:
        if len(cells) < 2:
            return
        kept = _round_of_turns(cells, run, number)
        for place, content in zip(places, kept, strict=True):
            with suppress(OSError):  # a full disk costs what a killed run could have kept
                place.with_suffix(".part").write_text(json.dumps(content))
                place.with_suffix(".part").replace(place)
    for one, content in zip(cells, kept, strict=True):
        one.turns.extend(content["found"])
        if content["note"]:
            one.notes.append(f"by turns, round {number}: {content['note']}")
            run.say(f"{_name(one.cell)}: {one.notes[-1]}")


def _round_of_turns(cells: list[Measured], run: Run, number: int) -> list[dict[str, Any]]:
    first = cells[0].cell
    together = f"{run.run_id} {first.task} {first.seed} {first.device} {number}"
    run.say(f"{first.task} / seed {first.seed}: {len(cells)} cells by turns, round {number} of {first.measure.rounds}")
    jobs = {one.cell.key: _job(one.cell, run, "turns", f"turns-{number}", number) for one in cells}
    notes: dict[str, str] = {}
    found: Found = {}
    if why := _too_large(cells, run):
        notes = dict.fromkeys(jobs, why)
    else:
        try:
            found = take_turns(jobs, together, notes.__setitem__)
        except OSError as error:
            notes = dict.fromkeys(jobs, f"{error.filename or 'its processes'}: {error.strerror}")
    return [{"together": together, "found": found.get(key, []), "note": notes.get(key, "")} for key in jobs]


def _too_large(cells: list[Measured], run: Run) -> str:
    """Why these models cannot all be in memory at once, by what each needed alone; nothing where they can."""
    last = [one.rounds[-1] for one in cells]
    device_memory = run.machine.gpus[0].memory_bytes if run.machine.gpus else None
    for name, there, needed in (
        ("memory", available_bytes(), [found["peak_rss_bytes"] for found in last]),
        ("the GPU's memory", device_memory, [found["peak_device_bytes"] or 0 for found in last]),
    ):
        if there and sum(needed) > FITS * there:
            wanted, is_there = sum(needed) / 2**30, there / 2**30
            return f"the {len(cells)} models need {wanted:.1f} GiB of {name} together, {is_there:.1f} are there"
    return ""
