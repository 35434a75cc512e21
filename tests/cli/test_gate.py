"""The verb `gate` on made-up nights, in a folder and in git."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from harness.cli.main import main
from harness.records import store
from tests.report.test_gate import a_night


def write(folder: Path, nights: range, *, slower: float = 0.0) -> None:
    rng = np.random.default_rng(nights.start)
    for number in nights:
        for record in a_night(number, rng, 0.005, slower):
            store.append(folder / f"night-{number:03}.jsonl", record)


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_a_slow_night_fails_against_a_folder_and_a_tag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, earlier = tmp_path / "results", tmp_path / "earlier"
    for folder in (results, earlier):
        write(folder, range(1, 11))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "results")
    git(tmp_path, "commit", "-qm", "ten nights")
    git(tmp_path, "tag", "last-good")
    for against in (str(earlier), "last-good"):
        words = ["gate", "--against", against, "--results", str(results)]
        assert main(words) == 2
        assert "no record is newer" in capsys.readouterr().err
    write(results, range(11, 12))
    for against in (str(earlier), "last-good"):
        words = ["gate", "--against", against, "--results", str(results)]
        assert main(words) == 0
        assert capsys.readouterr().out.startswith(f"Not worse than {against}: 10 checks on 5 rows\n")
    (results / "night-011.jsonl").unlink()
    write(results, range(11, 12), slower=0.1)
    for against in (str(earlier), "last-good"):
        words = ["gate", "--against", against, "--results", str(results)]
        assert main(words) == 1
        printed = capsys.readouterr().out
        assert printed.startswith(f"WORSE than {against}: ")
        assert re.search(r"squad: tiny / squad_v1 / int8 / seed 1\n    speed-up, tonight: -(9|10)\.\d%", printed)
        assert main([*words, "--max-slowdown", "20%"]) == 0
        capsys.readouterr()
        assert main([*words, "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert {check["row"].split(" / ")[2] for check in found["checks"] if check["worse"]} == {"int8"}


def test_markdown_shows_names_of_records_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, earlier = tmp_path / "results", tmp_path / "earlier"
    write(earlier, range(1, 11))
    rng = np.random.default_rng(11)
    for record in a_night(11, rng, 0.005):
        name = "[x](http://x) <b> | `c`"
        broken = record.model_copy(update={"status": "failed", "reason": name, "accuracy": [], "turns": []})
        store.append(results / "night-011.jsonl", broken)
    assert main(["gate", "--against", str(earlier), "--results", str(results), "--markdown"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("### WORSE than ")
    assert r"was ok, is failed: \[x\](http://x) &lt;b&gt; \| \`c\` |" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--against", "no-such-tag"],
            "--against: no-such-tag: no such folder, and git has no records under that name",
        ),
        (["--against", "a", "--max-slowdown", "200%"], "'200%' is not a percentage below 100"),
        (["--against", "a", "--max-loss", "x"], "'x' is not a number"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, range(1, 2))
    try:
        code = main(["gate", *words, "--results", str(tmp_path)])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert message in capsys.readouterr().err
