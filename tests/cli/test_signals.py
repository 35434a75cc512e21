"""SIGTERM and SIGHUP end a command as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import signal, subprocess, sys, tempfile, time
from pathlib import Path
from harness.cli import doctor, main
from harness.machine.processes import run_module
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[2] else signal.SIG_DFL)  # whatever the tests were started under
def verb(options):
    with tempfile.TemporaryDirectory(prefix="quantboard-", dir=sys.argv[1]) as folder:
        run_module("sleeps", Path(folder) / "job", Path(folder) / "log", timeout=60)
    return 0
doctor.doctor = verb
sys.exit(main.main(["doctor"]))
"""
CHILD = """
import tempfile, time
from pathlib import Path
folder = tempfile.mkdtemp()
Path({ready!r}).write_text(folder)
time.sleep(60 if {long} else 1)
"""


@pytest.mark.parametrize(
    ("number", "ignored", "code"), [(signal.SIGTERM, "", 143), (signal.SIGHUP, "", 129), (signal.SIGHUP, "ignored", 0)]
)
def test_nothing_temporary_stays(tmp_path: Path, number: int, ignored: str, code: int) -> None:
    ready = tmp_path / "ready"
    (tmp_path / "sleeps.py").write_text(CHILD.format(ready=str(ready), long=not ignored))
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "temporary"), ignored]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not (ready.is_file() and ready.read_text()):
            assert process.poll() is None
        assert Path(ready.read_text()).is_relative_to(tmp_path / "temporary"), (
            "the child's files are in the run's folder"
        )
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert not list((tmp_path / "temporary").iterdir())
    assert ignored or f"ended by {signal.Signals(number).name}; what was recorded is kept" in said
