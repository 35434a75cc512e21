"""What happens inside a process that takes turns: which work, how often, and when it hands over."""

from __future__ import annotations

import hashlib
import threading
import time

import numpy as np
import pytest

from harness.measure.turns import PATIENCE, Player, of_work, rest, schedule
from tests.backends.in_memory import InMemorySession
from tests.measure.features import make_features

LARGE = bytes(1 << 22)


def test_fast_calls_are_many_and_slow_ones_are_few() -> None:
    fast = schedule([0.002, 0.001], available=64, budget=0.3)
    # 150 calls of 2 ms in 0.3 s, of which eight passes leave room for 18 batches
    assert (len(fast.batches), fast.passes, fast.cold) == (18, 8, True)
    assert fast.batches[0] == 64 // 36 and fast.batches[-1] == 35 * 64 // 36
    slow = schedule([1.2, 0.4], available=64, budget=4.0)
    assert slow == schedule([1.2, 0.4], available=64, budget=600.0)  # 4 s at most
    assert (slow.batches, slow.passes, slow.cold) == ((16, 48), 3, False)
    # threads that spin for 50 ms after a call of 2 ms: 76 turns in 4 s
    spinning = schedule([0.002, 0.001], available=64, budget=4.0, resting=0.05)
    assert (len(spinning.batches), spinning.passes) == (9, 8)


@pytest.mark.parametrize("available", [1, 2, 3, 500])
@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 0.05, 30.0])
def test_a_schedule_has_batches_that_there_are(seconds: float, available: int) -> None:
    found = schedule([seconds], available, 4.0)
    assert len(set(found.batches)) == len(found.batches) >= min(2, available)
    assert all(0 <= number < available for number in found.batches)
    assert found.passes >= 3


def test_the_time_of_the_work_is_that_of_each_batch_undisturbed() -> None:
    assert of_work({3: [1.0, 2.0, 90.0], 7: [0.5, 0.25, 0.75, 0.5]}) == 2.0 + 0.5


def test_work_is_cut_as_offline_cuts_it() -> None:
    """Longest first, whole batches, of sequences that are drawn with replacement by the seed: other rounds have others."""
    features = make_features(count=21)
    session = InMemorySession()
    player = Player(session, features, 40, seed=5)
    work = player.answer({"load": "real", "batch_size": 4})
    drawn = np.random.default_rng(5).integers(0, 21, 21)
    assert len(set(drawn)) < 21
    lengths = sorted((int(features.lengths[row]) for row in drawn), reverse=True)
    assert work["samples"] == [4] * 5
    assert work["tokens"] == [sum(lengths[at : at + 4]) for at in range(0, 20, 4)]
    assert player.answer({"run": 1, "cold": 0})["rested"]
    assert session.shapes == [(4, lengths[0]), (4, lengths[4])]
    again, other = (
        Player(session, features, 40, seed=seed).answer({"load": "real", "batch_size": 4}) for seed in (5, 6)
    )
    assert again == work
    assert other["work"] != work["work"] == player.answer({"load": "real", "batch_size": 4})["work"]
    player.answer({"load": "fixed", "batch_size": 50})
    player.answer({"run": 0, "cold": None})
    assert session.shapes[-1] == (21, 40) and len(session.shapes) == 3
    padded = Player(session, features, 40, seed=5, padded=True)
    assert padded.answer({"load": "real", "batch_size": 4}) == work  # the same sequences, however they are padded
    padded.answer({"run": 1, "cold": None})
    assert session.shapes[-1] == (4, 40)


def test_what_is_timed_is_the_call() -> None:
    player = Player(InMemorySession(seconds_a_call=0.02), make_features(), 40, seed=1)
    player.answer({"load": "real", "batch_size": 1})
    began, cpu = time.perf_counter(), player.answer({"cpu": True})["cpu"]
    seconds = player.answer({"run": 0, "cold": 1})["seconds"]
    assert 0.02 <= seconds <= time.perf_counter() - began - 0.02
    assert player.answer({"cpu": True})["cpu"] > cpu


def spinning(until: float) -> threading.Thread:
    """As a thread of an engine's pool does when there is nothing to do."""

    def spin() -> None:
        while time.perf_counter() < until:
            hashlib.sha256(LARGE)  # leaves the interpreter's lock alone

    thread = threading.Thread(target=spin)
    thread.start()
    return thread


def test_a_process_rests_before_it_hands_over() -> None:
    """Also where a spinning thread has no processor for a while; one that never stops is not waited for for ever."""
    assert rest()
    until = time.perf_counter() + 0.06
    thread = spinning(until)
    assert rest()
    assert time.perf_counter() >= until
    thread.join()
    began = time.perf_counter()
    thread = spinning(began + 4 * PATIENCE)
    assert not rest()
    assert time.perf_counter() - began >= PATIENCE
    thread.join()
