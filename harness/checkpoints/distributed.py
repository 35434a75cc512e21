from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from harness.checkpoints.training.devices import make_accelerator
from harness.errors import CheckpointError, QuantboardError, SourceUnavailable, WorkerFailed
from harness.machine.processes import USER_FAULT, describe_exit, die_with_parent, tail
from harness.plan.spec import CheckpointSpec


def count(spec: CheckpointSpec) -> int:
    """Processes that a checkpoint is trained by here: no more than there are GPUs, if there are any."""
    wanted = int((spec.train or {}).get("devices", 1))
    here = torch.cuda.device_count()
    return min(wanted, here) if here else wanted


def follow(spec: CheckpointSpec, cache: Path, part: Path, size: int) -> dict[str, Any]:
    """Follow a recipe in `size` processes; the first of them writes into `part`. Returns what origin.json says of it.

    Raises CheckpointError for a fault of the user's in one of them; WorkerFailed, as soon as one of them ended badly: the
    others are ended too. KeyboardInterrupt after they have saved a state.
    """
    from accelerate.utils import PrepareForLaunch, patch_environment
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

    from harness.checkpoints.training.loop import delayed_interrupt

    on_gpus = torch.cuda.is_available()
    environment = {
        "world_size": size,
        "local_world_size": size,
        "master_addr": "127.0.0.1",
        "master_port": _free_port(),
        "quantboard_parent": os.getpid(),
        **({} if on_gpus else {"accelerate_use_cpu": "yes", "gloo_socket_ifname": "lo"}),
    }
    with tempfile.TemporaryDirectory(prefix="quantboard-") as name, delayed_interrupt() as interrupted:
        folder = Path(name)
        job = {"spec": asdict(spec), "cache": str(cache), "part": str(part)}
        (folder / "job.json").write_text(json.dumps(job))
        work = PrepareForLaunch(_work, distributed_type="MULTI_GPU" if on_gpus else "MULTI_CPU")
        with patch_environment(**environment):
            started: Any = start_processes(  # type: ignore[no-untyped-call]
                work, (name,), size, join=False, daemon=True, start_method="spawn"
            )
        told = False
        try:
            while not started.join(timeout=1.0):
                if interrupted() and not told:
                    told = True
                    for number in started.pids():
                        with suppress(ProcessLookupError):
                            os.kill(number, signal.SIGINT)
        except (ProcessExitedException, ProcessRaisedException) as error:
            if interrupted():  # while they were about to end: no fault of theirs
                raise KeyboardInterrupt from None
            codes = [process.exitcode for process in started.processes]
            if fault := _fault(folder, spec, codes):
                raise fault from None
            raise error
        if interrupted():
            raise KeyboardInterrupt
        facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    return facts


def _fault(folder: Path, spec: CheckpointSpec, codes: Sequence[int | None]) -> CheckpointError | None:
    """Why processes ended badly; None for an error of ours in one of them. The one that was killed comes first: the others
    may have fallen over its absence before they were ended."""
    told = next(iter(sorted(folder.glob("fault-*.json"))), None)
    if told:
        words = json.loads(told.read_text())
        return SourceUnavailable(*words) if len(words) == 2 else CheckpointError(*words)
    for rank, code in enumerate(codes):
        if code is not None and code < 0 and code != -signal.SIGTERM:
            what = f"{spec.model}: training on device {rank + 1} of {len(codes)}: {describe_exit(code)}"
            return WorkerFailed(what, tail(folder / f"log-{rank}"))
    return None


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _work(name: str) -> None:
    """One of the processes. What the first says goes where the parent's words go; the others' to files of their own."""
    from safetensors import SafetensorError

    from backends import BackendError
    from harness.checkpoints.recipes import run_recipe
    from harness.errors import cache_fault
    from tasks import TaskError

    die_with_parent()
    os.setpgid(0, 0)  # Ctrl-C comes by way of the parent, once
    folder, rank = Path(name), int(os.environ["RANK"])
    job = json.loads((folder / "job.json").read_text())
    part = Path(job["part"])
    if rank:
        with (folder / f"log-{rank}").open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        part = folder / f"part-{rank}"
        part.mkdir()
    make_accelerator()
    try:
        try:
            facts = run_recipe(CheckpointSpec.from_json(job["spec"]), Path(job["cache"]), part)
        except (OSError, SafetensorError) as error:
            raise cache_fault(error, Path(job["cache"])) or error from None
    except (QuantboardError, TaskError, BackendError) as error:
        words = [error.reason, error.remedy] if isinstance(error, SourceUnavailable) else [str(error)]
        file = folder / f"fault-{rank}.json"
        file.with_suffix(".part").write_text(json.dumps(words))
        file.with_suffix(".part").replace(file)
        sys.exit(USER_FAULT)
    if rank == 0:
        (folder / "facts.json").write_text(json.dumps(facts, allow_nan=False))
    torch.distributed.destroy_process_group()
