"""A build after another makes only the pages whose inputs changed, and gives the same bytes as a build of everything."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from harness.errors import RecordError
from harness.records import store
from harness.records.schema import Record
from harness.report.boards import page_name
from harness.report.cell_page import record_file
from harness.report.kept import folder_of
from harness.report.site import render
from harness.report.units import Unit
from tests.records.records import make_record
from tests.report.stored_scores import add, answers
from tests.report.test_history import night, timed_run
from tests.report.test_leaderboards import AVX2, SKIPPED, timed
from tests.report.test_macro_average import METRICS, glue_record


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three nights of a committed run, two suites with a leaderboard of both, a machine more, and a benchmark's tasks."""
    folder, rng, base = tmp_path / "results", np.random.default_rng(0), timed_run()
    for number in range(3):
        for record in night(base, number, rng):
            store.append(folder / f"night-{number}.jsonl", record)
    for key, backend, times, wrong in (("a", "torch_fp32", 1.0, 100), ("b", "onnxruntime_int8", 2.5, 130)):
        timed(folder, key, backend, times, wrong, baseline=key == "a")
        timed(folder, f"{key}2", backend, times, wrong, baseline=key == "a", machine=AVX2)
        timed(folder / "more", f"{key}3", backend, times, wrong, baseline=key == "a", suite="other")
    timed(folder, "s", "openvino_int8", 1.0, 0, **SKIPPED)
    for task in METRICS:
        store.append(folder / "glue.jsonl", glue_record(task))
    return folder


def append(path: Path, records: Iterable[Record]) -> None:
    for record in records:
        store.append(path, record)


def content(site: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in site.iterdir()}


def anew(results: Path) -> dict[str, bytes]:
    """A build of everything, by a program that knows of no other."""
    out = results.parent / "whole"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(folder_of(out), ignore_errors=True)
    return content(render(results, out).parent)


def test_a_build_after_another_gives_the_bytes_of_a_whole_one(results: Path, made: list[Unit]) -> None:
    out = results.parent / "site"
    assert content(render(results, out).parent) == anew(results)
    made.clear()
    assert content(render(results, out).parent) == content(results.parent / "whole") and made == []
    base, rng = timed_run(), np.random.default_rng(7)
    steps: list[tuple[Callable[[], object], set[str]]] = [
        (lambda: append(results / "night-3.jsonl", night(base, 3, rng)), {"squad_v1"}),
        (lambda: timed(results, "c", "openvino_int8", 3.0, 150), {"glue/rte"}),
        (
            lambda: store.append(results / "glue.jsonl", glue_record("cola", model="other")),
            {f"glue/{task}" for task in METRICS},
        ),  # legends of the suite
        (lambda: (results / "night-1.jsonl").unlink(), {"squad_v1"}),
        (lambda: add(results / "own", "z", answers(50, 3), suite="third", task="glue/sst2"), {"glue/sst2"}),
        (lambda: (results / "scores" / "run-b.npz").unlink(), {"glue/rte"}),
    ]
    for change, tasks in steps:
        change()
        made.clear()
        built = content(render(results, out).parent)
        assert {record.task for unit in made for record in unit.briefs} == tasks
        assert built == anew(results)


def test_a_moved_difference_between_runs_remakes_what_shows_it(tmp_path: Path, made: list[Unit]) -> None:
    """A leaderboard of two suites shows how runs differ on its machine, which another task's night moves. What does not show it is the
    same file as in the last build."""
    results, out, rng, base = tmp_path / "results", tmp_path / "site", np.random.default_rng(0), timed_run()
    for number in range(3):
        append(results / f"night-{number}.jsonl", night(base, number, rng))
    here = {"machine": base[0].machine}
    baseline = timed(results, "a", "torch_fp32", 1.0, 100, baseline=True, **here)
    timed(results, "b", "onnxruntime_fp32", 1.3, 100, **here)
    timed(results, "d", "torch_fp32", 1.0, 200, baseline=True, suite="other", **here)
    timed(results, "f", "onnxruntime_int8_dynamic", 1.99, 200, suite="other", **here)
    render(results, out)
    files = {path.name: path.stat().st_ino for path in out.iterdir()}
    append(results / "night-3.jsonl", night(base, 3, rng))
    made.clear()
    built = content(render(results, out).parent)
    assert built == anew(results)
    made.clear()
    assert content(render(results, out).parent) == built and made == []
    same = {path.name for path in out.iterdir() if files.get(path.name) == path.stat().st_ino}
    other = {name for name in files if "rte" in name}
    assert {page_name(baseline), record_file(baseline)} <= same and len(other) > 4 and not other & same


def test_what_was_changed_in_the_old_site_or_the_cache_is_made_again(results: Path, made: list[Unit]) -> None:
    out = results.parent / "site"
    whole = content(render(results, out).parent)
    task = next(out.glob("task-*.html"))
    next(out.glob("suite-*.html")).unlink()
    task.write_bytes(task.read_bytes()[:-1])
    made.clear()
    assert content(render(results, out).parent) == whole and len(made) == 1
    for name in ("briefs", "sections", "known.json"):
        file = folder_of(out) / name
        file.write_bytes(file.read_bytes()[:-40] + b"0" * 40)
        made.clear()
        assert content(render(results, out).parent) == whole
    assert len(made) > 1
    (folder_of(out) / "known.json").unlink()
    assert content(render(results, out).parent) == whole


def test_every_build_tells_of_damage(results: Path) -> None:
    out = results.parent / "site"
    render(results, out)
    with (results / "glue.jsonl").open("a") as file:
        file.write("[1]\n")
    (results / "scores" / "run-b.npz").write_bytes(b"damaged")
    with pytest.raises(RecordError, match=r"glue\.jsonl: line \d+"):
        render(results, out)
    for _ in range(2):
        told: list[str] = []
        render(results, out, tell=told.append)
        assert ["glue.jsonl" in one for one in told].count(True) == 1
        assert any("run-b.npz" in one for one in told)


def test_a_run_that_lies_in_two_files_is_one_night(tmp_path: Path) -> None:
    base, rng = timed_run(), np.random.default_rng(1)
    together, apart = tmp_path / "a" / "results", tmp_path / "b" / "results"
    for number in range(3):
        for at, record in enumerate(night(base, number, rng)):
            store.append(together / f"{number}.jsonl", record)
            store.append(apart / f"{number}-{at % 2}.jsonl", record)
    sites = [content(render(folder, folder.parent / "site").parent) for folder in (together, apart)]
    for site in sites:
        del site["index.html"]  # says of which files it was made
    assert sites[0] == sites[1]


def test_records_that_name_one_another_in_one_file_stay_apart(tmp_path: Path) -> None:
    """Two models whose names give one name of a file stand in one unit."""
    for key, model in (("a", "m-1"), ("b", "m 1")):
        store.append(tmp_path / "results" / "run.jsonl", make_record(key=key, model=model, baseline=True))
    site = render(tmp_path / "results", tmp_path / "site").parent
    assert len(list(site.glob("task-*.html"))) == 2
