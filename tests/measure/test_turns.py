"""What happens inside a process that takes turns: which work, how often, and when it hands over."""

from __future__ import annotations

import threading
import time

import pytest

from harness.measure.samples import make_samples
from harness.measure.turns import PATIENCE, Turns, of_work, rest, schedule
from tests.backends.in_memory import InMemorySession
from tests.measure.features import make_features


def test_fast_calls_are_repeated_and_slow_ones_are_few() -> None:
    fast = schedule([0.0007, 0.0005], available=64, budget=0.3)
    # four calls of 0.7 ms a turn: 107 turns in 0.3 s, of which eight passes leave room for 13 batches
    assert (fast.calls, len(fast.batches), fast.passes, fast.cold) == (4, 13, 8, 1)
    assert fast.batches[0] == 64 // 26 and fast.batches[-1] == 25 * 64 // 26
    slow = schedule([1.2, 0.4], available=64, budget=4.0)
    assert slow == schedule([1.2, 0.4], available=64, budget=600.0)  # 4 s at most
    assert (slow.batches, slow.passes, slow.calls, slow.cold) == ((16, 48), 3, 1, 0)


@pytest.mark.parametrize("available", [1, 2, 3, 500])
@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 0.05, 30.0])
def test_a_schedule_has_batches_that_there_are(seconds: float, available: int) -> None:
    found = schedule([seconds], available, 4.0)
    assert len(set(found.batches)) == len(found.batches) >= min(2, available)
    assert all(0 <= number < available for number in found.batches)
    assert found.passes >= 3 and found.calls >= 1


def test_the_time_of_the_work_is_that_of_each_batch_undisturbed() -> None:
    assert of_work({3: [1.0, 2.0, 90.0], 7: [0.5, 0.25, 0.75, 0.5]}) == 2.0 + 0.5


def test_work_is_cut_as_offline_cuts_it() -> None:
    """Longest first, whole batches, the same sequences as a round of LoadGen draws with this seed."""
    features = make_features(count=21)
    session = InMemorySession()
    player = Turns(session, features, 40, seed=5)
    work = player.answer({"load": "real", "batch_size": 4})
    lengths = sorted(make_samples(features, load="real", max_length=40, count=21, seed=5).lengths, reverse=True)
    assert work["samples"] == [4] * 5
    assert work["tokens"] == [sum(lengths[at : at + 4]) for at in range(0, 20, 4)]
    assert len(player.answer({"run": 1, "cold": 1, "calls": 3})["seconds"]) == 3
    assert session.shapes == [(4, lengths[4])] * 4
    player.answer({"load": "fixed", "batch_size": 50})
    player.answer({"run": 0, "cold": 0, "calls": 1})
    assert session.shapes[-1] == (21, 40)


def test_what_is_timed_is_the_call() -> None:
    player = Turns(InMemorySession(seconds_a_call=0.02), make_features(), 40, seed=1)
    player.answer({"load": "real", "batch_size": 1})
    began = time.perf_counter()
    seconds = player.answer({"run": 0, "cold": 1, "calls": 2})["seconds"]
    assert all(one >= 0.02 for one in seconds)
    assert sum(seconds) + 0.02 <= time.perf_counter() - began


def test_a_process_rests_before_it_hands_over() -> None:
    """Threads that spin for 60 ms, as an engine's pool does; one that never stops is not waited for for ever."""
    until = time.perf_counter() + 0.06

    def spin() -> None:
        while time.perf_counter() < until:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    rest()
    assert time.perf_counter() >= until
    thread.join()
    until = time.perf_counter() + 10 * PATIENCE
    began = time.perf_counter()
    thread = threading.Thread(target=spin)
    thread.start()
    rest()
    assert time.perf_counter() - began >= PATIENCE
    assert time.perf_counter() < until
    thread.join()
