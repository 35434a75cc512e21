"""A recipe in several processes on this machine, one for each device; the first of them writes the checkpoint."""

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

from harness.checkpoints import recipes
from harness.checkpoints.training.devices import make_accelerator
from harness.checkpoints.training.loop import delayed_interrupt
from harness.errors import CheckpointError, QuantboardError, SourceUnavailable, WorkerFailed, cache_fault
from harness.machine.processes import USER_FAULT, describe_exit, die_with_parent, tail
from harness.plan.spec import CheckpointSpec


def process_count(spec: CheckpointSpec) -> int:
    """The number of processes that train the checkpoint: as many as `train.devices`, but no more than there are GPUs where the
    machine has some."""
    wanted = int((spec.train or {}).get("devices", 1))
    gpus = torch.cuda.device_count()
    return min(wanted, gpus) if gpus else wanted


def run_recipe(spec: CheckpointSpec, cache: Path, output: Path, size: int) -> dict[str, Any]:
    """Run a recipe in `size` processes; the first writes into the folder `output`. Returns what origin.json says of it.

    When one process fails the others are ended. Raises CheckpointError for a user's fault, WorkerFailed where a process was
    killed, and KeyboardInterrupt after the processes have saved a state.
    """
    from accelerate.utils import PrepareForLaunch, patch_environment
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

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
        job = {"spec": asdict(spec), "cache": str(cache), "part": str(output)}
        (folder / "job.json").write_text(json.dumps(job))
        worker = PrepareForLaunch(_worker, distributed_type="MULTI_GPU" if on_gpus else "MULTI_CPU")
        with patch_environment(**environment):
            context: Any = start_processes(  # type: ignore[no-untyped-call]
                worker, (name,), size, join=False, daemon=True, start_method="spawn"
            )
        forwarded = False
        try:
            while not context.join(timeout=0.2):
                if interrupted() and not forwarded:
                    forwarded = True
                    for pid in context.pids():
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGINT)
        except (ProcessExitedException, ProcessRaisedException) as error:
            if interrupted():  # the processes were ending because of it: no failure
                raise KeyboardInterrupt from None
            exit_codes = [process.exitcode for process in context.processes]
            if failure := _failure(folder, spec, exit_codes):
                raise failure from None
            raise error
        if interrupted():
            raise KeyboardInterrupt
        facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    return facts


def _failure(folder: Path, spec: CheckpointSpec, exit_codes: Sequence[int | None]) -> CheckpointError | None:
    """Why processes failed: a user's fault, else a process that was killed, since others may have failed only because it was
    missing. None for a bug."""
    fault = next(iter(sorted(folder.glob("fault-*.json"))), None)
    if fault:
        message = json.loads(fault.read_text())
        return SourceUnavailable(*message) if len(message) == 2 else CheckpointError(*message)
    for rank, code in enumerate(exit_codes):
        if code is not None and code < 0 and code != -signal.SIGTERM:
            reason = f"{spec.model}: training on device {rank + 1} of {len(exit_codes)}: {describe_exit(code)}"
            return WorkerFailed(reason, tail(folder / f"log-{rank}"))
    return None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _worker(name: str) -> None:
    """One of the processes; `name`: the folder of the job. The first prints where its parent prints, the others into log files
    in that folder."""
    from safetensors import SafetensorError

    from backends import BackendError
    from tasks import TaskError

    die_with_parent()
    os.setpgid(0, 0)  # the parent forwards Ctrl-C, once; the terminal must not send it as well
    folder, rank = Path(name), int(os.environ["RANK"])
    job = json.loads((folder / "job.json").read_text())
    output = Path(job["part"])
    if rank:
        with (folder / f"log-{rank}").open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        output = folder / f"part-{rank}"
        output.mkdir()
    make_accelerator()
    try:
        try:
            facts = recipes.run_recipe(CheckpointSpec.from_json(job["spec"]), Path(job["cache"]), output)
        except (OSError, SafetensorError) as error:
            raise cache_fault(error, Path(job["cache"])) or error from None
    except (QuantboardError, TaskError, BackendError) as error:
        message = [error.reason, error.remedy] if isinstance(error, SourceUnavailable) else [str(error)]
        file = folder / f"fault-{rank}.json"
        file.with_suffix(".part").write_text(json.dumps(message))
        file.with_suffix(".part").replace(file)
        sys.exit(USER_FAULT)
    if rank == 0:
        (folder / "facts.json").write_text(json.dumps(facts, allow_nan=False))
    torch.distributed.destroy_process_group()
