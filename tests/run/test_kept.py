"""Scores that stay in the cache of a measured cell, for nights that take its speed anew."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.plan.spec import Cell
from harness.run import steps
from harness.run.context import Run, work_folder
from harness.run.kept import FILES, SCORED, drop_left, keep_scores, restore_scores
from harness.run.work import ARRAYS, array_hashes, write_kept


@pytest.fixture(autouse=True)
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint has no folder here; its hash is what the test says."""
    monkeypatch.setattr(steps, "content_digest", lambda folder: "weights")


def scored(cell: Cell, run: Run) -> Path:
    folder = work_folder(cell, run)
    folder.mkdir(parents=True)
    for name in ARRAYS:
        (folder / name).write_text(name)
    write_kept(folder / "accuracy.json", {"arrays": array_hashes(folder)})
    steps.write_state(cell, run)
    return folder


def test_every_night_names_the_commit_that_scored(cell: Cell, run: Run) -> None:
    first = replace(run, commit="a" * 40, dirty=False)
    work = scored(cell, first)
    keep_scores(cell, first)
    for night in ("b", "c"):
        later = replace(run, commit=night * 40, dirty=False)
        assert restore_scores(cell, later) == "scored earlier, at commit aaaaaaaaaaaa; --remeasure took speed anew"
        assert [(work / name).read_text() for name in ARRAYS] == list(ARRAYS)
        keep_scores(cell, later)


def test_a_checkpoint_that_is_not_there_yet_or_no_longer_is_no_fault(
    cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(folder: Path) -> str:
        raise FileNotFoundError(folder)

    clean = replace(run, dirty=False)
    scored(cell, clean)
    keep_scores(cell, clean)
    monkeypatch.setattr(steps, "content_digest", missing)
    assert restore_scores(cell, clean) == ""  # kept, and the checkpoint was deleted
    assert restore_scores(replace(cell, seed=77), clean) == ""  # never measured


def test_other_weights_and_uncommitted_changes_are_scored_again(
    cell: Cell, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = replace(run, dirty=False)
    assert restore_scores(cell, clean) == ""
    scored(cell, clean)
    keep_scores(cell, clean)
    assert restore_scores(cell, replace(run, dirty=True)) == ""
    monkeypatch.setattr(steps, "content_digest", lambda folder: "others")
    assert restore_scores(cell, clean) == ""


def test_what_is_left_of_a_finished_cell_replaces_no_scores(cell: Cell, run: Run) -> None:
    clean = replace(run, dirty=False)
    work = scored(cell, clean)
    drop_left(cell, clean)
    assert not work.exists() and restore_scores(cell, clean)
    shutil.rmtree(work)
    (scored(cell, clean) / "scores.npz").write_text("cut")
    drop_left(cell, clean)
    assert not work.exists() and restore_scores(cell, clean)
    assert (work / "scores.npz").read_text() == "scores.npz"


@pytest.mark.parametrize("name", [*FILES, SCORED])
def test_damaged_scores_are_made_again(cell: Cell, run: Run, name: str) -> None:
    """One bit of any of the files flips while they are kept."""
    clean = replace(run, dirty=False)
    scored(cell, clean)
    keep_scores(cell, clean)
    file = clean.cache / "scored" / cell.key / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert restore_scores(cell, clean) == ""
