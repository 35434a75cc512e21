"""What pages call a machine: the kind of its processor, which decides how it runs INT8 products."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.records.schema import Record
from harness.report.comparability import machine_of

KINDS = {"AMX": "amx_int8", "AVX-512 VNNI": "avx512_vnni", "AVX-VNNI": "avx_vnni", "AVX2": "avx2", "Arm I8MM": "i8mm"}
"""Kinds of processor by the instruction set that decides how it runs INT8 products, the newest first."""

OTHER = "other processor"


@dataclass(frozen=True)
class Machine:
    """identity: as `machine_of`, every detail. title: `2 cores, AVX-512 VNNI`. short: `VNNI`. slug: for file names. place: among
    all machines, 0 the one with the newest instructions."""

    identity: str
    title: str
    short: str
    slug: str
    place: int = 0


def kind_of(record: Record) -> str:
    """The kind of machine that a cell ran on, or could not run on."""
    if record.device == "cuda":
        return "GPU"
    flags = record.machine.get("flags") or []
    return next((kind for kind, flag in KINDS.items() if flag in flags), OTHER)


def machines(records: Sequence[Record]) -> dict[str, Machine]:
    """The machines of these records by identity, the one with the newest instructions first. Equal titles get
    their processor's name, then a number."""
    order = ["GPU", *KINDS, OTHER]
    first = {machine_of(record): record for record in sorted(records, key=lambda record: record.device == "cuda")}
    ordered = sorted(first.items(), key=lambda item: order.index(_kind_of_host(item[1])))
    named: dict[str, Machine] = {}
    for identity, record in ordered:
        machine = _machine(identity, record)
        if any(machine.title == other.title for other in named.values()):
            machine = replace(machine, title=f"{machine.title}, {record.machine.get('cpu', 'unknown')}")
        namesakes = sum(machine.title.startswith(other.title) or machine.slug in other.slug for other in named.values())
        if any(machine.title == other.title for other in named.values()):
            machine = replace(machine, title=f"{machine.title} ({namesakes + 1})")
        if any(machine.slug == other.slug for other in named.values()):
            machine = replace(machine, slug=f"{machine.slug}-{namesakes + 1}")
        named[identity] = replace(machine, place=len(named))
    return named


def _kind_of_host(record: Record) -> str:
    return "GPU" if record.machine.get("gpus") else kind_of(record)


def _machine(identity: str, record: Record) -> Machine:
    kind = _kind_of_host(record)
    gpus = record.machine.get("gpus") or []
    cores = record.machine.get("cores", "?")
    what = str(gpus[0]["name"]) if gpus else str(record.machine.get("cpu", kind)) if kind == OTHER else kind
    title = what if gpus else f"{cores} cores, {what}"
    short = "CPU" if kind == OTHER else kind.split()[-1].split("-")[-1]
    return Machine(identity, title, short, re.sub(r"[^a-z0-9]+", "-", what.lower()).strip("-") or "machine")
