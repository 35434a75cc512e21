"""Child processes of the runner: they end when it ends, their output goes to a log, and how they ended is put in words."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import printable
from harness.machine import forks

USER_FAULT = 3
"""Exit code of a job that ends in a fault of the user's input or machine; its last line on stdout is the message."""


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""


PR_SET_PDEATHSIG = 1
"""prctl(2)'s option, from linux/prctl.h."""


REPLIES = "QUANTBOARD_REPLIES"
"""Environment variable of a `ServerProcess` that holds the number of the file descriptor for its answers."""


KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""Settings of glibc (mallopt(3)) that keep freed memory in the process. By default each large tensor is mapped and its pages
are faulted in again, which takes an eighth of a training's time on a CPU and half of a simulation's. Other C libraries ignore
them."""


@dataclass(frozen=True)
class ProcessResult:
    """How a process ended. reason: empty after exit code 0. log: the last lines that it wrote."""

    code: int
    reason: str
    log: tuple[str, ...]
    timed_out: bool = False


def die_with_parent() -> None:
    """Make the kernel kill this process when the runner dies, even by SIGKILL (Linux's parent-death signal). A child calls this
    first. Without a runner, when a child was started by hand, it does nothing."""
    parent = os.environ.get("QUANTBOARD_PARENT")
    if parent and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # the runner died before the call above
            os._exit(1)


def run_module(
    module: str,
    job: Path,
    log: Path,
    *,
    timeout: float,
    show: bool = False,
    threads: int | None = None,
    keep_memory: bool = False,
    memory: int | None = None,
    imported: Sequence[str] = (),
) -> ProcessResult:
    """Run `python -m module job` to its end, in a session of its own.

    job: its folder is the child's folder for temporary files, so that they go with it however the child ends. log: gets all
    output. show: standard error (progress bars) goes to this terminal instead. timeout: seconds after which the
    child is killed. threads: of OpenMP, MKL and OpenBLAS. keep_memory: sets KEEP_MEMORY, unless the caller's environment does,
    for work whose speed and memory are not figures of a backend.

    memory: bytes of private memory that the child may map (RLIMIT_DATA, setrlimit(2)); more is refused to it, and most programs
    then end. imported: modules that its process has imported already, so that their seconds are spent once: it is forked by
    `harness.machine.forks`, and calls the module's `main`. Not for a process that uses a GPU.

    On KeyboardInterrupt the child gets SIGINT and ten seconds to save its state; a second Ctrl-C kills it at once.
    """
    child: subprocess.Popen[bytes] | forks.Forked | None = None
    with log.open("ab") as output:
        kept = KEEP_MEMORY if keep_memory else {}
        environment = {**kept, **child_environment(threads), "TMPDIR": str(job.parent)}
        if imported:
            server = forks.find_server(imported, {**kept, **child_environment(None)})
            child = server.start(module, job, log, environment, show=show) if server else None
        if child is None:
            child = subprocess.Popen(
                [sys.executable, "-m", module, str(job)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if show else output,
                env=environment,
                start_new_session=True,
            )
        timed_out = False
        try:
            _limit_memory(child.pid, memory)
            code = _wait(child, timeout)
            reason = describe_exit(code)
        except subprocess.TimeoutExpired:
            _stop(child, signal.SIGKILL)
            timed_out = True
            code, reason = child.wait(), f"took longer than {timeout:.0f} s and was stopped"
        except KeyboardInterrupt:
            try:
                _stop(child, signal.SIGINT, patience=10)
            finally:
                if child.poll() is None:
                    _stop(child, signal.SIGKILL)
            raise
    return ProcessResult(code, reason, tail(log), timed_out)


def child_environment(threads: int | None) -> dict[str, str]:
    """This process's environment with what every child needs; threads: of OpenMP, MKL and OpenBLAS, None leaves them alone."""
    environment = {
        **os.environ,
        "QUANTBOARD_PARENT": str(os.getpid()),
        "TOKENIZERS_PARALLELISM": "true",
        "PYTHONUNBUFFERED": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # NVML's order, so that the GPU that is used is the one that is watched
    }
    if threads:
        environment |= {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads),
        }
    return environment


def _limit_memory(pid: int, memory: int | None) -> None:
    if memory is not None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            resource.prlimit(pid, resource.RLIMIT_DATA, (memory, memory))


class ProcessDied(Exception):
    """A `ServerProcess` ended or does not answer; the message says how. log: the last lines that it wrote."""

    def __init__(self, how: str, log: tuple[str, ...] = (), *, timed_out: bool = False) -> None:
        super().__init__(how)
        self.log, self.timed_out = log, timed_out


class ServerProcess:
    """`with ServerProcess(module, job, log) as process:` a child process that answers requests until the block ends.

    Requests and answers are JSON, a line each. The child reads requests from its standard input and writes answers to the
    descriptor that REPLIES names; whatever it and its libraries print goes to `log`, so that it cannot mix with the answers.
    memory: as for `run_module`.
    """

    def __init__(
        self, module: str, job: Path, log: Path, *, threads: int | None = None, memory: int | None = None
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            read_end, write_end = os.pipe()
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", module, str(job)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    pass_fds=[write_end],
                    env=child_environment(threads) | {REPLIES: str(write_end), "TMPDIR": str(job.parent)},
                    start_new_session=True,
                )
            except OSError:
                os.close(read_end)
                raise
            finally:
                os.close(write_end)
        self._replies, self._buffer = read_end, b""
        _limit_memory(self._child.pid, memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._replies)
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):  # it may have ended
            self._child.stdin.close()
        if error is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(10)
        self.stop()

    def stop(self) -> None:
        """Kill the process at once, if it still runs."""
        if self._child.poll() is None:
            _stop(self._child, signal.SIGKILL)

    def send(self, request: Mapping[str, Any]) -> bool:
        """Send a request. Always true. Raises ProcessDied."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        except OSError:
            raise self._died() from None
        return True

    def receive(self, timeout: float) -> Any:
        """The answer to the last request. timeout: in seconds, after which the process is killed. Raises ProcessDied."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            if not select.select([self._replies], [], [], max(0.0, deadline - time.monotonic()))[0]:
                _stop(self._child, signal.SIGKILL)
                raise ProcessDied(f"no answer within {timeout:.0f} s", tail(self._log), timed_out=True)
            chunk = os.read(self._replies, 1 << 16)
            if not chunk:
                raise self._died()
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError:
            _stop(self._child, signal.SIGKILL)
            raise ProcessDied("its answer is not JSON", tail(self._log)) from None

    def _died(self) -> ProcessDied:
        try:
            code = self._child.wait(10)
        except subprocess.TimeoutExpired:
            _stop(self._child, signal.SIGKILL)
            code = self._child.returncode
        log = tail(self._log)
        if code == USER_FAULT and log:
            return ProcessDied(log[-1], log)
        return ProcessDied("; ".join((describe_exit(code) or "its process ended with exit code 0", *log[-1:])), log)


def _wait(child: subprocess.Popen[bytes] | forks.Forked, timeout: float) -> int:
    """`child.wait(timeout)` without its polling twenty times a second, which could disturb a child that measures."""
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(child.pid)
        except OSError:  # an old kernel, or a sandbox
            return child.wait(timeout)
        try:
            if not select.select([descriptor], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(child.args, timeout)
        finally:
            os.close(descriptor)
    return child.wait(timeout)


def _stop(child: subprocess.Popen[bytes] | forks.Forked, number: signal.Signals, patience: float = 5) -> None:
    try:
        os.killpg(child.pid, number)
        child.wait(patience)
    except ProcessLookupError:
        child.wait()
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def describe_exit(code: int) -> str:
    """How a process with this return code ended, in words; empty after exit code 0."""
    if code >= 0:
        return "" if code == 0 else f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = ": most often the kernel, out of memory" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


TAIL_BYTES = 20_000
"""How much of a log's end is read."""


def tail(log: Path, lines: int = 15) -> tuple[str, ...]:
    """The last lines of a log that are not blank, with control characters as escapes; of a progress bar, only what it showed
    last."""
    if not log.exists():
        return ()
    with log.open("rb") as file:  # a log may be of any size
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        text = file.read(TAIL_BYTES).decode(errors="replace")
    shown = (line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in text.split("\n"))
    return tuple(printable(line) for line in shown if line.strip())[-lines:]
