"""Programs that start with their heavy libraries already imported.

PyTorch and the model classes of transformers take five to six seconds of processor time to import, in every process, and neither has a
switch that leaves out what an encoder does not need. So one process imports them, does nothing else, and forks a child for each program
that needs them. Every program still has a fresh process of its own: nothing that one does reaches the next. Processes whose start or
speed is measured are not started this way (`harness.run.turns`: two processes of the same program must differ).

This is the runner's side; `harness.machine.fork_server` is the program that forks. Not for machines with a GPU: CUDA does not survive
a fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
"""Read by these libraries when they are imported."""


START_SECONDS = 300.0
"""How long the imports may take; after that programs are started as usual."""


OF_ONE_PROGRAM = ("TMPDIR", "PWD", "OLDPWD", "PYTEST_CURRENT_TEST")
"""Variables that no library reads when it is imported; all of QUANTBOARD_ are others."""


class Forked:
    """A forked program, with what `harness.machine.processes` uses of a `subprocess.Popen`."""

    def __init__(self, server: Server, pid: int, args: list[str]) -> None:
        self._server, self.pid, self.args = server, pid, args
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for a signal, as of a Popen. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            answer = self._server.receive(timeout)
            if answer is None:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(answer.get("code", -signal.SIGKILL))  # the server was killed, and so was its child
            self._server.busy = False
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode


class Server:
    """The runner's side of the process that forks: it is asked for one program at a time, over a socket that is its standard input."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._socket, other = socket.socketpair()
        self._buffer, self.busy = b"", False
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.machine.fork_server", *modules],
                stdin=other.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=Path(__file__).resolve().parents[2],
                env={**QUIET, **environment},
                start_new_session=True,
            )

    def lives(self) -> bool:
        return self._process.poll() is None

    def receive(self, timeout: float | None) -> dict[str, Any] | None:
        """Its next answer; empty where it has ended, None after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                return None
            try:
                chunk = self._socket.recv(1 << 16)
            except ConnectionError:
                chunk = b""
            if not chunk:
                return {}
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def start(
        self, module: str, job: Path, log: Path, environment: Mapping[str, str], *, show: bool = False
    ) -> Forked | None:
        """Start the `main` of `module` with `job` as its argument. None where another program runs, or none can be started. show: it
        writes standard error where this process does, not to `log`."""
        if self.busy:
            return None
        request = {
            "module": module,
            "job": str(job),
            "log": str(log.resolve()),
            "folder": str(Path.cwd()),
            "show": show,
        }
        text = json.dumps({**request, "environment": dict(environment)}).encode() + b"\n"
        self.busy = True
        try:
            sent = socket.send_fds(self._socket, [text], [2] if show else [])
            self._socket.sendall(text[sent:])
            answer = self.receive(60.0)
        except OSError:
            answer = None
        except KeyboardInterrupt:
            self.stop()
            raise
        if not answer:
            self.stop()
            return None
        return Forked(self, int(answer["pid"]), [module, str(job)])

    def stop(self) -> None:
        """End it, and with it what it has forked. It has ended where it was stopped before."""
        self._process.kill()
        self._process.wait()
        self._socket.close()
        self.busy = False


_server: tuple[int, Mapping[str, Any], Server] | None = None
"""This process's id, what its server was started with, and that server. There is at most one, and it ends with this process."""


def find_server(modules: Sequence[str], environment: Mapping[str, str]) -> Server | None:
    """A server that has imported `modules` with this environment: the last one, or a new one in its place where that had others, or
    has ended. None where there can be none; where something cannot be imported, an ordinary process says so better."""
    global _server
    if sys.platform != "linux":
        return None
    common = {
        name: value
        for name, value in environment.items()
        if name not in OF_ONE_PROGRAM and not name.startswith("QUANTBOARD_")
    }
    wanted = {"modules": list(modules), "environment": common}
    if _server and _server[0] == os.getpid():
        _, started_with, server = _server
        if server.busy or (started_with == wanted and server.lives()):
            return server
        server.stop()
    _server = None
    try:
        server = Server(modules, environment)
    except OSError:
        return None
    try:
        ready = server.receive(START_SECONDS)
    except KeyboardInterrupt:
        server.stop()
        raise
    if not ready:
        server.stop()
        return None
    _server = os.getpid(), wanted, server
    return server
