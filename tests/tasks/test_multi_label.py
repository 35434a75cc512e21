"""Several classes a row: forms of files, metrics against scikit-learn, and how they are resampled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from harness.measure.intervals import intervals, resampled
from harness.measure.paired import differences
from harness.records.scores import statistics_of
from tasks import DataRef, Shape, Task, TaskError, open_task
from tasks.declared import Declaration
from tasks.sample import sample_tokenizer

ROWS = [("a", ["late", "broken"]), ("b", []), ("c", ["refund"]), ("d", ["broken", "refund"])]
NAMES = ("broken", "late", "refund")


def opened(path: Path, **changes: Any) -> Task:
    values = {
        "name": "mine",
        "kind": "multi_label",
        "data": {"validation": str(path)},
        "text": "text",
        "label": "topics",
    }
    return open_task("mine", DataRef("declared", Declaration(**values | changes).to_json()))


def test_lists_separators_and_columns_of_0_and_1_are_the_same_rows(tmp_path: Path) -> None:
    lists, joined, flags = tmp_path / "a.jsonl", tmp_path / "b.csv", tmp_path / "c.csv"
    lists.write_text("".join(json.dumps({"text": text, "topics": topics}) + "\n" for text, topics in ROWS))
    joined.write_text("text,topics\n" + "".join(f"{text},{'; '.join(topics)}\n" for text, topics in ROWS))
    lines = [",".join([text, *(str(int(name in topics)) for name in NAMES)]) for text, topics in ROWS]
    flags.write_text("\n".join([",".join(["text", *NAMES]), *lines]) + "\n")
    tasks = [opened(lists), opened(joined), opened(flags, label="", labels=NAMES)]
    for task in tasks:
        assert task.labels == NAMES
        assert [row["label"] for row in task.examples("validation")] == [[0, 1], [], [2], [0, 2]]
    assert len({task.identity.digest for task in tasks}) == 1
    targets = tasks[0].features(tasks[0].examples("validation"), sample_tokenizer(), Shape(16), training=True).labels
    assert targets["labels"].dtype == np.float32
    assert targets["labels"].tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1]]


def test_numbers_are_the_places_of_named_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "topics": [2, 0]}\n{"text": "b", "topics": [1]}\n')
    assert [row["label"] for row in opened(path, labels=NAMES).examples("validation")] == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("text,late\na,2\n", {"label": "", "labels": ("late",)}, "'late' is '2', not 0 or 1"),
        ("text,topics\na,late;odd\n", {"labels": ("late", "broken")}, "unknown label 'odd'"),
        ("text,topics\na,late\n", {"label": "", "labels": ("gone",)}, "has no column 'gone' (labels)"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, content: str, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(TaskError) as fault:
        opened(path, **changes).examples("validation")
    assert message in str(fault.value) and "\n" not in str(fault.value)


def scored(tmp_path: Path, seeds: tuple[int, ...], rows: int = 300) -> tuple[Task, list[Any], list[Any]]:
    """A task of three classes, and scores and decoded predictions of random models, which share most of their answers."""
    draw = np.random.default_rng(5)
    true = draw.random((rows, 3)) < (0.5, 0.1, 0.3)
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": f"t {row}", "topics": [name for name, flag in zip(NAMES, flags, strict=True) if flag]})
            + "\n"
            for row, flags in enumerate(true)
        )
    )
    task = opened(path, labels=NAMES)
    examples = task.examples("validation")
    all_scores, all_predictions = [], []
    for seed in seeds:
        logits = np.where(np.random.default_rng(seed).random((rows, 3)) < 0.25, ~true, true) - 0.5
        predictions = task.decode(examples, None, logits.astype(np.float32)[:, [2, 0, 1]], ["refund", "Broken", "LATE"])  # type: ignore[arg-type]
        all_predictions.append((logits > 0, predictions))
        all_scores.append(task.score(examples, predictions))
    return task, all_scores, [(true, *predictions) for predictions in all_predictions]


def test_scores_equal_scikit_learns(tmp_path: Path) -> None:
    task, (scores,), ((true, guess, predictions),) = scored(tmp_path, (1,))
    expected = {
        "micro_f1": f1_score(true, guess, average="micro"),
        "macro_f1": f1_score(true, guess, average="macro"),
        "subset_accuracy": accuracy_score(true, guess),
    }
    assert scores.metrics == pytest.approx({name: 100 * value for name, value in expected.items()})
    assert statistics_of(scores.metrics, scores.per_example) == scores.statistics
    examples = task.examples("validation")
    stored = [json.loads(text) for text in scores.per_example["prediction"]]
    assert stored == predictions == task.predictions_from_json(examples, json.dumps(stored), "mine.json")
    nothing = task.score(examples, [None] * len(examples))
    assert nothing.missing == len(examples) and set(nothing.metrics.values()) == {0.0}


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_resamples_equal_a_loop_over_scikit_learn(tmp_path: Path, average: str) -> None:
    _, (scores,), ((true, guess, _),) = scored(tmp_path, (1,), rows=60)
    columns = [scores.per_example["predicted"].astype(float), scores.per_example["label"].astype(float)]
    drawn = resampled(f"{average}_f1", [columns], None, 4000, np.random.default_rng(0))[:, 0]
    draw = np.random.default_rng(3)
    naive = []
    for _ in range(1000):
        rows = draw.integers(0, 60, 60)
        naive.append(f1_score(true[rows], guess[rows], average=average, zero_division=0.0))
    assert np.quantile(drawn, [0.025, 0.5, 0.975]) == pytest.approx(np.quantile(naive, [0.025, 0.5, 0.975]), abs=0.02)


def test_every_metric_has_an_interval_and_a_paired_test(tmp_path: Path) -> None:
    _, (one, other), _ = scored(tmp_path, (1, 2))
    for name, figure in intervals(one).items():
        assert figure.low is not None and figure.high is not None and figure.low < figure.value < figure.high
        (test,) = differences([one, other], name, [(0, 1)])
        assert test.p is not None and test.value == pytest.approx(one.metrics[name] - other.metrics[name])


def test_training_minimises_transformers_binary_cross_entropy() -> None:
    """The configuration that training sets makes transformers compute that loss from our targets."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from harness.checkpoints.training.finetune import PROBLEM_TYPES

    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 9,
    }
    sizes |= {"num_labels": 3, "problem_type": PROBLEM_TYPES["multi_label"]}
    config = BertConfig(**sizes)
    model = BertForSequenceClassification(config).train(False)
    targets = torch.tensor([[1.0, 0.0, 1.0]])
    output = model(input_ids=torch.tensor([[1, 2, 3]]), labels=targets)
    share = output.logits.sigmoid()
    assert output.loss.item() == pytest.approx(
        -(targets * share.log() + (1 - targets) * (1 - share).log()).mean().item(), rel=1e-5
    )
