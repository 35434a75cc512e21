"""What makes a cell the same cell: its content key."""

from __future__ import annotations

from dataclasses import asdict

from backends import Backend
from harness.machine.digests import digest
from harness.machine.hardware import Machine
from harness.machine.software import software
from harness.plan.spec import MEASURE_VERSION, Cell
from tasks import DataIdentity


def cell_key(cell: Cell, backend: Backend, machine: Machine, identity: DataIdentity | None, task_version: int) -> str:
    """Suite, model and label belong to it: a record is found again by the row it stands in. Where the data lies, and the
    badge's bound, do not; of the data it holds what is evaluated, the checkpoint's key holds the rest."""
    settings = asdict(cell)
    for name in ("checkpoint", "data", "key", "blocked", "ancestor"):
        del settings[name]
    settings["measure"] = cell.measure.in_key()
    libraries = software(backend.distributions)
    libraries.pop("python", None)
    return digest(
        {
            "cell": settings,
            "checkpoint": cell.checkpoint.key,
            "task": task_version,
            "backend": backend.version,
            "libraries": libraries,
            "data": {name: one.sha256 for name, one in identity.splits.items() if name != "train"}
            if identity
            else None,
            "machine": machine_identity(machine),
            "measure": MEASURE_VERSION,
        }
    )


def machine_identity(machine: Machine) -> str:
    """What makes two machines the same to a record: processor, cores, and the GPU that cells run on, by its name: equal boards
    are as equal as equal processors, so that a record is found again when another of them is free."""
    gpus = [gpu.name for gpu in machine.gpus[:1]]
    return ", ".join([machine.cpu, machine.cpu_model, f"{machine.cores} cores", *gpus])
