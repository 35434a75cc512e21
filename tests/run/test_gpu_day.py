"""`nox -s gpu_day` without a GPU: its parts are commands that exist, and none takes another's time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.gpu_day import PARTS, Part, run_parts

ROOT = Path(__file__).resolve().parents[2]


def shell(name: str, share: float, program: str) -> Part:
    return Part(name, share, ("sh", "-c", program))


def test_a_part_that_takes_too_long_is_stopped_and_keeps_what_it_has(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    slow = f"trap 'echo kept > {kept}; kill $!; exit 143' TERM; sleep 60 & wait"
    parts = [shell("slow", 0.4, slow), shell("wrong", 0.3, "exit 3"), shell("good", 0.3, "exit 0")]
    outcomes = list(run_parts(parts, 10))
    assert [outcome.ended for outcome in outcomes] == ["stopped: its time was over", "failed, exit code 3", "done"]
    assert [outcome.failed for outcome in outcomes] == [False, True, False]
    assert outcomes[0].seconds >= 4
    assert kept.read_text() == "kept\n"


def test_time_that_a_part_leaves_goes_to_the_next() -> None:
    outcomes = list(run_parts([shell("short", 0.9, "exit 0"), shell("long", 0.1, "sleep 1.5")], 10))
    assert [outcome.ended for outcome in outcomes] == ["done", "done"]


def test_data_goes_to_the_parts_that_take_it(capfd: pytest.CaptureFixture[str]) -> None:
    show = (sys.executable, "-c", "import sys; print(sys.argv[1:])")
    list(run_parts([Part("a", 0.5, show), Part("b", 0.5, show, takes_data=False)], 60, "DIR"))
    assert capfd.readouterr().out.splitlines() == ["['--data', 'DIR']", "[]"]


def test_the_parts_are_commands_that_exist() -> None:
    assert sum(part.share for part in PARTS) == pytest.approx(1)
    from harness.cli.main import parser

    for part in PARTS:
        if part.command[1:3] == ("-m", "harness"):
            options = parser().parse_args([*part.command[3:], "--data", "DIR"])
            assert (ROOT / "suites" / f"{options.suite}.toml").is_file()
