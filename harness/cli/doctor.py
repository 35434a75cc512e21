"""The verb `doctor`: what this machine can run, and what to install or fix for the rest."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.arguments import Verbs, add_verb
from harness.cli.terminal import say
from harness.errors import did_you_mean, visible

if TYPE_CHECKING:
    from backends import Availability
    from harness.machine.hardware import Machine

HUB_FIX = "give --data DIR, or set HF_ENDPOINT to a mirror; otherwise suites run on the generated sample"


@dataclass(frozen=True)
class Diagnosis:
    """backends: availability and versions of its libraries, by name. free_bytes: on the disk of the cache."""

    machine: Machine
    backends: Mapping[str, tuple[Availability, Mapping[str, str]]]
    hub: bool
    cache: Path
    free_bytes: int
    writable: bool
    commit: str | None
    dirty: bool | None

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "machine": self.machine.as_dict(),
            "backends": {
                name: {
                    "available": state.available,
                    "device": state.device,
                    "reason": state.reason,
                    "remedy": state.remedy,
                    "versions": versions,
                }
                for name, (state, versions) in self.backends.items()
            },
            "hub": {"reachable": self.hub, "remedy": "" if self.hub else HUB_FIX},
            "cache": {"folder": str(self.cache), "free_bytes": self.free_bytes, "writable": self.writable},
            "commit": self.commit,
            "dirty": self.dirty,
        }


def add_verbs(verbs: Verbs) -> None:
    parser = add_verb(
        verbs, "doctor", doctor, "show what this machine can run, and what to install or fix for the rest"
    )
    parser.add_argument(
        "--require", type=_backends, default=[], metavar="A,B", help="exit with 1 unless these backends run here"
    )


def _backends(text: str) -> list[str]:
    from backends import backend_names

    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in backend_names():
            raise argparse.ArgumentTypeError(f"there is no backend '{name}'{did_you_mean(name, backend_names())}")
    return names


def doctor(options: argparse.Namespace) -> int:
    diagnosis = examine()
    print(json.dumps(diagnosis.as_dict())) if options.json else print_diagnosis(diagnosis)
    states = {name: diagnosis.backends[name][0] for name in options.require}
    lacking = {name: state for name, state in states.items() if not state.available}
    for name, state in lacking.items():
        say(f"{name} is required and cannot run: {state.reason}; {state.remedy}")
    return 1 if lacking else 0


def examine() -> Diagnosis:
    """Look at the machine, every backend, the hub, the checkout and the cache. Asks the network once, for at most 5 s."""
    from backends import backend_names
    from harness.machine import hardware, paths, software
    from tasks.sources import hub_reachable

    machine = hardware.describe()
    cache = paths.cache()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    commit, dirty = software.commit()
    return Diagnosis(
        machine=machine,
        backends={name: _state(name, machine) for name in backend_names()},
        hub=hub_reachable(),
        cache=cache,
        free_bytes=shutil.disk_usage(existing).free,
        writable=existing.is_dir() and os.access(existing, os.W_OK),
        commit=commit,
        dirty=dirty,
    )


def _state(name: str, machine: Machine) -> tuple[Availability, Mapping[str, str]]:
    """Whether a backend runs here, and its libraries. An installed package's may be broken in any way: that is its row."""
    from backends import Availability, BackendError, get_backend
    from harness.machine import software

    try:
        backend = get_backend(name)
        return backend.availability(machine.as_dict()), software.software(backend.distributions)
    except BackendError as error:
        reason, _, remedy = str(error).partition("; ")
    except Exception as error:
        reason, remedy = (
            f"it cannot say whether it runs ({type(error).__name__}: {error})",
            "mend or uninstall its package",
        )
    return Availability(False, reason, remedy), {}


def print_diagnosis(diagnosis: Diagnosis) -> None:
    machine = diagnosis.machine
    print(f"machine   {machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB")
    print(f"GPUs      {', '.join(gpu.name for gpu in machine.gpus) or 'no NVIDIA GPU found'}")
    print(f"hub       {'reachable' if diagnosis.hub else f'not reachable; {HUB_FIX}'}")
    space = f"{diagnosis.free_bytes / 2**30:.0f} GiB free"
    if not diagnosis.writable:
        space = "cannot be written to; set QUANTBOARD_CACHE to a folder that can"
    print(f"cache     {diagnosis.cache} ({space})")
    print("backends")
    for name, (state, versions) in diagnosis.backends.items():
        listed = ", ".join(f"{library} {version}" for library, version in versions.items())
        text = (
            f"runs on {state.device} ({listed})" if state.available else f"cannot run: {state.reason}; {state.remedy}"
        )
        print(visible(f"  {name:26}{text}"))
