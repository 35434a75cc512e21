"""Runs a cell again from its record alone: `quantboard rerun RECORD`. It reads no suite file, since that may have changed."""

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
from harness.run.rescore import check_data, refuse_declared
from tasks import DataRef, open_task


def rerun(record: Record, option: str | None, source: Path | None, command: str, say: Callable[[str], None]) -> Record:
    """Measure the record's cell again, with its settings, on this machine; the new record is appended to the results.

    option: the data, as `run --data` takes it. source: the folder of the model where it came from a folder, which records do
    not name. Raises QuantboardError where settings, data or weights are not those of the record.
    """
    from harness.run.executor import execute

    machine = hardware.describe()
    refuse_declared(record)
    on_sample = record.data is not None and record.data.kind == "sample"
    data = find_task_data(record.task, "sample" if on_sample else option)
    task = open_task(record.task, data)
    for split in record.data.splits if record.data else ():
        check_data(record, split, task)
    check_splits(record, task.eval_splits)
    cell = planned_cell(record, data, source)
    backend = get_backend(cell.backend)
    availability = backend.availability(machine.as_dict())
    if not availability.available:
        raise QuantboardError(f"{cell.backend} cannot run here: {availability.reason}; {availability.remedy}")
    cell = replace(cell, device=availability.device, blocked=None)
    cell = replace(cell, key=cell_key(cell, backend, machine, task.identity, task.version))
    if cell.key != record.key:
        say("note: the engine, the machine or a version differs from the record's, so this is another cell")
    run = new_run(
        record.suite,
        record.suite_title,
        command=command,
        machine=machine,
        identities={record.task: task.identity},
        say=say,
        show_progress=True,
        suite_folder=record.suite_folder,
    )
    (new,) = execute([cell], run, {}, again="all", until=None)
    return new


def check_splits(record: Record, splits: Sequence[str]) -> None:
    """Raises QuantboardError where the data has an evaluation split that the record's data did not have."""
    more = [split for split in splits if split not in {part.split for part in record.accuracy}]
    if record.accuracy and more:
        raise QuantboardError(
            f"{record.record_id}: the data has {', '.join(more)}, which the record's data did not have; give a --data DIR"
            " without it, or run the suite"
        )


def planned_cell(record: Record, data: DataRef, source: Path | None) -> Cell:
    """The cell as it was planned, with data and weights where they are on this machine."""
    try:
        cell = Cell.from_json(record.settings)
    except (TypeError, KeyError, AttributeError) as error:
        raise QuantboardError(
            f"{record.record_id}: its settings are of another version of quantboard ({error}); check out commit"
            f" {(record.commit or 'unknown')[:12]} and run it there"
        ) from None
    checkpoint = _located(cell.checkpoint, data, source, record)
    check_inputs(checkpoint, record)
    return replace(cell, data=data, checkpoint=checkpoint)


def _located(spec: CheckpointSpec, data: DataRef, source: Path | None, record: Record) -> CheckpointSpec:
    """The checkpoint and those that it is made from, with data and sources of this machine."""
    needed = {
        name: _located(other, data, source, record)
        for name in ("parent", "teacher", "masked_lm")
        if (other := getattr(spec, name, None)) is not None
    }
    parent = needed.get("parent")
    if parent is not None and spec.parent is not None and spec.source == spec.parent.source:
        located = parent.source
    else:
        located = _find_source(spec, source, record) if parent is None and spec.source != "scratch" else spec.source
    return replace(spec, data=data, source=located, **needed)  # type: ignore[arg-type]


def check_inputs(spec: CheckpointSpec, record: Record) -> None:
    """Raises QuantboardError where a checkpoint must be made again from word vectors or text that are not here."""
    if folder_of(spec, paths.cache()).is_dir():
        return
    for needed in spec.needs:
        check_inputs(needed, record)
    if ((spec.distill or {}).get("augment") or {}).get("glove"):
        raise QuantboardError(
            f"{record.record_id}: its examples were made with a file of word vectors, and records do not say where that file"
            f" is; run the suite again: {record.command}"
        )
    if recorded := (spec.identity or {}).get("corpus"):
        current = corpus_identity(spec.data)[0]["corpus"]
        if recorded != current:
            raise QuantboardError(
                f"{record.record_id}: its general stage read other text ({recorded}) than this data has ({current}); give"
                " the folder whose corpus/ holds that text with --data"
            )


def _find_source(spec: CheckpointSpec, folder: Path | None, record: Record) -> str:
    """Where the weights are on this machine. Raises QuantboardError where they are missing or have changed."""
    local = spec.source.partition(":")[0] not in ("hub", "package")
    if local and folder is None:
        raise QuantboardError(
            f"{record.record_id}: its model came from a folder '{spec.source}'; name that folder with --source"
        )
    onnx = "onnx:" if spec.source.startswith("onnx:") else ""
    source = look_up(f"{onnx}{folder.resolve()}" if local and folder else spec.source, Path.cwd(), hub=True)
    if source.blocked:
        raise QuantboardError(f"{source.blocked[0]}; {source.blocked[1]}")
    recorded = spec.identity or {}
    changed = [
        name for name, value in source.identity.items() if name != "revision" and recorded.get(name, value) != value
    ]
    if changed:
        raise QuantboardError(
            f"{record.record_id}: {', '.join(changed)} of {spec.source} is not what the record was made from;"
            " restore that version of the model"
        )
    return source.source
