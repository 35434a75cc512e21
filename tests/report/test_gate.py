"""The gate on made-up nights: quiet ones pass, worse ones fail."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.records import store
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report.gate import Gate, Limits, gate
from tests.records.records import make_record
from tests.report.stored_scores import add, answers, interleaved

SPEED_UPS = {"fp32": 1.3, "bf16": 2.0, "int8": 2.7, "dynamic": 2.6, "qat": 2.7}


def a_night(number: int, rng: np.random.Generator, noise: float, slower: float = 0.0) -> list[Record]:
    """A baseline and five rows of three rounds. noise: standard deviation of a night's speed-up; the baseline's part of it is
    common to all rows. slower: the share of speed that row `int8` has lost."""
    own, common = rng.normal(0, noise / math.sqrt(2), 5), rng.normal(0, noise / math.sqrt(2))
    changes: dict[str, Any] = {"run_id": f"run-{number:04}", "finished": f"2026-01-01T00:00:00.{number:06}+00:00"}
    base = rng.normal(0, 0.01, 3)
    records = []
    for place, (label, speed_up) in enumerate([("torch", 1.0), *SPEED_UPS.items()]):
        drift = own[place - 1] + common if place else 0.0
        factor = speed_up * (1 - slower) if label == "int8" else speed_up
        seconds = tuple(float(math.exp(base[at] - drift) / factor) for at in range(3))
        parts: dict[str, Any] = {
            "label": label,
            "baseline": not place,
            "turns": [interleaved(seconds)],
            "record_id": f"{number}-{label}",
        }
        records.append(make_record(key=f"{number}-{label}", **(parts | changes)))
    return records


def judged(nights: list[list[Record]]) -> Gate:
    """The last night against those before it."""
    reference = [record for one in nights[:-1] for record in one]
    return gate(nights[-1], reference, ScoreStore(), Limits())


def test_quiet_nights_pass_and_a_slow_down_of_five_percent_is_found_within_two() -> None:
    """Nights whose speed-ups differ by 1.3%, as rounds do that are measured to 3%."""
    rng = np.random.default_rng(0)
    false_alarms = found = 0
    for trial in range(200):
        nights = [a_night(number, rng, 0.013) for number in range(11)]
        false_alarms += bool(judged(nights).worse)
        slow = [a_night(number, rng, 0.013, slower=0.05) for number in (11, 12)]
        results = [judged([*nights[-10:], slow[0]]), judged([*nights[-9:], *slow])]
        found += any(check.record.label == "int8" for result in results for check in result.worse)
        assert trial or len(results[1].checks) == 10
    assert false_alarms <= 3
    assert found >= 180


def test_a_night_without_its_baseline_says_so() -> None:
    rng = np.random.default_rng(2)
    nights = [a_night(number, rng, 0.01) for number in range(3)]
    result = judged([*nights[:2], nights[2][1:]])
    assert not result.checks
    assert list(result.untested.values()) == ["its run has no baseline"] * 5


def test_a_slow_down_that_is_surely_small_passes() -> None:
    rng = np.random.default_rng(1)
    nights = [a_night(number, rng, 0.001) for number in range(11)]
    result = judged([*nights, a_night(11, rng, 0.001, slower=0.03)])
    assert not result.worse
    slow = [check for check in result.checks if check.record.label == "int8"]
    assert all(check.p is not None and check.p < 1e-6 for check in slow[:1])
    assert judged([*nights, a_night(11, rng, 0.001, slower=0.06)]).worse


def test_a_noisy_machine_hides_nothing_on_a_quiet_one() -> None:
    rng = np.random.default_rng(5)
    noisy = {"cpu": "another", "cores": 2, "gpus": []}
    nights = []
    for number in range(12):
        quiet = a_night(number, rng, 0.002, slower=0.06 if number == 11 else 0.0)
        other = [
            record.model_copy(
                update={"machine": noisy, "run_id": f"{record.run_id}-b", "record_id": f"{record.record_id}-b"}
            )
            for record in a_night(number, rng, 0.2)
        ]
        nights.append([*quiet, *other])
    worse = judged(nights).worse
    assert {(check.record.label, check.record.machine["cpu"]) for check in worse} == {("int8", "made up")}


def test_a_slower_machine_is_no_slower_engine() -> None:
    rng = np.random.default_rng(2)
    nights = [a_night(number, rng, 0.005) for number in range(12)]
    halved = [
        record.model_copy(
            update={"turns": [interleaved(tuple(2 * round_.seconds for round_ in record.turns[0].rounds))]}
        )
        for record in nights[-1]
    ]
    assert not judged([*nights[:-1], halved]).worse


def test_a_row_that_was_good_and_is_not_fails(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    nights = [a_night(number, rng, 0.005) for number in range(12)]
    broken = [
        record.model_copy(update={"status": "failed", "reason": "killed by signal 9", "accuracy": [], "turns": []})
        if record.label == "qat"
        else record
        for record in nights[-1]
    ]
    (check,) = judged([*nights[:-1], broken]).worse
    assert (check.kind, check.words) == ("row", "was ok, is failed: killed by signal 9")
    assert not judged([*nights[:-2], broken, broken]).worse, "it failed in the reference as well"


def test_a_row_that_was_not_measured_again_is_named_and_does_not_fail() -> None:
    rng = np.random.default_rng(4)
    nights = [a_night(number, rng, 0.005) for number in range(3)]
    result = judged([*nights[:-1], nights[-1][:-1]])
    assert [record.label for record in result.absent] == ["qat"]
    assert not result.worse


@pytest.mark.parametrize(("lost", "worse"), [(0, False), (12, True), (2, False)])
def test_lost_accuracy_fails_if_it_is_significant_and_not_surely_small(tmp_path: Path, lost: int, worse: bool) -> None:
    add(tmp_path, "before", answers(1000, 100), label="int8", run_id="run-1")
    add(tmp_path, "after", answers(1000, 100 + lost), label="int8", run_id="run-2")
    found = list(store.read(tmp_path))
    result = gate([found[1][1]], [found[0][1]], ScoreStore(found), Limits(max_loss=0.5))
    (check,) = result.checks
    assert (check.kind, check.worse) == ("accuracy", worse)
    assert check.test is not None and check.test.value == pytest.approx(-lost / 10)
