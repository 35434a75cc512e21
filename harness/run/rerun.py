"""Run a cell again from its record alone: `quantboard rerun RECORD`. No suite file is read; it may have changed, or be gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from backends import get_backend
from harness.errors import QuantboardError
from harness.machine import hardware, paths
from harness.plan.data import find_task_data
from harness.plan.keys import cell_key
from harness.plan.sources import corpus_identity, look_up
from harness.plan.spec import Cell, CheckpointSpec, folder_of
from harness.records.schema import Record
from harness.run.context import new_run
from harness.run.rescore import check_data
from tasks import DataRef, open_task


def rerun(entry: Record, option: str | None, source: Path | None, command: str, say: Callable[[str], None]) -> Record:
    """Measure the cell again, with its settings, on this machine; the new record is appended beside the old.

    option: the data, as `run` takes it. source: the folder of a model that came from one, whose place records do not keep.
    Raises QuantboardError where settings, data or weights are not those of the record.
    """
    from harness.run.executor import execute

    machine = hardware.describe()
    wanted = "sample" if entry.data and entry.data.kind == "sample" else option
    ref = find_task_data(entry.task, wanted)
    task = open_task(entry.task, ref)
    for split in entry.data.splits if entry.data else ():
        check_data(entry, split, task)
    _check_splits(entry, task.eval_splits)
    cell = _cell(entry, ref, source)
    backend = get_backend(cell.backend)
    found = backend.availability(machine.as_dict())
    if not found.available:
        raise QuantboardError(f"{cell.backend} cannot run here: {found.reason}; {found.remedy}")
    cell = replace(cell, device=found.device, blocked=None)
    cell = replace(cell, key=cell_key(cell, backend, machine, task.identity, task.version))
    if cell.key != entry.key:
        say(
            "note: engine, machine or a version differs from the record's: this is another cell, to be compared with it"
        )
    run = new_run(
        entry.suite,
        entry.suite_title,
        command=command,
        machine=machine,
        identities={entry.task: task.identity},
        say=say,
        show_progress=True,
    )
    (made,) = execute([cell], run, {}, fresh=True, until=None)
    return made


def _check_splits(entry: Record, there: Sequence[str]) -> None:
    """Raises QuantboardError for data with an evaluation split that the record's had not: it would be another cell."""
    more = [split for split in there if split not in {part.split for part in entry.accuracy}]
    if entry.accuracy and more:
        raise QuantboardError(
            f"{entry.record_id}: the data has {', '.join(more)}, which the record's had not; give a --data DIR without it, or"
            " run the suite"
        )


def _cell(entry: Record, ref: DataRef, source: Path | None) -> Cell:
    """The planned cell, with the places of this machine in it."""
    try:
        cell = Cell.from_json(entry.settings)
    except (TypeError, KeyError, AttributeError) as error:
        raise QuantboardError(
            f"{entry.record_id}: its settings are not those of this version ({error}); check out commit"
            f" {(entry.commit or 'unknown')[:12]} and run it there"
        ) from None
    checkpoint = _here(cell.checkpoint, ref, source, entry)
    _check_reading(checkpoint, entry)
    return replace(cell, data=ref, checkpoint=checkpoint)


def _here(spec: CheckpointSpec, ref: DataRef, source: Path | None, entry: Record) -> CheckpointSpec:
    made_from = {
        name: _here(one, ref, source, entry)
        for name in ("parent", "teacher", "masked_lm")
        if (one := getattr(spec, name, None)) is not None
    }
    parent = made_from.get("parent")
    if parent is not None and spec.parent is not None and spec.source == spec.parent.source:
        place = parent.source
    else:
        place = _source(spec, source, entry) if parent is None and spec.source != "scratch" else spec.source
    return replace(spec, data=ref, source=place, **made_from)  # type: ignore[arg-type]


def _check_reading(spec: CheckpointSpec, entry: Record) -> None:
    """Raises QuantboardError where the words or the text that a stage would have to read again are not here."""
    if folder_of(spec, paths.cache()).is_dir():
        return
    for one in spec.needs:
        _check_reading(one, entry)
    if ((spec.distill or {}).get("augment") or {}).get("glove"):
        raise QuantboardError(
            f"{entry.record_id}: its examples were made with a file of word vectors, and no record holds where it lies;"
            f" run it again: {entry.command}"
        )
    if text := (spec.identity or {}).get("corpus"):
        here = corpus_identity(spec.data)[0]["corpus"]
        if text != here:
            raise QuantboardError(
                f"{entry.record_id}: its general stage read other text ({text}) than is here ({here}); give the folder that"
                " holds it in corpus/ with --data"
            )


def _source(spec: CheckpointSpec, folder: Path | None, entry: Record) -> str:
    """Where the weights are here. Raises QuantboardError where they are not, or are others."""
    local = spec.source.partition(":")[0] not in ("hub", "package")
    if local and folder is None:
        raise QuantboardError(
            f"{entry.record_id}: its model came from a folder '{spec.source}'; name that folder with --source"
        )
    found = look_up(str(folder.resolve()) if local and folder else spec.source, Path.cwd(), hub=True)
    if found.blocked:
        raise QuantboardError(f"{found.blocked[0]}; {found.blocked[1]}")
    then = spec.identity or {}
    changed = [name for name, value in found.identity.items() if name != "revision" and then.get(name, value) != value]
    if changed:
        raise QuantboardError(
            f"{entry.record_id}: {', '.join(changed)} of {spec.source} is not what the record was made from;"
            " bring back that version of the model"
        )
    return found.source
