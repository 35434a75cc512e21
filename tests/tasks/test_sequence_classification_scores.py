"""Metrics of classes and scores against scikit-learn and SciPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

import tasks.metrics
from tasks.definitions import definition_of
from tasks.metrics.labels import f1, matthews_correlation, pearson, spearman, statistic_percent
from tasks.sequence_classification import SequenceClassification
from tests.tasks.rows import MemoryRows

METRICS_OF = {
    "cola": ["matthews_correlation"],
    "sst2": ["accuracy"],
    "mrpc": ["accuracy", "f1"],
    "stsb": ["pearson", "spearman"],
    "qqp": ["accuracy", "f1"],
    "mnli": ["accuracy"],
    "qnli": ["accuracy"],
    "rte": ["accuracy"],
}
METRICS = Path(tasks.metrics.__file__).parent


def scored(name: str, predictions: list[Any], labels: list[Any]) -> Any:
    task = SequenceClassification(definition_of(f"glue/{name}"), MemoryRows({"validation": []}))
    given = [task.labels[value] if isinstance(value, (int, np.integer)) else value for value in predictions]
    return task.score([{"label": label} for label in labels], given)


@pytest.mark.parametrize("seed", range(20))
def test_coefficients_are_those_of_the_libraries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 60))
    label = rng.integers(0, 2, count)
    predicted = np.where(rng.random(count) < 0.7, label, 1 - label)
    assert f1(predicted, label) == pytest.approx(sklearn.metrics.f1_score(label, predicted, zero_division=0))
    for classes in (2, 3):
        label, predicted = rng.integers(0, classes, (2, count))
        expected = sklearn.metrics.matthews_corrcoef(label, predicted)
        assert matthews_correlation(predicted, label) == pytest.approx(expected, abs=1e-12)
    score = np.round(rng.random(count) * 5, 1)  # with ties
    guess = np.round(score + rng.normal(size=count), 1)
    if np.ptp(score) and np.ptp(guess):
        assert pearson(guess, score) == pytest.approx(scipy.stats.pearsonr(guess, score).statistic, abs=1e-12)
        assert spearman(guess, score) == pytest.approx(scipy.stats.spearmanr(guess, score).statistic, abs=1e-12)


def test_a_constant_answer_has_no_correlation() -> None:
    score = np.array([0.1, 2.3, 4.0])
    for same in (0.1, 1e9, 5.0):
        assert pearson(np.full(3, same), score) == 0
        assert spearman(np.full(3, same), score) == 0
    label = np.array([0, 1, 1])
    assert matthews_correlation(np.ones(3, np.int64), label) == 0
    assert f1(np.zeros(3, np.int64), np.zeros(3, np.int64)) == 0


@pytest.mark.parametrize("name", list(METRICS_OF))
def test_metrics_are_percent_and_follow_from_the_columns(name: str) -> None:
    rng = np.random.default_rng(3)
    classes = 3 if name == "mnli" else 2
    label: np.ndarray[Any, Any]
    if name == "stsb":
        label = rng.random(50) * 5
        predicted = label + rng.normal(size=50)
    else:
        label = rng.integers(0, classes, 50)
        predicted = np.where(rng.random(50) < 0.7, label, (label + 1) % classes)
    scores = scored(name, list(predicted), list(label))
    expected = {
        "accuracy": lambda: sklearn.metrics.accuracy_score(label, predicted),
        "f1": lambda: sklearn.metrics.f1_score(label, predicted),
        "matthews_correlation": lambda: sklearn.metrics.matthews_corrcoef(label, predicted),
        "pearson": lambda: scipy.stats.pearsonr(predicted, label).statistic,
        "spearman": lambda: scipy.stats.spearmanr(predicted, label).statistic,
    }
    assert set(scores.metrics) == set(METRICS_OF[name])
    assert SequenceClassification(definition_of(f"glue/{name}"), MemoryRows()).primary_metric in scores.metrics
    for metric, value in scores.metrics.items():
        assert type(value) is float
        assert value == pytest.approx(100 * expected[metric]())
        assert statistic_percent(scores.statistics[metric], scores.per_example) == value
    assert scores.groups is None
    assert scores.missing == 0
    assert all(column.dtype != object and len(column) == 50 for column in scores.per_example.values())


def test_missing_predictions_count_as_wrong() -> None:
    scores = scored("mrpc", [1, None, None, 0], [1, 1, 0, 0])
    assert scores.missing == 2
    assert scores.metrics == {"accuracy": 50.0, "f1": 50.0}  # one hit, one miss, one false alarm
    assert scores.per_example["prediction"].tolist() == ["equivalent", "", "", "not_equivalent"]
    assert scores.per_example["predicted"].tolist() == [1, 0, 1, 0]
    assert scored("mnli", [None, None, None], [0, 1, 2]).metrics == {"accuracy": 0.0}
    scores = scored("stsb", [None, 3.0, None, float("nan")], [0.0, 3.0, 4.0, 5.0])
    assert scores.missing == 3
    assert scores.per_example["predicted"].tolist() == [5.0, 3.0, 0.0, 0.0]
    assert scores.metrics["pearson"] < -90


def test_identical_examples_have_ids_of_their_own() -> None:
    task = SequenceClassification(definition_of("glue/sst2"), MemoryRows({"validation": []}))
    rows = [{"sentence": "x", "label": 0, "idx": 7}, {"sentence": "x", "label": 0, "idx": 8}]
    assert task.score(rows, ["negative", "positive"]).per_example["id"].tolist() == ["7", "8"]
    rows = [{"sentence": "x", "label": 0}] * 2
    assert task.score(rows, ["negative", "positive"]).per_example["id"].tolist() == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "predictions", "labels"), [("cola", [1, 0, 1], [1, 0, 0]), ("stsb", [1.5, 4.0, 2.0], [1.0, 5.0, 3.0])]
)
def test_the_evaluate_module_gives_the_same_figures(
    name: str, predictions: list[Any], labels: list[Any], tmp_path: Path
) -> None:
    import evaluate

    metric = evaluate.load(str(METRICS / "glue.py"), name, cache_dir=str(tmp_path), keep_in_memory=True)
    figures = metric.compute(predictions=predictions, references=labels)
    assert {key: 100 * value for key, value in figures.items()} == pytest.approx(
        scored(name, predictions, labels).metrics
    )
