"""LoadGen around a session whose speed is known: what it says agrees with a clock, and its own cost is small."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from backends import Batch, Placement
from harness.cells import Measure
from harness.measure.inference import run_features
from harness.measure.load import findings, make_samples, run_scenario, summarise, warm_up
from harness.record import Speed, SpeedRound
from tasks import Features

Array = np.ndarray[Any, Any]
OPTIONS: dict[str, Any] = {"min_duration": 0.5, "min_queries": 20, "max_warmup": 1.0, "seed": 1}


class InMemory:
    """A real session without an engine: busy for a fixed time a sample, logits that tell which tokens it saw."""

    artifact_bytes = 0
    build_seconds = 0.0
    built = False

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.shapes: list[tuple[int, ...]] = []
        self.spent: list[float] = []

    def run(self, batch: Batch) -> Array:
        start = time.perf_counter()
        ids = batch["input_ids"]
        self.shapes.append(ids.shape)
        logits = np.stack([ids, ids * batch["attention_mask"]], axis=-1).astype(np.float32)
        while time.perf_counter() - start < self.seconds * len(ids):
            pass
        self.spent.append(time.perf_counter() - start)
        return logits

    def placement(self) -> Placement:
        return Placement("memory", {}, 0, 0)

    def close(self) -> None: ...


def make_features(count: int = 64, longest: int = 40) -> Features:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, longest + 1, count)
    ids = (rng.integers(1, 99, (count, longest)) * (np.arange(longest) < lengths[:, None])).astype(np.int32)
    return Features(ids, np.zeros_like(ids), lengths, np.arange(count))


def test_single_stream_is_what_a_clock_says() -> None:
    session = InMemory(0.004)
    samples = make_samples(make_features(), load="real", max_length=40, count=64, seed=1)
    found = run_scenario(session, samples, scenario="single_stream", batch_size=1, **OPTIONS)
    own = 1000 * float(np.mean(session.spent[-found.queries :]))
    assert found.mean_ms == pytest.approx(own, rel=0.05)
    assert found.qps == pytest.approx(1000 / own, rel=0.1)
    assert found.p50_ms is not None
    assert found.p99_ms is not None
    assert 3.9 < found.p50_ms <= found.p99_ms
    assert found.queries >= 20
    assert {shape[0] for shape in session.shapes} == {1}
    assert len({shape[1] for shape in session.shapes}) > 5  # each at its own length


def test_offline_counts_samples_not_batches() -> None:
    session = InMemory(0.001)
    samples = make_samples(make_features(), load="fixed", max_length=40, count=64, seed=1)
    found = run_scenario(session, samples, scenario="offline", batch_size=8, **OPTIONS)
    assert found.qps == pytest.approx(1000, rel=0.15)
    assert {shape[1] for shape in session.shapes} == {40}
    assert max(shape[0] for shape in session.shapes) == 8
    assert found.duration_seconds > 0.3


def test_a_slow_session_is_cut_off_and_found_out() -> None:
    session = InMemory(0.3)
    samples = make_samples(make_features(4), load="fixed", max_length=40, count=4, seed=1)
    options = OPTIONS | {"min_duration": 0.1, "max_warmup": 0.1}
    start = time.perf_counter()
    found = run_scenario(session, samples, scenario="single_stream", batch_size=1, **options)
    assert time.perf_counter() - start < 15
    assert found.queries < 20
    told = findings([as_speed(found)], {"detail": [], "claimed": "x"}, Measure(min_queries=20))
    assert [one.rule for one in told] == ["too_few_queries"]


def test_what_fails_inside_loadgen_comes_out() -> None:
    class Broken(InMemory):
        def run(self, batch: Batch) -> Array:
            if len(self.shapes) > 300:
                raise ValueError("out of luck")
            return super().run(batch)

    samples = make_samples(make_features(), load="real", max_length=40, count=64, seed=1)
    with pytest.raises(ValueError, match="out of luck"):
        run_scenario(Broken(0.001), samples, scenario="single_stream", batch_size=1, **OPTIONS)


def test_warm_up_ends_when_steady_or_at_its_cap() -> None:
    def steady() -> int:
        time.sleep(0.002)
        return 1

    spent, why, rate = warm_up(steady, 10.0)
    assert why.startswith("steady")
    assert spent < 10
    assert 200 < rate <= 500
    delays = iter(float(number % 7) / 300 for number in range(10_000))

    def unsteady() -> int:
        time.sleep(0.1 * next(delays) * 7)
        return 1

    assert "not steady" in warm_up(unsteady, 0.7)[1] or warm_up(unsteady, 0.7)[0] >= 0.6


def as_speed(*rounds: SpeedRound) -> Speed:
    figures: dict[str, Any] = {**summarise(rounds)}
    return Speed(
        scenario="single_stream",
        load="fixed",
        batch_size=1,
        sequence_length=40,
        mean_tokens=40.0,
        rounds=list(rounds),
        timed="run",
        **figures,
    )


def a_round(qps: float, queries: int = 100) -> SpeedRound:
    return SpeedRound(qps=qps, queries=queries, duration_seconds=1.0, warmup_seconds=0.0, warmup_ended="steady")


def test_rounds_give_the_mean_and_students_interval() -> None:
    """By hand: mean 20, s = 2, t(0.975, 2) = 4.3027."""
    figure = summarise([a_round(18.0), a_round(20.0), a_round(22.0)])["qps"]
    assert figure is not None
    assert figure.value == pytest.approx(20)
    assert figure.high == pytest.approx(20 + 4.30265 * 2 / 3**0.5, rel=1e-4)
    single = summarise([a_round(18.0)])["qps"]
    assert single is not None
    assert single.low is None


def test_rules_find_what_they_are_for() -> None:
    quiet, wild = as_speed(a_round(20), a_round(21)), as_speed(a_round(20), a_round(30))
    here = {"claimed": "CUDAExecutionProvider", "detail": [["m", "MatMul", "CUDAExecutionProvider"]]}
    fallen = {"claimed": "CUDAExecutionProvider", "detail": [["m", "MatMul", "CPUExecutionProvider"]]}
    assert findings([quiet], here, Measure()) == []
    assert [one.rule for one in findings([wild], here, Measure())] == ["noisy"]
    assert [one.rule for one in findings([quiet], fallen, Measure())] == ["wrong_provider"]


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_outputs_come_back_in_order(padding: str) -> None:
    features, session = make_features(), InMemory(0)
    found = run_features(session, features, batch_size=7, padding=padding, max_length=50)
    inside = np.arange(40) < features.lengths[:, None]
    assert np.array_equal(found.outputs[..., 1][inside], features.input_ids[inside])
    assert (found.outputs[~inside].max() <= 0) if padding == "longest" else True
    widths = {shape[1] for shape in session.shapes}
    assert widths == {50} if padding == "max_length" else len(widths) > 3
    assert found.tokens == sum(rows * width for rows, width in session.shapes)
