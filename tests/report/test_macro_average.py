"""A benchmark's macro average, by hand: none while a task is missing, and notes on what differs from the published kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.records import store
from harness.records.figure import Figure
from harness.records.schema import Accuracy, Data, Finding, Record, SplitData
from harness.report.macro_average import macro_averages, macro_line, mean_of, score
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


def glue_record(
    task: str, *, mismatched: bool = True, label: str = "official", kind: str = "hub", **changes: Any
) -> Record:
    parts = [part("validation_matched" if task == "mnli" else "validation", METRICS[task])]
    if task == "mnli" and mismatched:
        parts.append(part("validation_mismatched", {"accuracy": MISMATCHED}))
    split = SplitData(rows=10, official_rows=10, sha256="0", label=label)
    data = Data(kind=kind, label=label, splits={"validation": split})
    name = f"{task}-{changes.get('model', '')}-{changes.get('seed', 1)}"
    return make_record(key=name, task=f"glue/{task}", accuracy=parts, data=data, suite="glue", **changes)


def test_a_tasks_score_is_the_mean_of_its_metrics_and_parts() -> None:
    assert score(glue_record("mrpc")) == Figure(value=86.0, low=84.0, high=87.0)
    assert score(glue_record("mnli")) == Figure(value=81.0, low=79.0, high=82.0)
    assert score(glue_record("cola")).value == 50.0


def test_the_mean_of_eight_has_an_interval_from_theirs() -> None:
    (found,) = macro_averages([glue_record(task) for task in METRICS])
    assert found.figure is not None
    assert found.figure.value == pytest.approx(MEAN)
    assert found.figure.low == pytest.approx(MEAN - (8 * 2.0**2) ** 0.5 / 8)
    assert found.figure.high == pytest.approx(MEAN + (8 * 1.0**2) ** 0.5 / 8)
    assert (found.missing, found.notes) == ((), ())


def test_what_is_official_by_its_number_of_rows_alone_is_named() -> None:
    records = [glue_record(task, kind="raw") for task in METRICS]
    (found,) = macro_averages(records)
    assert found.notes == ("evaluation data official (by row count): qqp",)


def test_a_task_without_an_interval_leaves_the_mean_without_one() -> None:
    """As CoLA of a model that gives one answer to all: it is not known exactly, its interval is not known."""
    records = [glue_record(task) for task in METRICS]
    bare = Figure(value=0.0)
    cola = records[0].model_copy(
        update={"accuracy": [records[0].accuracy[0].model_copy(update={"metrics": {"matthews_correlation": bare}})]}
    )
    (average,) = macro_averages([cola, *records[1:]])
    assert average.figure is not None and (average.figure.low, average.figure.high) == (None, None)
    assert average.figure.value == pytest.approx(MEAN - 50 / 8)
    assert "(no interval)" in macro_line(average)


def test_the_published_mean_of_aimet_is_such_a_mean() -> None:
    """Its own variants (F1 of MRPC, accuracy of QQP, one figure for STS-B): 83.11 in its table."""
    published = (58.76, 93.12, 89.93, 88.84, 90.94, 85.19, 91.63, 66.43)
    assert mean_of([Figure(value=value) for value in published]).value == pytest.approx(83.11, abs=0.006)


@pytest.mark.parametrize("without", METRICS)
def test_there_is_no_average_while_a_task_is_missing(without: str) -> None:
    (found,) = macro_averages([glue_record(task) for task in METRICS if task != without])
    assert found.figure is None
    assert found.missing == (f"glue/{without}",)
    assert macro_line(found).endswith(f"none, missing glue/{without}")


WRONG = Finding(rule="wrong_provider", what="what", measured="1", bound="0", remedy="do")


def test_notes_say_what_differs_from_the_published_average() -> None:
    changed = [
        glue_record("mnli", mismatched=False, label="substitute"),
        glue_record("qqp", label="substitute"),
        glue_record("cola", label="subset (10 of 20)"),
        glue_record("rte", status="invalid", reason="elsewhere", findings=[WRONG]),
    ]
    same = [glue_record(task) for task in METRICS if task not in ("mnli", "qqp", "cola", "rte")]
    (found,) = macro_averages([*changed, *same])
    assert found.notes == (
        "mnli: matched only",
        "evaluation data substitute: mnli, qqp",
        "evaluation data subset: cola",
        "invalid cells: rte",
    )
    assert found.figure is not None
    assert found.figure.value == pytest.approx(MEAN - 1 / 8)  # 80 instead of the mean of 80 and 82


def test_seeds_models_and_parts_of_an_evaluation_set_are_not_mixed() -> None:
    whole = [glue_record(task) for task in METRICS]
    others = [
        glue_record("cola", seed=2),
        glue_record("rte", seed=2),
        glue_record("sst2", settings={"limit": 5}),
        glue_record("qnli", model="b"),
    ]
    found = macro_averages([*whole, *others])
    assert [(one.seed, one.model, one.figure is None) for one in found] == [(1, "tiny", False), (2, "tiny", True)]
    assert macro_averages([make_record(key="a")]) == []


def test_the_suites_page_shows_it(tmp_path: Path) -> None:
    for task in METRICS:
        store.append(
            tmp_path / "results" / "run.jsonl", glue_record(task, label="substitute" if task == "qqp" else "official")
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
    eight = [glue_record(task) for task in METRICS if task != "mrpc"]
    old, new, substitute = (
        glue_record("mrpc", label=label, finished=f"2026-01-0{day}T00:00:00+00:00").model_copy(
            update={"accuracy": [part("validation", {"accuracy": value, "f1": value})]}
        )
        for label, day, value in (("official", 1, 10.0), ("official", 2, 86.0), ("substitute", 3, 50.0))
    )
    (found,) = macro_averages([*eight, new, substitute, old])
    assert found.figure is not None and found.figure.value == pytest.approx(MEAN)
    assert found.notes == ()


def test_the_samples_files_are_the_sample_and_stand_apart() -> None:
    real = [glue_record(task) for task in METRICS]
    copied = [glue_record(task, label="sample", model="other") for task in METRICS]
    assert [(average.model, average.sample) for average in macro_averages([*real, *copied])] == [
        ("tiny", False),
        ("other", True),
    ]


def test_devices_have_averages_of_their_own() -> None:
    records = [glue_record(task, device=device) for device in ("cpu", "cuda") for task in METRICS]
    assert [average.label for average in macro_averages(records)] == ["torch_fp32 (cpu)", "torch_fp32 (cuda)"]
    assert [average.label for average in macro_averages(records[:8])] == ["torch_fp32"]
