"""Child processes: how they ended is put in words, and they die with their parent."""

from __future__ import annotations

import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.machine.processes import KEEP_MEMORY, ProcessDied, ServerProcess, run_module, tail


def module(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / "child_module.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{Path(__file__).resolve().parents[2]}")
    return "child_module"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("print('fine')", ""),
        ("raise SystemExit(7)", "exit code 7"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL: most often the kernel, out of memory"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
def test_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    ended = run_module(module(tmp_path, text, monkeypatch), tmp_path / "job", tmp_path / "log", timeout=60)
    assert reason in ended.reason
    assert bool(ended.reason) == bool(reason)


def test_cuda_numbers_gpus_in_a_child_as_the_driver_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    name = module(tmp_path, "import os; print(os.environ['CUDA_DEVICE_ORDER'])", monkeypatch)
    assert run_module(name, tmp_path / "job", tmp_path / "log", timeout=60).log == ("PCI_BUS_ID",)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's allocator")
def test_kept_memory_is_not_faulted_in_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of one size
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for turn in range(9):
    block = libc.malloc(100 << 20)
    libc.memset(block, 1, 100 << 20)
    libc.free(block)
    if turn == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    name = module(tmp_path, text, monkeypatch)
    for setting in KEEP_MEMORY:
        monkeypatch.delenv(setting, raising=False)
    faults = []
    for keep in (False, True):
        log = tmp_path / f"log-{keep}"
        faults.append(int(run_module(name, tmp_path / "job", log, timeout=60, keep_memory=keep).log[-1]))
    pages = 8 * (100 << 20) // resource.getpagesize()
    assert faults[0] > 0.9 * pages
    assert faults[1] < 0.1 * pages


@pytest.mark.slow
def test_a_process_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(tmp_path, "print('last words', flush=True)\nimport time; time.sleep(600)", monkeypatch)
    start = time.monotonic()
    ended = run_module(name, tmp_path / "job", tmp_path / "log", timeout=3)
    assert time.monotonic() - start < 30
    assert "took longer than 3 s" in ended.reason
    assert ended.log == ("last words",)


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "pid"
    name = module(
        tmp_path,
        "from harness.machine.processes import die_with_parent; die_with_parent()\n"
        f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)",
        monkeypatch,
    )
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path; from harness.machine.processes import run_module; "
            f"run_module({name!r}, Path('job'), Path({str(tmp_path / 'log')!r}), timeout=600)",
        ]
    )
    deadline = time.monotonic() + 60
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(mark.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
            if (Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]) == "Z":
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.05)
    raise AssertionError("the child outlived its parent")


def test_the_end_of_a_log_has_no_progress_bars(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\n 1%\r 50%\r100% done\n\n\xff broken\n")
    assert tail(log, 2) == ("100% done", "\ufffd broken")


ANSWERS = """
import json, os, sys, time
print("a library says hello")
replies = os.fdopen(int(os.environ["QUANTBOARD_REPLIES"]), "w")
for line in sys.stdin:
    request = json.loads(line)
    if "sleep" in request:
        time.sleep(request["sleep"])
    if "die" in request:
        print("out of something", flush=True)
        os._exit(9)
    print(json.dumps({"twice": 2 * request["number"]}), file=replies, flush=True)
open(sys.argv[1] + ".left", "w").close()
"""


def test_a_server_process_answers_until_the_block_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(tmp_path, ANSWERS, monkeypatch)
    with ServerProcess(name, tmp_path / "job", tmp_path / "log") as process:
        for number in (1, 20):
            process.send({"number": number})
            assert process.receive(60) == {"twice": 2 * number}
    assert (tmp_path / "job.left").exists()
    assert tail(tmp_path / "log") == ("a library says hello",)


@pytest.mark.parametrize(
    ("request_", "message"), [({"die": 1}, "exit code 9; out of something"), ({"sleep": 600}, "no answer within 2 s")]
)
def test_a_server_process_that_died_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: dict[str, int], message: str
) -> None:
    began = time.monotonic()
    with ServerProcess(module(tmp_path, ANSWERS, monkeypatch), tmp_path / "job", tmp_path / "log") as process:
        process.send({"number": 1})
        process.receive(60)
        process.send(request_)
        with pytest.raises(ProcessDied, match=message):
            process.receive(2)
        with pytest.raises(ProcessDied):
            process.send({"number": 1})
            process.receive(2)
    assert time.monotonic() - began < 60


def test_the_end_of_a_huge_log_is_read_and_obeys_nobody(tmp_path: Path) -> None:
    """20 GB of zeros that take no room, and escape sequences, bidi marks and a bell after them."""
    with (tmp_path / "log").open("wb") as log:
        log.truncate(20 << 30)
        log.seek(0, 2)
        log.write("\nred \x1b[31m\x1b]0;title\x07 \u202eback\n 10%\r 99%\r\n".encode())
    assert tail(tmp_path / "log", 2) == ("red \\x1b[31m\\x1b]0;title\\x07 \\u202eback", " 99%")


def test_more_memory_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import time; time.sleep(0.5); block = bytearray({} << 20); print(len(block))"
    child, log = module(tmp_path, text.format(50), monkeypatch), tmp_path / "log"
    assert run_module(child, tmp_path / "job", log, timeout=60, memory=400 << 20).log[-1] == str(50 << 20)
    (tmp_path / "child_module.py").write_text(text.format(600))
    ended = run_module(child, tmp_path / "job", log, timeout=60, memory=400 << 20)
    assert ended.reason == "its process ended with exit code 1"
    assert ended.log[-1] == "MemoryError"
    assert run_module(child, tmp_path / "job", log, timeout=60).reason == ""
