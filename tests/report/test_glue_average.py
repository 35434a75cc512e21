"""GLUE's macro average, by hand; absent while a task is, and saying what it averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.records import store
from harness.records.figure import Figure
from harness.records.schema import Accuracy, Data, Finding, Record, SplitData
from harness.report.glue_average import combined, macro_averages, macro_line, score
from harness.report.site import render
from tests.records.records import make_record

METRICS = {
    "cola": {"matthews_correlation": 50.0},
    "sst2": {"accuracy": 90.0},
    "mrpc": {"accuracy": 84.0, "f1": 88.0},
    "stsb": {"pearson": 86.0, "spearman": 85.0},
    "qqp": {"accuracy": 90.0, "f1": 86.0},
    "mnli": {"accuracy": 80.0},
    "qnli": {"accuracy": 88.0},
    "rte": {"accuracy": 60.0},
}
MISMATCHED = 82.0
MEAN = (50 + 90 + 86 + 85.5 + 88 + 81 + 88 + 60) / 8


def part(split: str, metrics: dict[str, float]) -> Accuracy:
    figures = {name: Figure(value=value, low=value - 2, high=value + 1) for name, value in metrics.items()}
    return Accuracy(
        split=split,
        metrics=figures,
        primary=next(iter(figures)),
        examples=10,
        examples_of_split=10,
        whole=True,
        padding="longest",
        batch_formation="sorted by length",
        forward_seconds=1.0,
        tokens=100,
    )


def entry(task: str, *, mismatched: bool = True, label: str = "official", **changes: Any) -> Record:
    parts = [part("validation_matched" if task == "mnli" else "validation", METRICS[task])]
    if task == "mnli" and mismatched:
        parts.append(part("validation_mismatched", {"accuracy": MISMATCHED}))
    split = SplitData(rows=10, official_rows=10, sha256="0", label=label)
    data = Data(kind="raw", label=label, splits={"validation": split})
    name = f"{task}-{changes.get('model', '')}-{changes.get('seed', 1)}"
    return make_record(key=name, task=f"glue/{task}", accuracy=parts, data=data, suite="glue", **changes)


def test_a_tasks_score_is_the_mean_of_its_metrics_and_parts() -> None:
    assert score(entry("mrpc")) == Figure(value=86.0, low=84.0, high=87.0)
    assert score(entry("mnli")) == Figure(value=81.0, low=79.0, high=82.0)
    assert score(entry("cola")).value == 50.0


def test_the_mean_of_eight_with_an_interval_from_theirs() -> None:
    (found,) = macro_averages([entry(task) for task in METRICS])
    assert found.figure is not None
    assert found.figure.value == pytest.approx(MEAN)
    assert found.figure.low == pytest.approx(MEAN - (8 * 2.0**2) ** 0.5 / 8)
    assert found.figure.high == pytest.approx(MEAN + (8 * 1.0**2) ** 0.5 / 8)
    assert (found.absent, found.notes) == ((), ())


def test_a_task_without_an_interval_leaves_the_mean_without_one() -> None:
    """As CoLA of a model that gives one answer to all: it is not known exactly, its interval is not known."""
    entries = [entry(task) for task in METRICS]
    bare = Figure(value=0.0)
    cola = entries[0].model_copy(
        update={"accuracy": [entries[0].accuracy[0].model_copy(update={"metrics": {"matthews_correlation": bare}})]}
    )
    (one,) = macro_averages([cola, *entries[1:]])
    assert one.figure is not None and (one.figure.low, one.figure.high) == (None, None)
    assert one.figure.value == pytest.approx(MEAN - 50 / 8)
    assert "(no interval)" in macro_line(one)


def test_the_published_mean_of_aimet_is_such_a_mean() -> None:
    """Its own variants (F1 of MRPC, accuracy of QQP, one figure for STS-B): 83.11 in its table."""
    published = (58.76, 93.12, 89.93, 88.84, 90.94, 85.19, 91.63, 66.43)
    assert combined([Figure(value=value) for value in published]).value == pytest.approx(83.11, abs=0.006)


@pytest.mark.parametrize("without", METRICS)
def test_it_is_absent_while_a_task_is(without: str) -> None:
    (found,) = macro_averages([entry(task) for task in METRICS if task != without])
    assert found.figure is None
    assert found.absent == (f"glue/{without}",)
    assert macro_line(found).endswith(f"absent, no glue/{without}")


WRONG = Finding(rule="wrong_provider", what="what", measured="1", bound="0", remedy="do")


def test_what_makes_it_another_average_is_said() -> None:
    changed = [
        entry("mnli", mismatched=False, label="substitute"),
        entry("qqp", label="substitute"),
        entry("cola", label="subset (10 of 20)"),
        entry("rte", status="invalid", reason="elsewhere", findings=[WRONG]),
    ]
    same = [entry(task) for task in METRICS if task not in ("mnli", "qqp", "cola", "rte")]
    (found,) = macro_averages([*changed, *same])
    assert found.notes == (
        "MNLI: matched alone",
        "evaluation data substitute: mnli, qqp",
        "evaluation data subset: cola",
        "invalid cells: rte",
    )
    assert found.figure is not None
    assert found.figure.value == pytest.approx(MEAN - 1 / 8)  # 80 instead of the mean of 80 and 82


def test_seeds_models_and_parts_of_an_evaluation_set_are_not_mixed() -> None:
    whole = [entry(task) for task in METRICS]
    others = [
        entry("cola", seed=2),
        entry("rte", seed=2),
        entry("sst2", settings={"limit": 5}),
        entry("qnli", model="b"),
    ]
    found = macro_averages([*whole, *others])
    assert [(one.seed, one.model, one.figure is None) for one in found] == [(1, "tiny", False), (2, "tiny", True)]
    assert macro_averages([make_record(key="a")]) == []


def test_the_suites_page_shows_it(tmp_path: Path) -> None:
    for task in METRICS:
        store.append(
            tmp_path / "results" / "run.jsonl", entry(task, label="substitute" if task == "qqp" else "official")
        )
    site = render(tmp_path / "results", tmp_path / "site").parent
    page = (site / "suite-glue.html").read_text()
    assert "GLUE, macro average" in page
    assert f"{MEAN:.2f}" in page
    assert "evaluation data substitute: qqp" in page
    store.append(tmp_path / "other" / "run.jsonl", make_record(key="a", suite="squad"))
    assert (
        "macro average" not in (render(tmp_path / "other", tmp_path / "second").parent / "suite-squad.html").read_text()
    )


def test_the_newest_official_evaluation_is_taken_whatever_else_there_is() -> None:
    eight = [entry(task) for task in METRICS if task != "mrpc"]
    old, new, substitute = (
        entry("mrpc", label=label, finished=f"2026-01-0{day}T00:00:00+00:00").model_copy(
            update={"accuracy": [part("validation", {"accuracy": value, "f1": value})]}
        )
        for label, day, value in (("official", 1, 10.0), ("official", 2, 86.0), ("substitute", 3, 50.0))
    )
    (found,) = macro_averages([*eight, new, substitute, old])
    assert found.figure is not None and found.figure.value == pytest.approx(MEAN)
    assert found.notes == ()


def test_the_samples_files_are_the_sample_and_stand_apart() -> None:
    real = [entry(task) for task in METRICS]
    copied = [entry(task, label="sample", model="other") for task in METRICS]
    assert [(one.model, one.sample) for one in macro_averages([*real, *copied])] == [("tiny", False), ("other", True)]


def test_devices_have_averages_of_their_own() -> None:
    entries = [entry(task, device=device) for device in ("cpu", "cuda") for task in METRICS]
    assert [one.label for one in macro_averages(entries)] == ["torch_fp32 (cpu)", "torch_fp32 (cuda)"]
    assert [one.label for one in macro_averages(entries[:8])] == ["torch_fp32"]
