"""A split through a session: which batches it gets, and that every output belongs to its sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backends import BackendError
from harness.measure.inference import PAST_THE_END, make_batch, run_features
from tests.backends.in_memory import InMemorySession
from tests.measure.features import PAD, make_features


@pytest.mark.parametrize("size", [1, 7, 64, 100])
@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_outputs_come_back_in_order(padding: str, size: int) -> None:
    features, session = make_features(), InMemorySession()
    inference = run_features(session, features, batch_size=size, padding=padding, max_length=50)
    inside = np.arange(40) < features.lengths[:, None]
    assert inference.outputs.dtype == np.float32
    assert inference.outputs.shape == (64, 40, 2)
    for column in range(2):
        assert np.array_equal(inference.outputs[..., column][inside], features.input_ids[inside])
    assert (inference.outputs[~inside] == PAST_THE_END).all()
    assert inference.tokens == sum(rows * width for rows, width in session.shapes)


def test_longest_first_and_each_batch_only_as_wide_as_it_must_be() -> None:
    features, session = make_features(), InMemorySession()
    inference = run_features(session, features, batch_size=10, padding="longest", max_length=50)
    ordered = sorted(map(int, features.lengths), reverse=True)
    assert session.shapes == [(len(ordered[at : at + 10]), ordered[at]) for at in range(0, 64, 10)]
    assert "10 a batch" in inference.batch_formation
    assert inference.tokens < 64 * 40 < 64 * 50


def test_classes_have_one_output_a_sequence() -> None:
    features, session = make_features(), InMemorySession(labels=3)
    inference = run_features(session, features, batch_size=16, padding="longest", max_length=40)
    inside = np.arange(40) < features.lengths[:, None]
    assert np.array_equal(inference.outputs, np.repeat((features.input_ids * inside).sum(1)[:, None], 3, 1))


def test_a_batch_holds_its_rows_with_the_tasks_own_padding() -> None:
    features = make_features()
    batch = make_batch(features, np.array([3, 0]), 50)
    length = int(features.lengths[3])
    assert list(batch["input_ids"][0]) == [*features.input_ids[3, :length], *[PAD] * (50 - length)]
    assert list(batch["attention_mask"][0]) == [1] * length + [0] * (50 - length)
    assert list(batch["token_type_ids"][1]) == [0] * 4 + [1] * 36 + [0] * 10


def test_forward_time_is_the_sessions_alone() -> None:
    session = InMemorySession(seconds_a_call=0.005)
    inference = run_features(session, make_features(), batch_size=8, padding="longest", max_length=40)
    own = sum(session.ended) - sum(session.began)
    assert own <= inference.forward_seconds < session.ended[-1] - session.began[0] + 0.001
    assert inference.forward_seconds >= 8 * 0.005


def test_nothing_to_run() -> None:
    features = make_features(1)
    empty = type(features)(
        features.input_ids[:0], features.token_type_ids[:0], features.lengths[:0], features.example_index[:0]
    )
    assert run_features(InMemorySession(), empty, batch_size=8, padding="longest", max_length=40).outputs.size == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda logits: logits[:1],  # one row, which NumPy would spread over the batch
        lambda logits: logits[:, :-1],
        lambda logits: logits.astype(np.int64),
        lambda logits: logits[..., 0, 0],
        lambda logits: logits[None],
        lambda logits: logits.tolist(),
        lambda logits: None,
    ],
)
def test_outputs_of_another_shape_are_no_answer(wrong: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    session = InMemorySession()
    right = session.run
    monkeypatch.setattr(session, "run", lambda batch: wrong(right(batch)))
    with pytest.raises(
        BackendError, match=r"the engine returned .* for a batch of 16 sequences of 40 tokens; expected"
    ):
        run_features(session, make_features(), batch_size=16, padding="longest", max_length=40)


def test_later_batches_have_as_many_classes_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    session = InMemorySession(labels=3)
    right = session.run
    monkeypatch.setattr(session, "run", lambda batch: right(batch)[:, : 3 if len(session.shapes) < 2 else 1])
    with pytest.raises(BackendError, match=r"of shape \(16, 1\)"):
        run_features(session, make_features(), batch_size=16, padding="longest", max_length=40)
