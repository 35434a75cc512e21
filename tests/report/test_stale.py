"""No page of a site is stale: whatever a page shows, a change of it makes the page again, and the bytes are those of a whole build."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.machine import paths
from harness.records import scores, store
from harness.records.scores import write_scores
from harness.report import site
from harness.report.kept import folder_of
from harness.report.site import render
from harness.report.units import Unit
from tasks import Scores, Statistic
from tests.report.stored_scores import answers
from tests.report.test_history import night, timed_run
from tests.report.test_incremental import anew, append, content
from tests.report.test_leaderboards import VNNI, timed


def two_methods(folder: Path) -> None:
    timed(folder, "a", "torch_fp32", 1.0, 100, baseline=True)
    timed(folder, "b", "onnxruntime_int8", 2.5, 130)
    timed(folder, "c", "openvino_int8", 2.0, 90)


def again(folder: Path, run: str, **changes: object) -> None:
    """The same cells in another run, with the same scores."""
    for _, record in list(store.read(folder)):
        parts = {"run_id": run, "record_id": f"{run}-{record.key}", "finished": "2027-01-01T00:00:00+00:00"}
        store.append(folder / f"{run}.jsonl", record.model_copy(update=parts | changes))


def swap_answers(folder: Path) -> None:
    """As many right as before, on other examples: no metric changes, every paired test does."""
    correct = answers(1000, 130)[::-1].astype(float)
    columns = {"id": np.arange(1000).astype(str), "correct": correct}
    write_scores(
        folder / "scores" / "run-b.npz",
        {"validation": Scores({}, columns, {"accuracy": Statistic("mean", ("correct",))}, None)},
    )


INPUTS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "record": (lambda results, _: timed(results, "d", "onnxruntime_fp32", 1.2, 100), "task-"),
    "newer record": (lambda results, _: again(results, "later", dirty=True), "cell-"),
    "scores": (lambda results, _: swap_answers(results), "compare-"),
    "suite file": (lambda _, home: edit(home / "suites" / "sample.toml", "title = ", "title = 'changed' #"), "index"),
    "reference": (lambda _, home: edit(home / "suites" / "squad_int8.toml", 'system = "', 'system = "Changed '), "references"),
    "template": (lambda _, home: edit(home / "site" / "templates" / "base.html", "<title>", "<title>Changed "), "cell-"),
    "style": (lambda _, home: edit(home / "site" / "static" / "style.css", "", "/* changed */"), "task-"),
    "method": (lambda _, home: edit(home / "docs" / "method.md", "", "Changed.\n\n"), "method"),
}  # fmt: skip


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Suites, templates and method of our own."""
    folder = tmp_path / "home"
    shutil.copytree(paths.suites(), folder / "suites")
    shutil.copytree(paths.site_sources(), folder / "site")
    (folder / "docs").mkdir()
    shutil.copyfile(paths.method(), folder / "docs" / "method.md")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("what", INPUTS)
def test_each_input_makes_what_shows_it_again(what: str, tmp_path: Path, home: Path) -> None:
    results, (change, page) = tmp_path / "results", INPUTS[what]
    two_methods(results)
    out = tmp_path / "site"
    before = content(render(results, out).parent)
    change(results, home)
    after = content(render(results, out, if_changed=True).parent)
    assert after == anew(results)
    assert any(name.startswith(page) and before.get(name) != made for name, made in after.items())


def test_another_version_of_the_code_makes_everything_again(
    tmp_path: Path, made: list[Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_methods(tmp_path / "results")
    render(tmp_path / "results", tmp_path / "site")
    monkeypatch.setattr(site, "code_digest", lambda: "another")
    read = reads(monkeypatch)
    render(tmp_path / "results", tmp_path / "site", if_changed=True)
    assert len(made) == 2 and read


def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The scores files that are read from now on."""
    read, load = list[Path](), scores._load

    def loaded(path: Path, *rest: object, **named: object) -> object:
        read.append(path)
        return load(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(scores, "_load", loaded)
    return read


def test_scores_that_did_not_change_are_compared_once(
    tmp_path: Path, made: list[Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, out = tmp_path / "results", tmp_path / "site"
    two_methods(results)
    render(results, out)
    again(results, "later")
    read = reads(monkeypatch)
    made.clear()
    built = content(render(results, out).parent)
    assert len(made) == 1 and read == []
    kept = (folder_of(out) / "comparisons").read_bytes()
    assert content(render(results, out).parent) == built == anew(results)
    assert (folder_of(out) / "comparisons").read_bytes() == kept  # also of pages that were taken from the last build
    (results / "later.jsonl").unlink()
    (results / "run.jsonl").unlink()
    timed(results, "z", "torch_fp32", 1.0, 100, baseline=True)
    render(results, out)
    assert len((folder_of(out) / "comparisons").read_bytes()) < len(kept)  # nothing asks for the others


def test_scores_in_a_linked_folder_are_inputs_as_well(tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "site"
    two_methods(results)
    (results / "scores").rename(tmp_path / "elsewhere")
    (results / "scores").symlink_to(tmp_path / "elsewhere")
    before = content(render(results, out).parent)
    swap_answers(results)
    assert content(render(results, out, if_changed=True).parent) == anew(results) != before


def test_damaged_comparisons_are_made_again(tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "site"
    two_methods(results)
    render(results, out)
    again(results, "later")
    kept = folder_of(out) / "comparisons"
    kept.write_bytes(kept.read_bytes().replace(b'"value":', b'"value":1'))
    assert content(render(results, out).parent) == anew(results)


def test_only_pages_with_rows_of_several_suites_show_how_runs_differ(tmp_path: Path, made: list[Unit]) -> None:
    """Two suites ran each of two tasks. The second adds a method to the rows of one; to those of the other it adds none."""
    results, rng = tmp_path / "results", np.random.default_rng(0)
    for task, backend in (("glue/rte", "openvino_int8"), ("glue/cola", "onnxruntime_int8")):
        for suite, quantized in (("one", "onnxruntime_int8"), ("other", backend)):
            for name, times, wrong in (("torch_fp32", 1.0, 100), (quantized, 2.5, 130)):
                changes = {"baseline": times == 1.0, "suite": suite, "task": task}
                timed(results / suite, f"{task[5:]}{suite}{times:.0f}", name, times, wrong, **changes)
    for number in range(3):
        append(results / f"night-{number}.jsonl", night(timed_run(), number, rng, machine=VNNI))
    out = tmp_path / "site"
    first = content(render(results, out).parent)
    append(results / "night-3.jsonl", night(timed_run(), 3, rng, machine=VNNI))
    made.clear()
    built = content(render(results, out).parent)
    assert {record.task for unit in made for record in unit.briefs} == {"squad_v1", "glue/rte"}
    assert built == anew(results)
    told = {name for name, page in built.items() if b"differ between runs by" in page}
    assert {name.split("-")[2] for name in told} == {"rte"} and all(built[name] != first[name] for name in told)
