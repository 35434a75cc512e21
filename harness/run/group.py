"""Cells that stand in one table: their speed rounds alternate, and after each round they run the same work interleaved."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from harness.measure.memory import available_bytes
from harness.plan.spec import Cell
from harness.records import store
from harness.records.schema import Record
from harness.run.assemble import make_record, measured_record
from harness.run.context import Again, CellFailed, CellResults, Run, Until, cell_name, work_folder
from harness.run.events import Event
from harness.run.kept import keep_scores, restore_scores, scores_already_stored
from harness.run.precise import may_end
from harness.run.steps import failed_record, make_job, of_rounds, run_step, start_cell
from harness.run.turns import Interleaved, run_interleaved, turn_groups
from harness.run.work import read_kept, write_kept

MEMORY_SHARE = 0.8
"""The share of the available memory that interleaved models may need together."""


def execute_group(
    cells: list[Cell],
    run: Run,
    previous: Mapping[str, Record],
    finished: Mapping[str, Record],
    again: Again,
    until: Until | None,
) -> Iterator[Record]:
    """The record of each cell, once it is on the disk. previous: the last record of each cell key. finished: those among them
    that make a cell finished, so that it is not measured. again: what of a finished cell is measured."""

    def finish(cell: Cell, record: Record) -> Record:
        run.watch(Event("record", (cell.key,), done=True, results={cell.key: record.status}))
        run.say(f"{cell_name(cell)}: {record.standing}" + (f": {record.why}" if record.why else ""))
        if until is None:
            if not repeats(record, previous.get(cell.key)):
                store.append(run.record_file(cell), record)
                run.stored.add(run.record_file(cell), record)
            if record.measured:
                keep_scores(cell, run)
            shutil.rmtree(work_folder(cell, run), ignore_errors=True)
        return record

    waiting: list[CellResults] = []
    for cell in cells:
        if cell.key in finished:
            run.say(f"{cell_name(cell)}: finished earlier (run {finished[cell.key].run_id})")
            run.watch(Event("record", (cell.key,), done=True, results={cell.key: "finished earlier"}))
            yield finished[cell.key]
        elif cell.blocked:
            reason, remedy = cell.blocked
            yield finish(cell, make_record(cell, run, status="skipped", reason=reason, remedy=remedy))
        else:
            if again:
                shutil.rmtree(work_folder(cell, run), ignore_errors=True)
            note = restore_scores(cell, run) if again == "speed" else ""
            results = start_cell(cell, run, until)
            if isinstance(results, Record):
                yield finish(cell, results)
            else:
                if note:
                    results.notes.append(note)
                results.scores_file = scores_already_stored(results, run, previous)
                waiting.append(results)
    yield from _measure_speed(waiting, run, finish)


def repeats(record: Record, previous: Record | None) -> bool:
    """Whether a cell was skipped for the same reason as the last time: that is not recorded again."""
    return (
        previous is not None
        and record.status == previous.status == "skipped"
        and (record.reason, record.remedy) == (previous.reason, previous.remedy)
    )


def _measure_speed(waiting: list[CellResults], run: Run, finish: Callable[[Cell, Record], Record]) -> Iterator[Record]:
    """Each round runs the cells one after the other under LoadGen, in the opposite order of the round before, and then
    interleaved; where interleaving is the measurement, LoadGen runs in the first round alone. The rounds end when the figures
    that are compared are as precise as the suite asks, if it leaves their number open."""
    for number in range(1, max((results.cell.measure.looks[-1] for results in waiting), default=0) + 1):
        if number > 1 and may_end(waiting, number - 1):
            break
        for results in waiting[:: 1 if number % 2 else -1]:
            measure = results.cell.measure
            if number > measure.looks[-1] or not measure.loadgen_scenarios(number):
                continue
            try:
                results.rounds.append(run_step(results.cell, run, "speed", f"round-{number}", number))
            except CellFailed as failure:
                waiting.remove(results)
                yield finish(results.cell, failed_record(results.cell, run, failure))
        by_key = {
            results.cell.key: results
            for results in waiting
            if number <= results.cell.measure.looks[-1] and not results.lost
        }
        for cells in turn_groups(results.cell for results in by_key.values()):
            interleave([by_key[cell.key] for cell in cells], run, number)
        for results in by_key.values():
            if results.lost and results.cell.measure.is_interleaved:
                waiting.remove(results)
                yield finish(results.cell, failed_record(results.cell, run, results.lost))
    for results in waiting:
        if results.rounds:
            yield finish(results.cell, measured_record(results, run, None))
        else:
            why = next(iter(results.notes[-1:]), "no interleaved round was measured")
            yield finish(results.cell, failed_record(results.cell, run, CellFailed(why)))


def interleave(cells: list[CellResults], run: Run, number: int) -> None:
    """Add an interleaved round to the results of cells, or what an interrupted run kept of it. Where that run had already
    written the records of the others, the kept times of the last cell are still good: all of them took part. A cell whose
    process ended badly is `lost`."""
    paths = [work_folder(results.cell, run) / f"turns-{number}.json" for results in cells]
    kept = [content for content in map(read_kept, paths) if content]
    if len(kept) < len(cells) or len({content["together"] for content in kept}) > 1:
        if len(cells) < 2 and not cells[0].cell.measure.is_interleaved:
            return
        kept = _interleaved_round(cells, run, number)
        for path, content in zip(paths, kept, strict=True):
            with suppress(OSError):  # a full disk is no reason to fail: only a killed run would need the file
                write_kept(path, content)
    for results, content in zip(cells, kept, strict=True):
        results.turns.extend(content["loads"])
        if content["process"] and results.cell.measure.is_interleaved:
            results.rounds.append(content["process"])
        if content["note"]:
            new = not any(note.endswith(f": {content['note']}") for note in results.notes)
            results.notes.append(f"interleaved, round {number}: {content['note']}")
            if new:  # the same of each round is said once
                run.say(f"{cell_name(results.cell)}: {results.notes[-1]}")
        if content.get("log") is not None:
            results.lost = CellFailed(results.notes[-1], tuple(content["log"]))


def _interleaved_round(cells: list[CellResults], run: Run, number: int) -> list[dict[str, Any]]:
    """For each cell `together`, its `loads` and `process` (as in `Interleaved`), a `note` that says why it has none or not
    all, and the `log` of a process that ended badly, else None."""
    first = cells[0].cell
    together = f"{run.run_id} {first.task} {first.seed} {first.device} {number}"
    words = f"{len(cells)} cells interleaved, round {number} {of_rounds(first)}"
    run.say(f"{first.task} / seed {first.seed}: {words}")
    run.watch(Event("turns", tuple(results.cell.key for results in cells), number))
    jobs = {results.cell.key: make_job(results.cell, run, "turns", f"turns-{number}", number) for results in cells}
    notes: dict[str, str] = {}
    round_ = Interleaved({}, {})
    if why := _too_large(cells, run):
        notes = dict.fromkeys(jobs, why)
    else:
        try:
            round_ = run_interleaved(jobs, together, notes.__setitem__)
        except OSError as error:
            notes = dict.fromkeys(jobs, f"{error.filename or 'its processes'}: {error.strerror}")
    run.watch(Event("turns", tuple(jobs), number, done=True, results=round_.loads))
    return [
        {
            "together": together,
            "loads": round_.loads.get(key, []),
            "process": round_.processes[key] | {"run_id": run.run_id} if key in round_.processes else None,
            "note": notes.get(key, ""),
            "log": round_.logs.get(key),
        }
        for key in jobs
    ]


def _too_large(cells: list[CellResults], run: Run) -> str:
    """Why these models do not fit into memory together, by what each needed alone; empty where they do."""
    rounds = [{"peak_device_bytes": None} | (results.rounds or [results.accuracy])[-1] for results in cells]
    gpu_bytes = run.machine.gpus[0].memory_bytes if run.machine.gpus else None
    for name, available, needed in (
        ("memory", available_bytes(), [process["peak_rss_bytes"] for process in rounds]),
        ("GPU memory", gpu_bytes, [process["peak_device_bytes"] or 0 for process in rounds]),
    ):
        if available and sum(needed) > MEMORY_SHARE * available:
            together, there = sum(needed) / 2**30, available / 2**30
            return f"the {len(cells)} models need {together:.1f} GiB of {name} together, {there:.1f} GiB are available"
    return ""
