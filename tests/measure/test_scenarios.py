"""LoadGen on a session that is busy for a known time: its results agree with the session's own clock."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import Batch
from harness.measure.conditions import Counters
from harness.measure.samples import Samples, make_samples
from harness.measure.scenarios import run_scenario, summarise
from harness.measure.steady import warm_up, warm_up_session
from harness.measure.validity import findings
from harness.records.speed_schema import Speed, SpeedRound
from harness.suite.measure import Measure
from tests.backends.in_memory import InMemorySession
from tests.measure.clock import agrees_with_the_clock, times_of
from tests.measure.features import PAD, make_features

Array = np.ndarray[Any, Any]
OPTIONS: dict[str, Any] = {"min_duration": 0.4, "min_queries": 20, "max_warmup": 0.5, "seed": 1}


def samples_of(load: str, count: int = 64) -> Samples:
    return make_samples(make_features(), load=load, max_length=50, count=count, seed=1)


def test_single_stream_agrees_with_the_session() -> None:
    session = InMemorySession(seconds_a_call=0.001, seconds_a_token=1e-4)
    speed_round = run_scenario(session, samples_of("real"), scenario="single_stream", batch_size=1, **OPTIONS)
    began, ended = times_of(session, speed_round.queries)
    agrees_with_the_clock(speed_round, session, speed_round.queries)
    seconds = ended[-1] - began[0]
    assert speed_round.mean_ms is not None
    assert 0.999 * 1000 * (ended - began).mean() <= speed_round.mean_ms <= 1.1 * 1000 * seconds / speed_round.queries
    assert speed_round.p99_ms is not None
    assert speed_round.p90_ms is not None
    assert speed_round.p50_ms is not None
    assert speed_round.p50_ms <= speed_round.p90_ms <= speed_round.p99_ms
    assert (
        0.9 * speed_round.queries / seconds < speed_round.qps < 1.1 * speed_round.queries / seconds
    )  # LoadGen does not count the last query
    assert speed_round.duration_seconds >= 0.4
    assert speed_round.queries >= 20
    assert speed_round.loadgen["result_validity"] == "VALID"
    assert {rows for rows, _ in session.shapes} == {1}
    assert {width for _, width in session.shapes} <= set(map(int, make_features().lengths))
    assert len(set(session.shapes)) > 5


def test_a_gpu_sees_every_length_before_the_clock_starts() -> None:
    """On a CPU the lengths that warm-up chooses are enough."""
    samples = samples_of("real")
    session = InMemorySession(seconds_a_call=0.002)
    run_scenario(session, samples, scenario="single_stream", batch_size=1, device="cuda", **OPTIONS)
    widths = sorted(set(samples.widths), reverse=True)
    assert session.shapes[: len(widths)] == [(1, width) for width in widths]


@pytest.mark.slow
def test_a_gpu_sees_every_length_of_a_batch_with_padding_and_without() -> None:
    """An engine may use another kernel for a batch without padding."""
    masks: list[Array] = []

    class Session(InMemorySession):
        def run(self, batch: Batch) -> Array:
            masks.append(batch["attention_mask"])
            return super().run(batch)

    samples = samples_of("real")
    run_scenario(Session(), samples, scenario="offline", batch_size=4, device="cuda", **OPTIONS)
    lengths = set(samples.widths)
    first_masks = masks[: 2 * len(lengths) - 1]
    for padded in (False, True):
        seen = {mask.shape for mask in first_masks if bool((mask == 0).any()) is padded}
        assert seen == {(4, width) for width in lengths if not padded or width > min(lengths)}


def test_offline_counts_samples_in_whole_batches_sorted_by_length() -> None:
    session = InMemorySession(seconds_a_token=2e-5)
    speed_round = run_scenario(session, samples_of("real"), scenario="offline", batch_size=8, **OPTIONS)
    calls = speed_round.queries // 8
    began, ended = times_of(session, calls)
    assert speed_round.queries == 8 * calls
    assert session.shapes[-calls:] == sorted(session.shapes[-calls:], reverse=True)
    assert {rows for rows, _ in session.shapes} == {8}
    rate = speed_round.queries / (ended[-1] - began[0])
    assert 0.9 * rate < speed_round.qps < 1.001 * rate
    assert speed_round.loadgen["result_validity"] == "VALID"
    assert speed_round.duration_seconds >= 0.4


@pytest.mark.slow
def test_fixed_load_is_padded_to_max_length() -> None:
    for scenario, rows in (("single_stream", 1), ("offline", 4)):
        session = InMemorySession(seconds_a_call=0.002)
        run_scenario(session, samples_of("fixed"), scenario=scenario, batch_size=4, **OPTIONS)
        assert set(session.shapes) == {(rows, 50)}


def test_samples_are_a_seeded_draw_with_the_tasks_padding() -> None:
    features = make_features()
    samples, again, other = (make_samples(features, load="fixed", max_length=50, count=9, seed=s) for s in (1, 1, 2))
    assert len(samples) == 9
    assert np.array_equal(samples.arrays["input_ids"], again.arrays["input_ids"])
    assert not np.array_equal(samples.arrays["input_ids"], other.arrays["input_ids"])
    batch = samples.batch([2, 5])
    assert batch["input_ids"].shape == (2, 50)
    assert [int(row.sum()) for row in batch["attention_mask"]] == [samples.lengths[2], samples.lengths[5]]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == PAD).all()
    real = make_samples(features, load="real", max_length=50, count=9, seed=1)
    assert real.batch([2, 5])["input_ids"].shape == (2, max(real.lengths[2], real.lengths[5]))
    padded = make_samples(features, load="real", max_length=50, count=9, seed=1, padded=True)
    assert (padded.widths, padded.lengths) == ([50] * 9, real.lengths)
    assert np.array_equal(padded.batch([2, 5])["input_ids"], batch["input_ids"])


def median_latency(session: InMemorySession, samples: Samples, queries: int) -> float:
    """A plain loop, in milliseconds."""
    ready = [samples.batch([row]) for row in range(len(samples))]
    times = []
    for number in range(queries):
        start = time.perf_counter()
        session.run(ready[number % len(ready)])
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


@pytest.mark.slow
def test_loadgens_own_cost_is_small() -> None:
    """Compared with a plain loop, alternately. Medians, and the best of several trials, since other processes only add time.
    tests/bench asks for 20 microseconds on a quiet machine."""
    samples, session = samples_of("fixed"), InMemorySession(seconds_a_call=0.001)
    options = OPTIONS | {"min_duration": 0.2, "max_warmup": 0.2}
    costs: list[float] = []
    gaps: list[float] = []
    while len(costs) < 3 or (max(min(costs), min(gaps)) > 100 and len(costs) < 15):
        plain = median_latency(session, samples, 100)
        speed_round = run_scenario(session, samples, scenario="single_stream", batch_size=1, **options)
        began, ended = times_of(session, speed_round.queries)
        assert speed_round.p50_ms is not None
        costs.append(1000 * (speed_round.p50_ms - plain))
        gaps.append(1e6 * float(np.median(began[1:] - ended[:-1])))
    assert min(costs) <= 100
    assert min(gaps) <= 100


@pytest.mark.slow
def test_a_slow_session_is_cut_off_and_invalid() -> None:
    session = InMemorySession(seconds_a_call=0.2)
    options = OPTIONS | {"min_duration": 0.1, "max_warmup": 0.1}
    for scenario, fewest in (("single_stream", 1), ("offline", 4)):
        start = time.perf_counter()
        speed_round = run_scenario(session, samples_of("fixed", 4), scenario=scenario, batch_size=4, **options)
        assert time.perf_counter() - start < 10
        assert fewest <= speed_round.queries < 20 or scenario == "offline"
        failed = findings(
            [as_speed(speed_round)],
            NOWHERE,
            Measure(scenarios=("single_stream", "offline"), min_queries=1000, min_duration=0.1),
        )
        assert [finding.rule for finding in failed if finding.rule != "disturbed"] == [
            "too_few_rounds",
            "too_few_queries",
            "not_steady",
        ]


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["single_stream", "offline"])
def test_exceptions_inside_loadgen_are_raised(scenario: str) -> None:
    class Broken(InMemorySession):
        def run(self, batch: Batch) -> Array:
            if len(self.shapes) > 1200:
                raise ValueError("out of luck")
            return super().run(batch)

    with pytest.raises(ValueError, match="out of luck"):
        run_scenario(
            Broken(0.001), samples_of("real"), scenario=scenario, batch_size=1, **OPTIONS | {"min_queries": 5000}
        )


def test_an_audit_file_of_the_current_folder_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "audit.config").write_text("*.*.mode = 2\n*.*.min_query_count = 1\n")
    monkeypatch.chdir(tmp_path)
    speed_round = run_scenario(
        InMemorySession(0.001), samples_of("real"), scenario="single_stream", batch_size=1, **OPTIONS
    )
    assert speed_round.loadgen["effective_min_query_count"] == 20
    assert [path.name for path in tmp_path.iterdir()] == ["audit.config"]


def test_offline_grows_its_query_when_warm_up_saw_a_slower_session() -> None:
    class Quicker(InMemorySession):
        def run(self, batch: Batch) -> Array:
            self.seconds_a_call = 0.01 if len(self.shapes) < 130 else 0.002
            return super().run(batch)

    speed_round = run_scenario(Quicker(), samples_of("fixed"), scenario="offline", batch_size=1, **OPTIONS)
    assert speed_round.duration_seconds >= 0.4
    assert speed_round.loadgen["result_min_duration_met"]


def test_warm_up_ends_when_steady() -> None:
    """A call takes 60 ms at first, and 5 ms in the end."""
    calls: list[float] = []

    def getting_faster() -> int:
        calls.append(0.005 + 0.055 * 0.9 ** len(calls))
        until = time.perf_counter() + calls[-1]
        while time.perf_counter() < until:
            pass
        return 2

    warm = warm_up(getting_faster, 30.0)
    assert warm.ended.startswith("steady")
    assert calls[-1] < 0.006
    assert 4 * 0.15 < sum(calls) <= warm.seconds < 30
    assert 0.4 * 2 / 0.005 < warm.rate < 1.02 * 2 / 0.005  # calls take longer where others share the processor


@pytest.mark.parametrize(("taken", "steady"), [(0.0, True), (0.04, True), (0.2, False)])
def test_a_rate_beside_the_load_of_others_is_not_steady(taken: float, steady: bool) -> None:
    """taken: the share that a made-up other process takes of the only processor, while all calls take as long."""

    def read() -> Counters:
        now = time.perf_counter()
        return Counters(now, (0,), now, (1 - taken) * now, 0.0, None, None, busy_by_cpu=(now,), steal_by_cpu=(0.0,))

    def call() -> int:
        time.sleep(0.01)
        return 1

    warm = warm_up(call, 30.0, read)
    assert warm.ended.startswith("steady") == steady
    assert steady or warm.ended == "not steady: 4 windows within 3%, but other processes took 20% of the processors"
    assert warm.seconds < 10  # it does not wait for them to go


@pytest.mark.slow
def test_warm_up_ends_at_its_limit_and_gives_the_reason() -> None:
    delays = [0.01 if number // 2 % 2 else 0.3 for number in range(1000)]

    def unsteady() -> int:
        time.sleep(delays.pop())
        return 1

    warm = warm_up(unsteady, 2.5)
    assert 2.5 <= warm.seconds < 4
    assert warm.ended == "not steady within 2.5 s"
    assert "too few to judge" in warm_up(unsteady, 0.4).ended


def test_a_window_is_never_longer_than_an_eighth_of_the_limit() -> None:
    """A full call takes 0.64 s, so three would exceed the limit: the windows have 4 of its 16 rows."""
    session = InMemorySession(seconds_a_token=0.001)
    work = [{name: np.ones((16, 40), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}] * 3
    warm = warm_up_session(session, work, 1.3)
    assert session.shapes[:2] == [(16, 40)] * 2
    assert set(session.shapes[2:]) == {(4, 40)}
    assert len(session.shapes) - 2 >= 4
    assert 10 < warm.rate < 1.02 * 25  # calls take longer where others share the processor


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


def a_round(qps: float, queries: int = 100, warmup_ended: str = "steady", **loadgen: Any) -> SpeedRound:
    return SpeedRound(
        qps=qps, queries=queries, duration_seconds=1.0, warmup_seconds=0.0, warmup_ended=warmup_ended, loadgen=loadgen
    )


def test_rounds_give_the_mean_and_students_interval() -> None:
    """By hand: mean 20, s = 2, t(0.975, 2) = 4.3027."""
    figure = summarise([a_round(18.0), a_round(20.0), a_round(22.0)])["qps"]
    assert figure is not None
    assert figure.value == pytest.approx(20)
    assert figure.high == pytest.approx(20 + 4.30265 * 2 / 3**0.5, rel=1e-4)
    assert "3 fresh-process rounds" in figure.method
    single = summarise([a_round(18.0)])["qps"]
    assert single is not None
    assert single.low is None
    assert summarise([a_round(18.0)])["p50_ms"] is None


HERE = {"claimed": "CUDAExecutionProvider", "detail": [["m", "MatMul", "CUDAExecutionProvider"]]}
FALLEN = {"claimed": "CUDAExecutionProvider", "detail": [["m", "DynamicQuantizeMatMul", "CPUExecutionProvider"]]}
LIGHT = {"claimed": "CUDAExecutionProvider", "detail": [["s", "Shape", "CPUExecutionProvider"]]}
NOWHERE: dict[str, Any] = {"claimed": "memory", "detail": []}
UNSTEADY, TOO_FEW = "not steady within 20 s", "cut off after 3 windows, too few to judge, within 20 s"


def test_an_engine_that_returns_no_numbers_is_invalid() -> None:
    """Its examples count as wrong, so the record must say why its accuracy is low."""
    from harness.measure.validity import no_answer
    from harness.report.comparability import has_valid_accuracy
    from tests.records.records import make_record

    splits = [
        {"split": "validation_matched", "missing": 0, "examples": 10},
        {"split": "validation_mismatched", "missing": 3, "examples": 1200},
    ]
    (finding,) = no_answer(splits)
    assert (finding.rule, finding.measured) == ("no_answer", "for 3 of 1,200 examples, which count as wrong")
    assert finding.what.startswith("validation_mismatched: ")
    assert has_valid_accuracy(make_record())
    assert not has_valid_accuracy(make_record(status="invalid", reason=finding.what, findings=[finding]))


@pytest.mark.parametrize(
    ("rounds", "placement", "rules"),
    [
        ([a_round(20), a_round(21), a_round(20)], HERE, []),
        ([a_round(20), a_round(21), a_round(20)], LIGHT, []),
        ([a_round(20), a_round(21), a_round(20)], FALLEN, ["wrong_provider"]),
        ([a_round(20), a_round(20)], HERE, ["too_few_rounds"]),
        ([a_round(20), a_round(20), a_round(20, queries=63)], HERE, ["too_few_queries"]),
        ([a_round(20, result_min_duration_met=False)] * 3, HERE, ["too_short"]),
        ([a_round(20, warmup_ended=UNSTEADY), a_round(20), a_round(20)], HERE, []),
        ([a_round(20, warmup_ended=TOO_FEW), a_round(20), a_round(20)], HERE, []),
        ([a_round(20, warmup_ended=TOO_FEW), a_round(20, warmup_ended=UNSTEADY), a_round(20)], HERE, ["not_steady"]),
        ([a_round(20, warmup_ended=TOO_FEW)] * 3, HERE, ["not_steady"]),
        ([a_round(20, warmup_ended=UNSTEADY), a_round(20, warmup_ended=UNSTEADY), a_round(20)], HERE, ["not_steady"]),
    ],
)
def test_each_rule_finds_its_fault(rounds: list[SpeedRound], placement: dict[str, Any], rules: list[str]) -> None:
    failed = findings([as_speed(*rounds)], placement, Measure(scenarios=("single_stream", "offline"), min_queries=64))
    assert [finding.rule for finding in failed] == rules
    assert all(finding.what and finding.measured and finding.bound and finding.remedy for finding in failed)
