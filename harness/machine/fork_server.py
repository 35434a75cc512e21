"""`python -m harness.machine.fork_server MODULE ...`: import these modules, then fork a child for each program that is asked for.

Standard input is a socket to the runner (`harness.machine.forks`). A request is a line of JSON; so are the answers: `ready`, then for each
program its `pid` and, when it has ended, its exit `code`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from harness.machine.processes import die_with_parent


def main(modules: Sequence[str]) -> int:
    """Import, then fork a child for each request on standard input. In a child it returns what the child's program returns."""
    die_with_parent()
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that a child's collections do not copy the pages that it shares
    runner = socket.socket(fileno=0)
    _say(runner, {"ready": True})
    while request := _next_request(runner):
        pid = os.fork()
        if pid == 0:
            os.setsid()
            _say(runner, {"pid": os.getpid()})
            runner.detach()
            return _run(request)
        if request["show"]:
            os.close(request["show"])
        _say(runner, {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})
    return 0


def _say(runner: socket.socket, answer: Mapping[str, Any]) -> None:
    runner.sendall(json.dumps(answer).encode() + b"\n")


def _next_request(runner: socket.socket) -> dict[str, Any]:
    """One request, a line; `show` is the descriptor to which its program's standard error goes, 0 for its log. Empty where the
    runner has ended."""
    text, descriptors = b"", list[int]()
    while not text.endswith(b"\n"):
        chunk, given, _, _ = socket.recv_fds(runner, 1 << 16, 1)
        if not chunk:
            return {}
        text += chunk
        descriptors += given
    request: dict[str, Any] = json.loads(text)
    return request | {"show": descriptors[0] if descriptors else 0}


def _run(request: Mapping[str, Any]) -> int:
    """Become the process that `python -m module job` would be, and run its `main`."""
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (request["show"] or log, 2)):
        os.dup2(source, target)
    for source in (nothing, log, *([request["show"]] if request["show"] else [])):
        os.close(source)
    os.environ.clear()
    os.environ.update(request["environment"], QUANTBOARD_PARENT=str(os.getppid()))
    os.chdir(request["folder"])
    tempfile.tempdir = None  # that of the request's TMPDIR
    if not sys.flags.safe_path:
        sys.path[0] = request["folder"]
    importlib.invalidate_caches()
    module = importlib.import_module(request["module"])
    sys.argv = [str(module.__file__), request["job"]]
    try:
        code: int = module.main([request["job"]])
    except Exception as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # the program's own lines
        traceback.print_exception(error)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
