"""What this machine can run, and what to install or fix for the rest."""

from __future__ import annotations

import os
import shutil
from typing import Any

from backends import backend_names, get_backend
from harness.machine import hardware, paths, software


def examine() -> dict[str, Any]:
    """The machine, every backend's availability, the hub, the checkout and the cache. Probes the network once, within 5 s."""
    from tasks.sources import hub_reachable

    machine = hardware.describe().as_dict()
    rows: dict[str, Any] = {}
    for name in backend_names():
        backend = get_backend(name)
        found = backend.availability(machine)
        rows[name] = {
            "available": found.available,
            "device": found.device,
            "reason": found.reason,
            "remedy": found.remedy,
            "versions": software.software(backend.distributions),
        }
    hub = hub_reachable()
    cache = paths.cache()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    sha, dirty = software.commit()
    return {
        "machine": machine,
        "backends": rows,
        "hub": {
            "reachable": hub,
            "remedy": ""
            if hub
            else "give --data DIR, or set HF_ENDPOINT to a mirror; without either, suites run on the sample",
        },
        "cache": {
            "folder": str(cache),
            "free_bytes": shutil.disk_usage(existing).free,
            "writable": existing.is_dir() and os.access(existing, os.W_OK),
        },
        "commit": sha,
        "dirty": dirty,
    }


def print_findings(found: dict[str, Any]) -> None:
    here = found["machine"]
    print(f"machine   {here['cpu']}, {here['cores']} cores, {here['memory_bytes'] / 2**30:.0f} GiB")
    print(f"gpus      {', '.join(gpu['name'] for gpu in here['gpus']) or 'none that an NVIDIA driver answers for'}")
    print(f"hub       {'reachable' if found['hub']['reachable'] else 'not reachable; ' + found['hub']['remedy']}")
    room = (
        f"{found['cache']['free_bytes'] / 2**30:.0f} GiB free"
        if found["cache"]["writable"]
        else "cannot be written to; set QUANTBOARD_CACHE to a folder that can"
    )
    print(f"cache     {found['cache']['folder']} ({room})")
    print("backends")
    for name, row in found["backends"].items():
        versions = ", ".join(f"{key} {value}" for key, value in row["versions"].items())
        print(
            f"  {name:26}"
            + (
                f"runs on {row['device']} ({versions})"
                if row["available"]
                else f"cannot run: {row['reason']}; {row['remedy']}"
            )
        )
