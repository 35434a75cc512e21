"""Files of strangers: what was found once, again, and some random inputs. Minutes of it: `nox -s chaos -- --minutes 10`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import arrow
from tests.fuzz.hunt import CORPUS, hunt
from tests.fuzz.targets import TARGETS

SHORT = {"suite": 25, "records": 8, "data": 30, "predictions": 20, "config": 20, "scores": 10, "site": 2}
"""Random inputs of each target."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arrow, "try_in_child", lambda path: None)  # it has tests of its own
    return tmp_path


@pytest.mark.parametrize("target", sorted(path.name for path in CORPUS.glob("*")))
def test_what_was_found_once(folder: Path, target: str) -> None:
    TARGETS[target].prepare(folder)
    for path in sorted((CORPUS / target).iterdir()):
        try:
            TARGETS[target].check(folder, path.read_bytes())
        except BaseException as error:
            error.add_note(f"the input is {path}")
            raise


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_random_inputs_end_in_an_answer_or_in_lines(folder: Path, target: str) -> None:
    found = hunt(target, folder, 30, seed=1, most=SHORT[target])
    assert not found.findings
    assert found.cases
