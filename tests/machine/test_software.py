"""Versions of installed packages, and the commit of the code that runs, with real git."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.machine import software
from tests.machine.machines import write_files


def test_software_is_the_first_that_is_installed() -> None:
    versions = software.software(("no-such-thing|numpy", "not-there-either"))
    assert versions == {"python": platform.python_version(), "numpy": np.__version__}


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_checkout_has_a_commit_and_results_do_not_make_it_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {"suites/schema.json": "{}", "harness/machine/hardware.py": "", ".gitignore": "*.log\n"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(harness, "__file__", str(tmp_path / "harness" / "__init__.py"))
    assert software.commit() == (None, None)
    git(tmp_path, "init", "-q")
    assert software.commit() == (None, None)  # nothing committed yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    sha = git(tmp_path, "rev-parse", "HEAD")
    assert software.commit() == (sha, False)
    write_files(tmp_path, {"results/squad/run.jsonl": "{}", "some.log": ""})
    assert software.commit() == (sha, False)
    monkeypatch.chdir(tmp_path / "suites")
    assert software.commit() == (sha, False)
    (tmp_path / "suites/mine.toml").write_text("title = 'x'")
    assert software.commit() == (sha, True)


def test_an_installed_package_has_no_commit_inside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package, also one in a virtual environment inside the checkout, may be of any commit."""
    write_files(tmp_path, {"suites/schema.json": "{}", "harness/machine/hardware.py": ""})
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.chdir(tmp_path)
    assert software.commit() == (None, None)
    monkeypatch.setattr(harness, "__file__", str(tmp_path / "venv" / "site-packages" / "harness" / "__init__.py"))
    assert software.commit() == (None, None)
    monkeypatch.setattr(harness, "__file__", str(tmp_path / "harness" / "__init__.py"))
    assert software.commit()[1] is False


def test_a_folder_inside_another_projects_checkout_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {"own.py": "", "bench/suites/schema.json": "{}"})
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "theirs")
    monkeypatch.chdir(tmp_path / "bench")
    monkeypatch.setattr(harness, "__file__", str(tmp_path / "bench" / "harness" / "__init__.py"))
    assert software.commit() == (None, None)
