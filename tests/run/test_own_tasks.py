"""Runs of tasks of one's own score what plain transformers with scikit-learn or seqeval scores, to the last example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqeval.metrics as seqeval
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score
from transformers import BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification, BertModel

from tests.run.own_tasks import logits_of, metrics_of, run_suite, save_model, texts, tokenizer_of, write_rows

pytestmark = pytest.mark.slow
INT8 = ("onnxruntime_int8", "onnxruntime_int8_dynamic")


def test_multi_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["late", "broken", "Wrong item", "refund"]
    model = save_model(
        tmp_path / "model", BertForSequenceClassification, names, problem_type="multi_label_classification"
    )
    rows = texts(80)
    true = np.array([[(row >> bit) & 1 for bit in range(4)] for row in range(80)])
    labels = [[name for name, is_true in zip(names, flags, strict=True) if is_true] for flags in true]
    for split in ("train", "dev"):
        write_rows(
            tmp_path / f"{split}.jsonl",
            [{"message": text, "topics": topics} for text, topics in zip(rows, labels, strict=True)],
        )
    tokenizer = tokenizer_of(tmp_path / "model")
    logits = np.concatenate([logits_of(model, tokenizer(text, return_tensors="pt")) for text in rows])
    predicted = 1 / (1 + np.exp(-logits)) > 0.5

    records = run_suite(
        tmp_path,
        'kind = "multi_label"\ntext = "message"\nlabel = "topics"\n'
        'data = { train = "train.jsonl", validation = "dev.jsonl" }\n',
        monkeypatch,
        capsys,
    )
    expected = {
        "micro_f1": 100 * f1_score(true, predicted, average="micro"),
        "macro_f1": 100 * f1_score(true, predicted, average="macro"),
        "subset_accuracy": 100 * accuracy_score(true, predicted),
    }
    for backend in ("torch_fp32", "onnxruntime_fp32"):
        assert metrics_of(records[backend]) == pytest.approx(expected)
    for backend in INT8:
        assert metrics_of(records[backend])["micro_f1"] > 0


TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def sentences(count: int) -> list[tuple[list[str], list[str]]]:
    """Words with a tag each, some of them of several tokens."""
    words = [[*text.split(), *(["Wonderfully"] if row % 3 == 0 else [])] for row, text in enumerate(texts(count))]
    return [
        (
            line,
            [TAGS[(row + place * place) % 7] if (row + place * place) % 7 < 5 else "O" for place in range(len(line))],
        )
        for row, line in enumerate(words)
    ]


def test_token_classification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "model", BertForTokenClassification, TAGS)
    rows = sentences(60)
    write_rows(tmp_path / "train.jsonl", [{"tokens": words, "ner_tags": tags} for words, tags in rows])
    lines = [f"{word} {tag}" for words, tags in rows for word, tag in [*zip(words, tags, strict=True), ("", "")]]
    (tmp_path / "dev.conll").write_text("\n".join(line.strip() for line in lines))
    tokenizer = tokenizer_of(tmp_path / "model")
    predicted = []
    for words, _ in rows:
        encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        best = logits_of(model, encoded)[0].argmax(-1)
        ids = encoded.word_ids()
        predicted.append([TAGS[best[ids.index(word)]] for word in range(len(words))])
    truth = [tags for _, tags in rows]

    records = run_suite(
        tmp_path,
        'kind = "token_classification"\ndata = { train = "train.jsonl", validation = "dev.conll" }\n',
        monkeypatch,
        capsys,
    )
    expected = {
        "f1": 100 * seqeval.f1_score(truth, predicted),
        "precision": 100 * seqeval.precision_score(truth, predicted),
        "recall": 100 * seqeval.recall_score(truth, predicted),
    }
    assert 1 < expected["f1"] < 99
    for backend in ("torch_fp32", "onnxruntime_fp32"):
        assert metrics_of(records[backend]) == pytest.approx(expected)
    for backend in INT8:
        assert metrics_of(records[backend])["f1"] > 0
    assert records["onnxruntime_int8"]["flops"]["cross_check"].endswith("equal")


TRAINED = """
models.small = { source = "model", recipe = "finetune", train = { learning_rate = 3e-3, epochs = 20, batch_size = 8 } }
models.trained = { source = "model:small", recipe = "qat", scheme = "engine_int8", train = { learning_rate = 1e-4, epochs = 1, batch_size = 8 } }
"""


@pytest.mark.parametrize("kind", ["token_classification", "multi_label"])
def test_training_on_a_task_of_ones_own(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fine-tuning a plain encoder learns what depends on the words alone; training with quantizers keeps it."""
    save_model(tmp_path / "model", BertModel, initializer_range=0.02)
    rows = [text.split() for text in texts(60)]
    if kind == "multi_label":
        columns = [{"text": " ".join(words), "label": [w for w in ("museum", "town") if w in words]} for words in rows]
    else:
        columns = [{"text": words, "label": ["B-LOC" if len(word) > 4 else "O" for word in words]} for words in rows]
    for split in ("train", "dev"):
        write_rows(tmp_path / f"{split}.jsonl", columns)
    records = run_suite(
        tmp_path,
        f'kind = "{kind}"\ntext = "text"\nlabel = "label"\ndata = {{ train = "train.jsonl", validation = "dev.jsonl" }}\n',
        monkeypatch,
        capsys,
        **{
            'models.small = { source = "model", recipe = "load" }': TRAINED,
            '{ name = "onnxruntime_fp32" }, ': "",
            '  { name = "onnxruntime_int8_dynamic" },\n': "",
        },
    )
    for backend in ("torch_fp32", "onnxruntime_int8"):
        assert records[backend]["model"] == "trained"  # of each label the last record
        assert records[backend]["status"] == "ok", records[backend]["log_tail"]
        assert next(iter(records[backend]["accuracy"][0]["metrics"].values()))["value"] > 80


def test_similarity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Mean pooling by hand, from plain transformers; no head, so that all products of the graph are the encoder's."""
    model = save_model(tmp_path / "model", BertModel)
    firsts, seconds = texts(40), [*texts(41)[1:]]
    truth = [float((row * 7) % 11) for row in range(40)]
    lines = [f"{a},{b},{score}" for a, b, score in zip(firsts, seconds, truth, strict=True)]
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("\n".join(["one,two,how", *lines]) + "\n")
    tokenizer = tokenizer_of(tmp_path / "model")
    cosines = []
    for pair in zip(firsts, seconds, strict=True):
        with torch.no_grad():
            states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in pair]
        cosines.append(float(torch.cosine_similarity(states[0], states[1], dim=0)))
    records = run_suite(
        tmp_path,
        'kind = "similarity"\ntext = "one"\ntext_pair = "two"\nlabel = "how"\n'
        'data = { train = "train.csv", validation = "dev.csv" }\n',
        monkeypatch,
        capsys,
    )
    expected = {
        "spearman": 100 * stats.spearmanr(cosines, truth)[0],
        "pearson": 100 * stats.pearsonr(cosines, truth)[0],
    }
    for backend in ("torch_fp32", "onnxruntime_fp32"):
        assert metrics_of(records[backend]) == pytest.approx(expected, abs=0.01)
    for backend in INT8:
        metrics_of(records[backend])
    assert records["onnxruntime_int8"]["flops"]["cross_check"].endswith("equal")
    assert records["onnxruntime_int8"]["flops"]["head"] == 0


def test_question_answering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows as JSONL, some of them without an answer: the best span among the 20 best starts and ends of plain transformers."""
    model = save_model(tmp_path / "model", BertForQuestionAnswering)
    contexts = [text for text in texts(90) if len(text.split()) > 3]
    rows: list[dict[str, Any]] = []
    for number, context in enumerate(contexts):
        word = context.split()[number % 3]
        answers = (
            {"text": [word], "answer_start": [context.index(word)]} if number % 4 else {"text": [], "answer_start": []}
        )
        rows.append({"id": f"q{number}", "context": context, "question": "where is it ?", "answers": answers})
    for split in ("train", "dev"):
        write_rows(tmp_path / f"{split}.jsonl", rows)
    tokenizer = tokenizer_of(tmp_path / "model")
    exact = []
    for row in rows:
        encoded = tokenizer(row["question"], row["context"], return_tensors="pt", return_offsets_mapping=True)
        offsets, sides = encoded.pop("offset_mapping")[0].tolist(), encoded.sequence_ids()
        with torch.no_grad():
            output = model(**encoded)
        first, last = output.start_logits[0].numpy(), output.end_logits[0].numpy()
        spans = [
            (float(first[i]) + float(last[j]), row["context"][offsets[i][0] : offsets[j][1]])
            for i in np.argsort(-first)[:20]
            for j in np.argsort(-last)[:20]
            if sides[i] == sides[j] == 1 and 0 <= j - i < 30
        ]
        score, text = max(spans)
        given = "" if float(first[0]) + float(last[0]) > score else text
        exact.append(given.lower() == row["answers"]["text"][0].lower() if row["answers"]["text"] else not given)
    records = run_suite(
        tmp_path,
        'kind = "question_answering"\nunanswerable = true\ndata = { train = "train.jsonl", validation = "dev.jsonl" }\n',
        monkeypatch,
        capsys,
        **{"max_length = 64": "max_length = 64, doc_stride = 32"},
    )
    for backend in ("torch_fp32", "onnxruntime_fp32"):
        metrics = {name: figure["value"] for name, figure in records[backend]["accuracy"][0]["metrics"].items()}
        assert metrics["exact"] == pytest.approx(100 * sum(exact) / len(exact))
        assert metrics["best_exact"] >= metrics["exact"] and set(metrics) == {"f1", "exact", "best_f1", "best_exact"}
    for backend in INT8:
        assert records[backend]["status"] == "ok", records[backend]["log_tail"]
