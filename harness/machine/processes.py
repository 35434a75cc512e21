"""Processes that the runner starts: they die with it, their output is kept, and how they ended is told in words."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

USER_FAULT = 3
"""Exit code when a job ends in a fault that is not ours: its last line on stdout tells what."""


INTERRUPTED = 130


PR_SET_PDEATHSIG = 1


REPLIES = "QUANTBOARD_REPLIES"
"""Names, in the environment of a `Served` process, the file descriptor of its answers."""


KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""glibc's settings (mallopt(3)) by which freed memory stays with the process. By default each large tensor is mapped and
faulted in anew: an eighth of a training's time on a CPU, and half of a simulation's. Other C libraries do not read them."""


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
    module: str,
    job: Path,
    log: Path,
    *,
    timeout: float,
    show: bool = False,
    threads: int | None = None,
    keep_memory: bool = False,
) -> Ended:
    """Run `python -m module job` to its end in a session of its own; everything it prints goes to `log`, or with `show`
    its standard error to this terminal (progress bars) and only its standard output to `log`. keep_memory: with
    KEEP_MEMORY, for work whose speed and memory are no figures of a backend; what the caller has set itself stays.

    On KeyboardInterrupt the child gets SIGINT and ten seconds to save what it can; a second Ctrl-C kills it at once.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", module, str(job)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if show else output,
            env={**(KEEP_MEMORY if keep_memory else {}), **_environment(threads)},
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


def _environment(threads: int | None) -> dict[str, str]:
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
    return environment


class Gone(Exception):
    """A `Served` process that ended, or does not answer; says how."""


class Served:
    """`with Served(module, job, log) as one:` a process that answers questions, JSON lines, until it is left.

    It reads them from its standard input and writes answers to the descriptor that REPLIES names, so that nothing that a
    library prints gets between; what it prints goes to `log`.
    """

    def __init__(self, module: str, job: Path, log: Path, *, threads: int | None = None) -> None:
        self._log = log
        with log.open("ab") as output:
            mine, its = os.pipe()
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", module, str(job)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    pass_fds=[its],
                    env=_environment(threads) | {REPLIES: str(its)},
                    start_new_session=True,
                )
            except OSError:
                os.close(mine)
                raise
            finally:
                os.close(its)
        self._replies, self._rest = mine, b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._replies)
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):  # it may be gone
            self._child.stdin.close()
        if error is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(10)
        self.stop()

    def stop(self) -> None:
        """At once."""
        if self._child.poll() is None:
            _stop(self._child, signal.SIGKILL)

    def send(self, question: Mapping[str, Any]) -> bool:
        """Raises Gone."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(question).encode() + b"\n")
            self._child.stdin.flush()
        except OSError:
            raise self._gone() from None
        return True

    def receive(self, timeout: float) -> Any:
        """The answer to what was sent. Raises Gone."""
        until = time.monotonic() + timeout
        while b"\n" not in self._rest:
            if not select.select([self._replies], [], [], max(0.0, until - time.monotonic()))[0]:
                _stop(self._child, signal.SIGKILL)
                raise Gone(f"no answer within {timeout:.0f} s")
            more = os.read(self._replies, 1 << 16)
            if not more:
                raise self._gone()
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def _gone(self) -> Gone:
        try:
            code = self._child.wait(10)
        except subprocess.TimeoutExpired:
            _stop(self._child, signal.SIGKILL)
            code = self._child.returncode
        return Gone("; ".join((how_it_ended(code) or "its process ended", *tail(self._log, 1))))


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
