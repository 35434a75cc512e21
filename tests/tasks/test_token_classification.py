"""Tags of words: forms of files, sequences against the tokenizer's own, scores against seqeval, and how they are resampled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

from harness.measure.intervals import intervals, resampled
from harness.measure.paired import differences
from harness.records.scores import statistics_of
from tasks import DataRef, Shape, Task, TaskError, open_task
from tasks.declared import Declaration
from tasks.sample import sample_tokenizer

TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
SENTENCES = [
    (["Anna", "Bell", "visited", "Old", "Town"], ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]),
    (["Nobody", "did"], ["O", "O"]),
    (["Rome"], ["B-LOC"]),
]


def opened(path: Path, **changes: Any) -> Task:
    values = {"name": "mine", "kind": "token_classification", "data": {"validation": str(path)}}
    return open_task("mine", DataRef("declared", Declaration(**values | changes).to_json()))


def write_jsonl(path: Path, sentences: list[tuple[list[str], list[str]]]) -> Path:
    path.write_text("".join(json.dumps({"tokens": words, "ner_tags": tags}) + "\n" for words, tags in sentences))
    return path


def test_every_form_gives_the_same_rows(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as parquet

    records = [{"tokens": words, "ner_tags": tags} for words, tags in SENTENCES]
    numbers = [{**record, "ner_tags": [TAGS.index(tag) for tag in record["ner_tags"]]} for record in records]
    write_jsonl(tmp_path / "a.jsonl", SENTENCES)
    parquet.write_table(pa.Table.from_pylist(numbers), tmp_path / "a.parquet")
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=list(TAGS))),
        }
    )
    datasets.Dataset.from_list(numbers, features=features).save_to_disk(tmp_path / "saved")
    lines = ["-DOCSTART- -X- O O", ""]
    for words, tags in SENTENCES:
        lines += [f"{word} NN I-NP {tag}" for word, tag in zip(words, tags, strict=True)] + [""]
    (tmp_path / "a.conll").write_text("\n".join(lines) + "\n")
    (tmp_path / "a.bio").write_text("# sent_id = 1\n" + "\n".join(lines[2:]).replace(" NN I-NP ", "\t"))
    digests = set()
    for name in ("a.jsonl", "a.parquet", "saved", "a.conll", "a.bio"):
        task = opened(tmp_path / name, labels=TAGS)
        rows = task.examples("validation")
        assert [(row["tokens"], [TAGS[number] for number in row["label"]]) for row in rows] == SENTENCES
        digests.add(task.identity.digest)
    assert len(digests) == 1
    assert opened(tmp_path / "a.conll").labels == ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"tokens": ["a", "b"], "ner_tags": ["O"]}', "line 1: 1 tags for 2 words"),
        ("a.jsonl", '{"tokens": [], "ner_tags": []}', "'tokens' must list at least one word"),
        ("a.jsonl", '{"tokens": ["a"], "ner_tags": 3}', "'ner_tags' is 3, not a list"),
        ("a.jsonl", '{"words": ["a"], "ner_tags": ["O"]}', "has no column 'tokens' (text)"),
        ("a.conll", "a O\nb\n", "line 2: 1 columns, expected 2 columns as above"),
        ("a.conll", "a\n", "line 1: 1 columns, expected a word and its tag"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TaskError) as fault:
        opened(tmp_path / name, labels=TAGS).examples("validation")
    assert message in str(fault.value) and "\n" not in str(fault.value)


@pytest.mark.parametrize("max_length", [6, 40])
def test_sequences_and_targets_are_those_of_run_ner(tmp_path: Path, max_length: int) -> None:
    """transformers' `run_ner.py`: words are tokenized by the tokenizer itself, and the first token of a word has its label."""
    import transformers

    task = opened(write_jsonl(tmp_path / "a.jsonl", SENTENCES), labels=TAGS)
    features = task.features(task.examples("validation"), sample_tokenizer(), Shape(max_length), training=True)
    fast: Any = transformers.PreTrainedTokenizerFast
    theirs = fast(tokenizer_object=sample_tokenizer(), cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")
    for row, (words, tags) in enumerate(SENTENCES):
        encoded = theirs(words, is_split_into_words=True, truncation=True, max_length=max_length)
        labels, last = [], None
        for word in encoded.word_ids():
            labels.append(-100 if word is None or word == last else TAGS.index(tags[word]))
            last = word
        length = len(labels)
        assert features.lengths[row] == length
        assert features.input_ids[row, :length].tolist() == encoded["input_ids"]
        assert features.labels["labels"][row, :length].tolist() == labels
        assert set(features.labels["labels"][row, length:]) <= {-100}


def test_a_word_that_was_cut_off_counts_as_outside(tmp_path: Path) -> None:
    task = opened(write_jsonl(tmp_path / "a.jsonl", [(["Rome"] * 9, ["B-LOC"] * 9)]), labels=TAGS)
    examples = task.examples("validation")
    features = task.features(examples, sample_tokenizer(), Shape(8))
    kept = int((features.extra["word"] >= 0).sum())
    outputs = np.zeros((1, features.input_ids.shape[1], 5), np.float32)
    outputs[:, :, 1] = 1
    (answer,) = task.decode(examples, features, outputs)
    assert 0 < kept < 9
    assert answer == ["B-LOC"] * kept + ["O"] * (9 - kept)
    assert task.score(examples, [answer]).metrics["recall"] == pytest.approx(100 * kept / 9)
    outputs[0, 1, 0] = np.nan
    assert task.decode(examples, features, outputs) == [None]


def test_a_model_may_have_tags_that_the_file_lacks_but_not_the_other_way(tmp_path: Path) -> None:
    task: Any = opened(write_jsonl(tmp_path / "a.jsonl", SENTENCES[1:]))
    assert task.labels == ("B-LOC", "O")
    assert task.output_tags(["o", "b-loc", "I-LOC", "B-MISC"]) == ["O", "B-LOC", "I-LOC", "B-MISC"]
    with pytest.raises(TaskError, match="the model has no O among its classes LABEL_0, B-LOC"):
        task.output_tags(["LABEL_0", "B-LOC"])


def random_task(tmp_path: Path, seeds: tuple[int, ...], sentences: int = 120) -> tuple[Task, Any, list[Any], list[Any]]:
    """A task of random sentences, the truth, and the predictions and scores of random models that share most answers."""
    draw = np.random.default_rng(1)
    truth = [draw.choice(TAGS, draw.integers(1, 12), p=[0.5, 0.15, 0.1, 0.15, 0.1]).tolist() for _ in range(sentences)]
    path = write_jsonl(tmp_path / "a.jsonl", [(["word"] * len(tags), tags) for tags in truth])
    task = opened(path, labels=TAGS, metrics=("f1", "precision", "recall", "word_accuracy"))
    guesses, scores = [], []
    for seed in seeds:
        draw = np.random.default_rng(seed)
        guess = [[tag if draw.random() < 0.8 else str(draw.choice(TAGS)) for tag in tags] for tags in truth]
        guesses.append(guess)
        scores.append(task.score(task.examples("validation"), guess))
    return task, truth, guesses, scores


def test_scores_equal_seqevals(tmp_path: Path) -> None:
    task, truth, (guess,), (scores,) = random_task(tmp_path, (2,))
    expected = {
        "f1": f1_score(truth, guess),
        "precision": precision_score(truth, guess),
        "recall": recall_score(truth, guess),
        "word_accuracy": accuracy_score(truth, guess),
    }
    assert scores.metrics == pytest.approx({name: 100 * value for name, value in expected.items()})
    assert statistics_of(scores.metrics, scores.per_example) == scores.statistics
    stored = [json.loads(text) for text in scores.per_example["prediction"]]
    assert stored == guess == task.predictions_from_json(task.examples("validation"), json.dumps(stored), "mine.json")
    nothing = task.score(task.examples("validation"), [None] * len(truth))
    assert nothing.missing == len(truth) and set(nothing.metrics.values()) == {0.0}


@pytest.mark.parametrize("name", ["f1", "precision", "recall"])
def test_resamples_equal_a_loop_over_seqeval(tmp_path: Path, name: str) -> None:
    _, truth, (guess,), (scores,) = random_task(tmp_path, (2,), sentences=40)
    statistic = scores.statistics[name]
    columns = [scores.per_example[column] for column in statistic.columns]
    drawn = resampled(statistic.kind, [columns], None, 4000, np.random.default_rng(0))[:, 0]
    measure = {"f1": f1_score, "precision": precision_score, "recall": recall_score}[name]
    draw = np.random.default_rng(3)
    naive = []
    for _ in range(500):
        rows = draw.integers(0, 40, 40)
        naive.append(measure([truth[row] for row in rows], [guess[row] for row in rows]))
    assert np.quantile(drawn, [0.025, 0.5, 0.975]) == pytest.approx(np.quantile(naive, [0.025, 0.5, 0.975]), abs=0.025)


def test_every_metric_has_an_interval_and_a_paired_test(tmp_path: Path) -> None:
    *_, (one, other) = random_task(tmp_path, (2, 3))
    for name, figure in intervals(one).items():
        assert figure.low is not None and figure.high is not None and figure.low < figure.value < figure.high
        (test,) = differences([one, other], name, [(0, 1)])
        assert test.p is not None and test.value == pytest.approx(one.metrics[name] - other.metrics[name])


def test_training_batches_cut_the_targets_of_tokens_to_their_width(tmp_path: Path) -> None:
    from harness.checkpoints.training.loop import collate

    task = opened(write_jsonl(tmp_path / "a.jsonl", SENTENCES), labels=TAGS)
    features = task.features(task.examples("validation"), sample_tokenizer(), Shape(40), training=True)
    batch = collate(features, np.array([1, 2]), "cpu")
    assert batch["labels"].shape == batch["input_ids"].shape
    assert batch["labels"].shape[1] < features.input_ids.shape[1]
    wide = collate(features, np.array([1, 2]), "cpu", 40)
    assert wide["labels"].shape == (2, 40) and (wide["labels"][:, batch["labels"].shape[1] :] == -100).all()
