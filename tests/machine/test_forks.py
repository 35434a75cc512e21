"""Programs that are forked with their libraries imported: each is the fresh process that `python -m` would give it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.machine.forks import find_server
from harness.machine.processes import ProcessResult, child_environment, run_module

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux alone")
ROOT = Path(__file__).resolve().parents[2]
IMPORTED = ("colorsys",)
"""A module that nothing else here imports."""
FACTS = """
import json, os, sys, tempfile
import colorsys
def main(arguments):
    print(json.dumps({
        "argv": sys.argv, "arguments": arguments, "imported": hasattr(colorsys, "mark"), "folder": os.getcwd(), "first": sys.path[0],
        "temporary": tempfile.gettempdir(), "variable": os.environ.get("QUANTBOARD_OF_THE_TEST"), "threads": os.environ["OMP_NUM_THREADS"],
        "parent": os.environ["QUANTBOARD_PARENT"] == str(os.getppid()), "leads": os.getsid(0) == os.getpid(), "stdin": sys.stdin.read(),
    }))
    colorsys.mark = True
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, from which programs are imported."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, text: str, **options: Any) -> ProcessResult:
    name = f"program_{time.monotonic_ns()}"
    (folder / f"{name}.py").write_text(text)
    settings: dict[str, Any] = {"timeout": 60, "imported": IMPORTED, **options}
    return run_module(name, folder / "job", folder / f"{name}.log", **settings)


def server_pid() -> int:
    server = find_server(IMPORTED, child_environment(None))
    assert server
    pid: int = server._process.pid
    return pid


def test_a_program_is_as_in_a_process_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the caller's folder, variables and threads of this call, and nothing of the program before it."""
    for value in ("one", "two"):
        monkeypatch.setenv("QUANTBOARD_OF_THE_TEST", value)
        monkeypatch.setenv("PYTEST_CURRENT_TEST", value)
        facts = json.loads(run(folder, FACTS, threads=3).log[-1])
        assert facts.pop("argv")[1:] == [str(folder / "job")]
        assert facts == {
            "arguments": [str(folder / "job")],
            "imported": False,
            "folder": str(folder),
            "first": str(folder),
            "temporary": str(folder),
            "variable": value,
            "threads": "3",
            "parent": True,
            "leads": True,
            "stdin": "",
        }


def test_modules_are_imported_once(folder: Path) -> None:
    (folder / "heavy.py").write_text("import os\nopen(__file__ + '.count', 'a').write('x')\nPID = os.getpid()\n")
    text = "import heavy, os\ndef main(_): print(heavy.PID == os.getppid(), os.getpid())"
    logs = [run(folder, text, imported=("heavy",)).log[-1].split() for _ in range(3)]
    assert {said for said, _ in logs} == {"True"} and len({pid for _, pid in logs}) == 3
    assert (folder / "heavy.py.count").read_text() == "x"


def test_standard_error_is_shown_where_the_caller_writes_it(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = "import sys\ndef main(_): print('for the log'); print('to be seen', file=sys.stderr)"
    assert run(folder, text, show=True).log == ("for the log",)
    assert capfd.readouterr().err == "to be seen\n"
    assert set(run(folder, text).log) == {"for the log", "to be seen"}
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "text",
    [
        "return 0",
        "return 3",
        "raise SystemExit(7)",
        "raise ValueError('bad')",
        "import os; os.kill(os.getpid(), 9)",
        "import ctypes; ctypes.string_at(0)",
        "raise KeyboardInterrupt",
        "import atexit; atexit.register(print, 'the end')",
    ],
)
def test_it_ends_as_a_process_of_its_own_ends(folder: Path, text: str) -> None:
    program = (
        f"import sys\ndef main(_):\n    print('last words')\n    {text}\nif __name__ == '__main__': sys.exit(main(()))"
    )
    forked, fresh = run(folder, program), run(folder, program, imported=())
    assert (forked.code, forked.reason, forked.log[-1]) == (fresh.code, fresh.reason, fresh.log[-1])
    assert (
        forked.log[0] == "last words" or "Interrupt" in text
    )  # of an error the program's own lines, which fit into the tail


def test_one_that_hangs_is_stopped_and_the_next_one_runs(folder: Path) -> None:
    before = server_pid()
    ended = run(folder, "import time\ndef main(_): time.sleep(600)", timeout=1)
    assert ended.timed_out and "took longer than 1 s" in ended.reason
    assert run(folder, FACTS, threads=1).reason == ""
    assert server_pid() == before


def test_more_memory_than_the_limit_is_refused(folder: Path) -> None:
    text = "import time\ndef main(_):\n    time.sleep(0.5)\n    print(len(bytearray({} << 20)))"
    assert run(folder, text.format(50), memory=400 << 20).log[-1] == str(50 << 20)
    assert run(folder, text.format(600), memory=400 << 20).log[-1] == "MemoryError"


def test_another_environment_and_a_killed_server_get_a_new_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = server_pid()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # read when its library is imported
    second = server_pid()
    assert first != second
    os.kill(second, signal.SIGKILL)
    time.sleep(0.2)
    assert run(folder, FACTS, threads=1).reason == ""
    assert server_pid() not in (first, second)


def test_what_cannot_be_imported_is_left_to_the_program(folder: Path) -> None:
    text = "print('alone')"
    assert run(folder, text, imported=("no_such_module",)).log == ("alone",)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_its_parent(folder: Path, number: signal.Signals) -> None:
    """After Ctrl-C it may save its state; after a kill it is gone, and so is the server."""
    (folder / "sleeper.py").write_text("""
import os, pathlib, time
from harness.machine.processes import die_with_parent
def main(_):
    die_with_parent()
    pathlib.Path("pids").write_text(f"{os.getpid()} {os.getppid()}")
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        pathlib.Path("saved").touch()
""")
    (folder / "parent.py").write_text(
        "from pathlib import Path\nfrom harness.machine.processes import run_module\n"
        f"run_module('sleeper', Path('job').resolve(), Path('log'), timeout=600, imported={IMPORTED!r})"
    )
    parent = subprocess.Popen([sys.executable, "parent.py"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (folder / "pids").exists() or not (folder / "pids").read_text():
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(number)
    parent.wait(30)
    left = [int(pid) for pid in (folder / "pids").read_text().split()]
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if _runs(pid)]
        time.sleep(0.05)
    assert not left
    assert (folder / "saved").exists() == (number == signal.SIGINT)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
