"""Processes that the runner starts: they die with it, their output is kept, and how they ended is told in words."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ended:
    """How a process ended. reason is empty when it ended well; log holds the last lines it wrote."""

    code: int
    reason: str
    log: tuple[str, ...]


def die_with_parent() -> None:
    """Called first thing in a child: a runner killed by SIGKILL must not leave it running (Linux's parent-death signal).

    Without a runner, started by hand, a child outlives the shell that it was started from."""
    parent = os.environ.get("QUANTBOARD_PARENT")
    if parent and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # it died before we asked
            os._exit(1)


def run_module(
    module: str, job: Path, log: Path, *, timeout: float, show: bool = False, threads: int | None = None
) -> Ended:
    """Run `python -m module job` to its end in a session of its own; everything it prints goes to `log`, or with `show`
    its standard error to this terminal (progress bars) and only its standard output to `log`.

    On KeyboardInterrupt the child gets SIGINT and ten seconds to save what it can; a second Ctrl-C kills it at once.
    """
    environment = {
        **os.environ,
        "QUANTBOARD_PARENT": str(os.getpid()),
        "TOKENIZERS_PARALLELISM": "true",
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # NVML's: what is watched is what is used
    }
    if threads:
        environment |= {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads),
        }
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", module, str(job)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if show else output,
            env=environment,
            start_new_session=True,
        )
        try:
            code = _wait(child, timeout)
            reason = how_it_ended(code)
        except subprocess.TimeoutExpired:
            _stop(child, signal.SIGKILL)
            code, reason = child.returncode, f"took longer than {timeout:.0f} s and was stopped"
        except KeyboardInterrupt:
            try:
                _stop(child, signal.SIGINT, patience=10)
            finally:
                if child.poll() is None:
                    _stop(child, signal.SIGKILL)
            raise
    return Ended(code, reason, tail(log))


def _wait(child: subprocess.Popen[bytes], timeout: float) -> int:
    """`child.wait(timeout)`, which looks twenty times a second, asleep until the child ends: it may be measuring."""
    if hasattr(os, "pidfd_open"):
        try:
            end = os.pidfd_open(child.pid)
        except OSError:  # an old kernel, or a sandbox
            return child.wait(timeout)
        try:
            if not select.select([end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(child.args, timeout)
        finally:
            os.close(end)
    return child.wait(timeout)


def _stop(child: subprocess.Popen[bytes], number: signal.Signals, patience: float = 5) -> None:
    try:
        os.killpg(child.pid, number)
        child.wait(patience)
    except ProcessLookupError:
        child.wait()
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def how_it_ended(code: int) -> str:
    """In words; nothing where a process ended well."""
    if code >= 0:
        return "" if code == 0 else f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = ": most often the kernel, out of memory" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


def tail(log: Path, lines: int = 15) -> tuple[str, ...]:
    """The last lines of a log, progress bars' carriage returns resolved."""
    if not log.exists():
        return ()
    text = log.read_bytes()[-20_000:].decode(errors="replace")
    return tuple(line.rsplit("\r", 1)[-1].rstrip() for line in text.splitlines() if line.strip())[-lines:]
