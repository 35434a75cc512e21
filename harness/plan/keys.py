"""The content key of a cell: cells with equal keys are the same measurement."""

from __future__ import annotations

from dataclasses import asdict, fields

from backends import Backend
from harness.machine.digests import digest
from harness.machine.hardware import Machine
from harness.machine.software import software
from harness.plan.spec import MEASURE_VERSION, Cell
from tasks import DataIdentity

_LEFT_OUT = ("checkpoint", "data", "key", "blocked", "ancestor")


def cell_key(cell: Cell, backend: Backend, machine: Machine, identity: DataIdentity | None, task_version: int) -> str:
    """The key of a cell. It contains the names of suite, model and label, so that a record belongs to one row. It leaves out the
    badge's bound and where the data lies; of the data it has the splits that are evaluated, and the checkpoint's key has the
    rest."""
    settings = {field.name: getattr(cell, field.name) for field in fields(cell) if field.name not in _LEFT_OUT}
    settings |= {"shape": asdict(cell.shape), "measure": cell.measure.in_key()}
    libraries = software(backend.distributions)
    libraries.pop("python", None)
    splits = None
    if identity:
        splits = {name: split.sha256 for name, split in identity.splits.items() if name != "train"}
    return digest(
        {
            "cell": settings,
            "checkpoint": cell.checkpoint.key,
            "task": task_version,
            "backend": backend.version,
            "libraries": libraries,
            "data": splits,
            "machine": machine_identity(machine),
            "measure": MEASURE_VERSION,
        }
    )


def machine_identity(machine: Machine) -> str:
    """What a machine is to a key: its processor, its number of cores, and the model of the GPU that cells run on. Two boards of
    one model count as the same, as two processors do."""
    gpus = [gpu.name for gpu in machine.gpus[:1]]
    return ", ".join([machine.cpu, machine.cpu_model, f"{machine.cores} cores", *gpus])
